"""What the page draws: numbers and images in, SVG or PNG out."""
