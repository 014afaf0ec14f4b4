"""SmuPar (arXiv 2405.15743)."""
