"""The Llama-shaped decoder and how it lies on a device mesh."""
