"""Baselines: compressors, trigrams and bags of words."""
