"""SlimPajama-DC (arXiv 2309.10818)."""
