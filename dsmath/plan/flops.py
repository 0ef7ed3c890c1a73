"""The operations that a model asks for, by formula."""

from typing import NamedTuple

from dsmath.model.config import ModelConfig


class Forward(NamedTuple):
    """Operations of a forward pass: of the matrices, and of attention's two products."""

    matrices: float
    attention: float

    @property
    def total(self) -> float:
        return self.matrices + self.attention


def forward(model: ModelConfig, tokens: int, outputs: int, pairs: int) -> Forward:
    """Operations of a forward pass.

    A token takes two operations of every weight that multiplies it, which the embedding's do not; a query and a key
    that it looks at take four of every element of their heads.

    Args:
      model: its shape.
      tokens: that run through the layers.
      outputs: tokens whose logits are taken.
      pairs: of queries and keys that the mask leaves, over all rows; one long document a row is the upper bound.
    Source: Chowdhery et al. 2022, appendix B, whose attention counts what the mask hides too.
    """
    attention = 2 * (model.num_heads + model.num_kv_heads) * model.head_dim * model.width
    layer = attention + 3 * model.width * model.mlp_width
    matrices = 2 * (tokens * model.num_layers * layer + outputs * model.width * model.vocab_size)
    return Forward(float(matrices), 4.0 * model.num_layers * model.num_heads * model.head_dim * pairs)


def causal_pairs(length: int) -> int:
    """Pairs of a query and a key at or before it in one row."""
    return length * (length + 1) // 2
