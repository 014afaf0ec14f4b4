"""Studies: many runs of one recipe, each in its own run folder."""
