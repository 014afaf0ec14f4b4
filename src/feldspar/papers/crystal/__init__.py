"""Crystal (arXiv 2411.04156)."""
