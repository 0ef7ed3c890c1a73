"""The conventions of the evaluation that was released with the paper, its known defects included."""
