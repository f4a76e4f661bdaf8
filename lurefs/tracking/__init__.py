"""The mirror of run directories at Weights & Biases: what it is told, how it is called, how it is looked at."""
