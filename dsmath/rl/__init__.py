"""Reinforcement learning: advantages, objectives, and the parts of the loop."""
