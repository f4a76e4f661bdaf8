"""From images and a timm name to a trained backbone: learn, unlearn, relearn. Nothing here writes a run directory."""
