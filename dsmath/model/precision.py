"""The digits that parameters need where they do not learn."""

from typing import Any

import jax
import jax.numpy as jnp

from dsmath.model.config import ModelConfig


def cast_matrices(params: Any, config: ModelConfig) -> Any:
    """Parameters with their matrices in the computation's dtype; norms and adapters keep theirs.

    The forward pass casts every matrix, bias, embedding and head before it uses it, and takes norms and adapters as
    they are: it computes the same from these, bit for bit. A compiler that leaves out a cast and its inverse within a
    fusion (XLA's excess precision) may have used more digits of a bias or a head before.

    Args:
      params: arrays, or their shapes, dtypes and shardings.
      config: of the model.
    Returns:
      a tree of the same kind; a leaf that changes no dtype may be the old one.
    """
    dtype = jnp.dtype(config.dtype)

    def cast(path, leaf: Any) -> Any:
        name = path[-1].key
        if name == "scale" or "_lora_" in name:
            return leaf
        return leaf.update(dtype=dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params)
