"""Compiled twins of the slow steps of deduplication: the same bits as the numpy forms."""
