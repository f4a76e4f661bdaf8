"""Training of a timm backbone on images: learn, unlearn, relearn. Nothing here writes a run directory."""
