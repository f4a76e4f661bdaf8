"""The stages of one run, from the plan to the summary."""
