"""Readers: from files, archives and this interpreter to documents, in a fixed order."""
