"""The run directory: its files, how runs are found, and the outcome of each chunk."""
