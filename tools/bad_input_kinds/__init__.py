"""Bad inputs by their kind: written-out cases, then an endless stream of damaged valid files."""
