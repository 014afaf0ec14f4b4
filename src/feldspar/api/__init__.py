"""The functions that feldspar offers to Python programs and notebooks.

The commands call the same functions. Each imports what it needs when it is called, so that
``import feldspar`` is quick.
"""
