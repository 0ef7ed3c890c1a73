"""Evaluation of models on held-out problems, and the report of a whole chain."""
