"""Duplicate removal: pure stages from texts to hashes, pairs, clusters and survivors."""
