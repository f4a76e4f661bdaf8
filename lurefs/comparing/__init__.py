"""Finished runs side by side, in numbers and words: groups, pairs, verdicts, standings. Nothing is drawn here."""
