"""Find what a recipe needs before it trains; build what is missing, or refuse."""
