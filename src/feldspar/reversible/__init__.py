"""Reversible execution: rebuild activations from a block's outputs instead of storing them."""
