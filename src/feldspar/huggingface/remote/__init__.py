"""Code that an exported folder carries: `transformers` imports copies of these files alone."""
