"""BTLM-3B-8K (arXiv 2309.11568)."""
