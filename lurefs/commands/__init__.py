"""What a person types: one file for each command of `lurefs`. `lurefs.cli` puts them together."""
