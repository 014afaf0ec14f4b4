"""Held-out loss, bits per byte, baselines, and the adapter to lm-eval."""
