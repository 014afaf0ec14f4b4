"""Find the inputs that a recipe needs before training; build missing ones, or refuse."""
