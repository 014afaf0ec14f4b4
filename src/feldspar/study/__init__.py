"""Many runs of one recipe, each a run folder."""
