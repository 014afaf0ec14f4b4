"""MediSwift (arXiv 2403.00952)."""
