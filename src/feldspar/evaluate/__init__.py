"""Held-out loss, bits per byte, and the adapter to lm-eval."""
