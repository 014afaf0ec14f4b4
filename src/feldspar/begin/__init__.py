"""Begin with files of one's own: look at them, choose a model, write a recipe."""
