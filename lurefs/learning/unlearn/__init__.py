"""Unlearn strategies: what is done to the weights between two chunks."""
