"""Training on a mesh: losses, the optimizer, the state, the loop, checkpoints."""
