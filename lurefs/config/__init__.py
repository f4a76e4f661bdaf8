"""The settings: what they are, how they are read from files, what is refused, and the page that lists them."""
