"""Norm layers: per-example gradients from their own backward pass, at no cost."""
