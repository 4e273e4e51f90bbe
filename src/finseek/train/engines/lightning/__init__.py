"""finseek's own DeepSeek-V3 under a Lightning Trainer."""
