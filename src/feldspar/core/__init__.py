"""Errors, manifests, atomic files, named random streams, parameter rows and roles."""
