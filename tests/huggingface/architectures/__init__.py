"""Every architecture that can be imported, held against transformers' own class."""
