"""One short driver a stage, read top to bottom."""
