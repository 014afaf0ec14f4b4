"""Change a model before training: rows for the tokens of an extended tokenizer."""
