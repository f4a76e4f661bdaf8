"""Transfer: probes fitted on whole groups of classes at once, in place of episodes."""
