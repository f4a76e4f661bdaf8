"""The run directory: its files and records, and the search for runs by name."""
