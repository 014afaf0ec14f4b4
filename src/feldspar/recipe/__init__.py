"""Recipes: strict YAML sections, amounts with units, schedules, choices, overrides."""
