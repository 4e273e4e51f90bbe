"""Checkpoints: inspect, convert between FP8 and BF16 as a stream, rename, move to and from NeMo."""
