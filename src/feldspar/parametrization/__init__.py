"""Parametrizations as tables: initial values, learning rates and multipliers per tensor."""
