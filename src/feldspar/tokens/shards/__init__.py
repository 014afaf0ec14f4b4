"""Shards: write documents as files of tokens, and read them."""
