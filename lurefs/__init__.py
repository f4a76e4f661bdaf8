"""Pre-train image backbones online with Learn, Unlearn, Relearn, and measure how they transfer."""

__version__ = "0.1.0"
