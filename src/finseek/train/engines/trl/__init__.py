"""TRL's trainer, PEFT's adapters and 4-bit weights, on models of transformers."""
