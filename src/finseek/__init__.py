"""Fine-tune DeepSeek-V3-class models on dated financial theses, and test honestly whether they can trade."""

__version__ = "0.1.0"
