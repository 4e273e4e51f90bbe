"""Files for Megatron-Bridge, which trains in NVIDIA's container."""
