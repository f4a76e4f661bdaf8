"""Images: the contract of a data set, its sources, the splits and the chunk stream. No torch here."""
