"""Scaling laws: published ones, fitting, and the loss that a law expects."""
