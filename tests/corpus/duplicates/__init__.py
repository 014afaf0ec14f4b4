"""The deduplication engine."""
