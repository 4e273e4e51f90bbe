"""NVIDIA NeMo AutoModel 0.7."""
