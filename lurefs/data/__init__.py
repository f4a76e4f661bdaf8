"""Image data without torch: the data set interface, its sources, class and image splits, chunks, corruptions."""
