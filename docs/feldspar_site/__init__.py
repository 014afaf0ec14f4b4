"""The documentation site: pages of this repository and generated ones, put together for Sphinx."""
