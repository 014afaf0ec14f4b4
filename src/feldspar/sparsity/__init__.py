"""Sparse weights: densities, counts of kept entries, and masks."""
