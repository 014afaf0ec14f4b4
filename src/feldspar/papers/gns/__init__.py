"""The gradient noise scale from norm layers (arXiv 2411.00999)."""
