"""What a training step needs of the hardware, read from an ahead-of-time compile on abstract shapes."""
