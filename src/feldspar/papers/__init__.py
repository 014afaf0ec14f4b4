"""A folder for each paper: recipes, page, experiment, claims; ``kit`` holds what they share."""
