"""Compiled kernels against the numpy forms."""
