"""Position interpolation for ALiBi (arXiv 2310.13017)."""
