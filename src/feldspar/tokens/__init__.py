"""Tokenizers, token shards, and the exact order in which training reads them."""
