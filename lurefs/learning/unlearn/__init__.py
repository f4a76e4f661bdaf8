"""Unlearn strategies, which change the weights between two chunks."""
