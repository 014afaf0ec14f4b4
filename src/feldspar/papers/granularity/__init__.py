"""Blocks in masks, and masks that move (RigL, arXiv 1911.11134)."""
