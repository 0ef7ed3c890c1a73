"""dsmath: the open reproduction of DeepSeekMath in JAX."""

__version__ = "0.1.0"
