"""Bilingual adaptation (arXiv 2407.12869)."""
