"""Charts and image sheets of the page: numbers and images in, SVG or PNG out."""
