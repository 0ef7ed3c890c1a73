"""The decoder: RMSNorm, rotary attention with grouped heads, SwiGLU, layers scanned. Pure `init` and `apply`."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from dsmath.model import attention, cudnn, flash_decoding, xla
from dsmath.model.attention import Stored
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import constrain

KeysValues = tuple[Array, Array]


def _is_product(primitive: Any, *arguments: Any, **settings: Any) -> bool:
    """Whether it is a matrix product, or cuDNN's attention, which is two: neither is computed again."""
    is_attention = primitive.name.startswith("dot_product_attention_fwd")
    return is_attention or jax.checkpoint_policies.dots_saveable(primitive, *arguments, **settings)


def _and_attention(policy: Callable) -> Callable:
    """What a policy keeps, and what attention by XLA asks to be kept."""
    policies = jax.checkpoint_policies
    return policies.save_from_both_policies(policy, policies.save_only_these_names(xla.KEPT))


_POLICIES = {
    "minimal": _and_attention(_is_product),
    "dots": _and_attention(jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer_input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def rematerialize(function: Callable, name: str, wrap: Callable = jax.checkpoint) -> Callable:
    """Computes a layer's activations again in the backward pass, but for those that the policy keeps.

    Args:
      function: of a layer.
      name: of the policy, `ModelConfig.remat`.
      wrap: `jax.checkpoint`, or Flax's `nn.remat` for modules.
    """
    return function if name == "none" else wrap(function, policy=_POLICIES[name], prevent_cse=False)


def multiply(x: Array, weight: Array, contracted: int = 1) -> Array:
    """Contracts the last `contracted` axes of x with the first ones of a weight.

    Rows stand in one axis where no mesh axis divides their length: on a CPU XLA then takes 2/3 of the time for the
    gradient, which sums over rows.

    Args:
      x: [..., fan-in axes].
      weight: [fan-in axes, fan-out axes].
    Returns:
      [..., fan-out axes].
    """
    rows, fan_out = x.shape[: x.ndim - contracted], weight.shape[contracted:]
    matrix = weight.astype(x.dtype).reshape(math.prod(weight.shape[:contracted]), -1)
    mesh = jax.sharding.get_abstract_mesh()
    flat = mesh.empty or mesh.shape["sequence"] == 1
    x = x.reshape(*((-1,) if flat else rows), matrix.shape[0])
    return (x @ matrix).reshape(*rows, *fan_out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def look_up(table: Array, tokens: Array, dtype: str) -> Array:
    """Rows of the embedding [vocab, width] in the dtype of the computation: [...] -> [..., width]."""
    # Cast where it lies, then gathered over fsdp, then looked up in: left alone, the compiler takes another order.
    table = constrain(table.astype(dtype), "vocab", "embed")
    return constrain(table, "vocab", None)[tokens]


def _add_up(dtype: str, kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, None]:
    """Adds in float32: a frequent token has more terms than bfloat16 has digits."""
    table, tokens = kept
    gradient = jnp.zeros(table.shape, jnp.float32).at[tokens].add(cotangent.astype(jnp.float32))
    return constrain(gradient, "vocab", "embed").astype(table.dtype), None


look_up.defvjp(lambda table, tokens, dtype: (look_up(table, tokens, dtype), (table, tokens)), _add_up)


def _weight(*axes: str, scale: float = 1.0, fan_in: tuple[int, ...] = (0,)):
    """A variance-scaled normal initialiser that carries its logical axes."""
    out = tuple(axis for axis in range(len(axes)) if axis not in fan_in)
    init = nn.initializers.variance_scaling(scale, "fan_in", "normal", in_axis=fan_in, out_axis=out)
    return nn.with_partitioning(init, axes)


class _Adapted(nn.Module):
    """A module whose weights may have low-rank adapters beside them: see `dsmath.train.lora`."""

    def adapt(self, name: str, weight: Array) -> Array:
        """The weight, plus the product of its adapters where the parameters hold them."""
        if not self.has_variable("params", f"{name}_lora_a"):
            return weight
        down, up = (self.get_variable("params", f"{name}_lora_{part}") for part in "ab")
        return weight + jnp.tensordot(down, up, 1).astype(weight.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        ones = nn.with_partitioning(nn.initializers.ones, ("norm",))
        scale = self.param("scale", ones, (x.shape[-1],), self.config.param_dtype)
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.config.norm_eps)
        return (x32 * scale).astype(x.dtype)


class Attention(_Adapted):
    """Rotary self-attention with grouped key and value heads."""

    config: ModelConfig

    def setup(self):
        c = self.config
        shapes = {"q": (c.num_heads, c.head_dim), "k": (c.num_kv_heads, c.head_dim), "v": (c.num_kv_heads, c.head_dim)}
        axes = {"q": ("heads", "head_dim"), "k": ("kv_heads", "head_dim"), "v": ("kv_heads", "head_dim")}
        self.is_joined = self.has_variable("params", "qkv")  # see `generation.unstack`
        self.inputs = {
            name: self.param(name, _weight("embed", *axes[name]), (c.width, *shapes[name]), c.param_dtype)
            for name in (() if self.is_joined else shapes)
        }
        zeros = nn.initializers.zeros
        self.biases = {
            name: self.param(f"{name}_bias", nn.with_partitioning(zeros, axes[name]), shapes[name], c.param_dtype)
            for name in (shapes if c.attention_bias else ())
        }
        # Residual branches start small, so that the depth does not set the scale of the stream (GPT-2's rule).
        out = _weight("heads", "head_dim", "embed", scale=0.5 / c.num_layers, fan_in=(0, 1))
        self.out = self.param("out", out, (c.num_heads, c.head_dim, c.width), c.param_dtype)

    def _project(self, x: Array, positions: Array) -> tuple[Array, Array, Array]:
        c = self.config
        if self.is_joined:
            parts = jnp.split(
                multiply(x, self.get_variable("params", "qkv")), (c.num_heads, c.num_heads + c.num_kv_heads), axis=-2
            )
            projected = dict(zip("qkv", parts, strict=True))
        else:
            projected = {name: multiply(x, self.adapt(name, weight)) for name, weight in self.inputs.items()}
        for name, bias in self.biases.items():
            projected[name] += bias.astype(x.dtype)
        frequencies = attention.rotary_frequencies(c.head_dim // 2, c.rope_theta, c.rope_scaling)
        query, key = (attention.rotate(projected[name], positions, frequencies) for name in "qk")
        return query, key, projected["v"]

    def _output(self, attended: Array) -> Array:
        return multiply(attended, self.adapt("out", self.out), contracted=2)

    def __call__(self, x: Array, positions: Array, segment_ids: Array) -> tuple[Array, KeysValues]:
        query, key, value = self._project(x, positions)
        attended = attention.attend(query, key, value, segment_ids, self.config.attention)
        return self._output(attended), (key, value)

    def after_prefix(
        self, x: Array, positions: Array, segments: Array, prefix: KeysValues, prefix_mask: Array
    ) -> Array:
        """Rows x [questions, rows, length, width] after their questions' prefixes; see `attend_after_prefix`."""
        query, key, value = self._project(x, positions)
        return self._output(attention.attend_after_prefix(query, key, value, segments, prefix, prefix_mask))

    def extend(
        self,
        x: Array,
        positions: Array,
        prefix: Stored,
        prefix_mask: Array,
        own_mask: Array,
        past: Stored,
        index: Array,
    ) -> tuple[Array, Stored]:
        """The samples' newest tokens, x [questions, group, 1, width], after a shared prefix and their own past.

        `past` has room for more tokens than it holds: the new token of each sample is written at its own `index`,
        int32 [questions, group], and `own_mask`, bool [questions, group, 1, room], tells which it looks at.
        """
        query, key, value = self._project(x, positions)
        new = attention.store(key, value, past.value.dtype)
        if flash_decoding.serves(self.config, prefix.value.shape[-2], past.value.shape[-2]):
            prefix_lengths = prefix_mask.sum(axis=-1, dtype=jnp.int32)
            attended, own = flash_decoding.attend(query, prefix, prefix_lengths, past, new, index)
        else:
            own = attention.write(past, new, index)
            attended = attention.attend_with_prefix(query, prefix, prefix_mask, own, own_mask)
        return self._output(attended), own


class MLP(_Adapted):
    """SwiGLU."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.config
        down = _weight("mlp", "embed", scale=0.5 / c.num_layers)
        if self.has_variable("params", "gate_up"):  # see `generation.unstack`
            gated, upped = jnp.split(multiply(x, self.get_variable("params", "gate_up")), 2, axis=-1)
        else:
            gate = self.param("gate", _weight("embed", "mlp"), (c.width, c.mlp_width), c.param_dtype)
            up = self.param("up", _weight("embed", "mlp"), (c.width, c.mlp_width), c.param_dtype)
            gated, upped = multiply(x, self.adapt("gate", gate)), multiply(x, self.adapt("up", up))
        down = self.param("down", down, (c.mlp_width, c.width), c.param_dtype)
        return multiply(nn.silu(gated) * upped, self.adapt("down", down))


class Block(nn.Module):
    """One pre-norm layer."""

    config: ModelConfig

    def setup(self):
        self.attention_norm = RMSNorm(self.config)
        self.attention = Attention(self.config)
        self.mlp_norm = RMSNorm(self.config)
        self.mlp = MLP(self.config)

    def __call__(self, x: Array, positions: Array, segment_ids: Array) -> tuple[Array, KeysValues]:
        x = checkpoint_name(constrain(x, "batch", "length", None), "layer_input")
        attended, keys_values = self.attention(self.attention_norm(x), positions, segment_ids)
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), keys_values

    def after_prefix(self, x: Array, *where: Array | KeysValues) -> Array:
        x = checkpoint_name(constrain(x, "batch", None, "length", None), "layer_input")
        x = x + self.attention.after_prefix(self.attention_norm(x), *where)
        return x + self.mlp(self.mlp_norm(x))

    def extend(self, x: Array, positions: Array, *cached: Stored | Array) -> tuple[Array, Stored]:
        attended, own = self.attention.extend(self.attention_norm(x), positions, *cached)
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), own


class Transformer(nn.Module):
    """The decoder.

    `model.apply(params, tokens, positions, segment_ids)` gives the last hidden states and every layer's keys and
    values; `model.apply(params, hidden, method="logits")` the logits. Kept apart because the logits are the large
    part: a loss takes them where, and only where, it needs them.
    """

    config: ModelConfig

    def setup(self):
        c = self.config
        embedding = nn.with_partitioning(nn.initializers.normal(c.width**-0.5), ("vocab", "embed"))
        self.embedding = self.param("embedding", embedding, (c.vocab_size, c.width), c.param_dtype)
        self.blocks = nn.scan(
            rematerialize(Block, c.remat, nn.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c)
        self.final_norm = RMSNorm(c)
        if not c.tied:
            self.output = self.param("output", _weight("embed", "vocab"), (c.width, c.vocab_size), c.param_dtype)

    def __call__(self, tokens: Array, positions: Array, segment_ids: Array) -> tuple[Array, tuple[Array, Array]]:
        """Runs whole sequences.

        Args:
          tokens, positions, segment_ids: int32 [batch, length]; segment 0 is padding.
        Returns:
          hidden [batch, length, width] and keys, values [layers, batch, length, kv_heads, head_dim].
        """
        x = self.embed(tokens)
        if self.config.attention == "cudnn_documents":  # a loss that is no number is seen, a wrong one is not
            x = jnp.where(cudnn.have_few_documents(segment_ids)[:, None, None], x, jnp.nan)
        x, keys_values = self.blocks(x, positions, segment_ids)
        return self.final_norm(x), keys_values

    def embed(self, tokens: Array) -> Array:
        """tokens int32 [...] -> [..., width]."""
        return look_up(self.embedding, tokens, self.config.dtype)

    def logits(self, hidden: Array) -> Array:
        """hidden [..., width] -> float32 [..., vocab]."""
        return jnp.matmul(hidden, self.output_matrix().astype(hidden.dtype), preferred_element_type=jnp.float32)

    def output_matrix(self) -> Array:
        """[width, vocab]; a loss that takes logits in parts multiplies by it itself."""
        return self.embedding.T if self.config.tied else self.output

    def init_all(self, tokens: Array, positions: Array, segment_ids: Array) -> Array:
        """Touches every parameter; `model.init` calls it."""
        hidden, _ = self(tokens, positions, segment_ids)
        return self.logits(hidden)

    def normalize(self, x: Array) -> Array:
        """The final norm of a stream that ran outside `__call__`."""
        return self.final_norm(x)


def init_params(model: Transformer, key: Array) -> Any:
    """New random parameters, in Flax's boxes with their logical axes.

    The values do not depend on how attention is computed; flash kernels refuse so short a row.
    """
    tokens = jnp.zeros((1, 2), jnp.int32)
    plain = model.clone(config=dataclasses.replace(model.config, attention="xla"))
    return plain.init(key, tokens, tokens, tokens, method="init_all")
