"""Reversible execution: activations are rebuilt from a block's outputs instead of being kept."""
