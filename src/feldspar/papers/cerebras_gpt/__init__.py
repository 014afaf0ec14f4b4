"""Cerebras-GPT (arXiv 2304.03208)."""
