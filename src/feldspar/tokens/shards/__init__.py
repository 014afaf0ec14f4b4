"""Shards: documents written as token files, and reading them back."""
