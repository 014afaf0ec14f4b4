"""Which entries of which matrices are kept: densities, counts and masks."""
