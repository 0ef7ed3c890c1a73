"""Hugging Face checkpoints in and out: their config, their tensors' layout, their files."""
