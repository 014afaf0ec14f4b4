"""From raw text to a released language model at the least compute."""

__version__ = "0.1.0"
