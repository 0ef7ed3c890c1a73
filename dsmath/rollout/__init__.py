"""Generation from live parameters on the training mesh."""
