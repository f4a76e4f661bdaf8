"""Probes fitted to whole groups of classes: the rows of each fit, the fits, the table of results."""
