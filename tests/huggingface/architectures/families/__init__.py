"""One file for each architecture: small configurations of its class in transformers."""
