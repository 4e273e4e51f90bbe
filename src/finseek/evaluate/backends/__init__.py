"""What runs a model: one protocol, one file each."""
