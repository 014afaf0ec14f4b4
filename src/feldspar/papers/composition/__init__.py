"""All methods together against a plain recipe, and each taken away once."""
