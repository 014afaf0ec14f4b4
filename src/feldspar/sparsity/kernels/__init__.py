"""Sparse matrix products on a processor, compiled by LLVM when a run begins."""
