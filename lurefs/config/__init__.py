"""Settings of a run: their dataclasses, reading recipes, checks, and the page that lists all of them."""
