"""The sections of a recipe, one file each: strict settings that load no torch."""
