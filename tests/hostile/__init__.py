"""Hostile model files, made anew for each run: `cases.CASES` has all of them."""
