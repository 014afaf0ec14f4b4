"""Tokenizers: train, read, extend and check them."""
