"""The decoder: RMSNorm, rotary attention with grouped heads, SwiGLU, layers scanned. Pure `init` and `apply`."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from dsmath.model import attention
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import constrain

KeysValues = tuple[Array, Array]


@struct.dataclass
class Cache:
    """Keys and values of one decoding batch: the questions' prefixes, shared by their samples, and the samples' own.

    Attributes:
      prefix: keys, values [layers, questions, prefix_length, kv_heads, head_dim].
      prefix_mask: bool [questions, prefix_length]; prompts are padded on the right.
      suffix: for each layer keys, values [questions, group, suffix_length, kv_heads, head_dim].
      index: int32 scalar, tokens written to the suffix so far.
    """

    prefix: KeysValues
    prefix_mask: Array
    suffix: tuple[KeysValues, ...]
    index: Array


_POLICIES = {
    "minimal": jax.checkpoint_policies.dots_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
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
    # Gathered over fsdp before the look-up: the compiler would otherwise gather what was looked up.
    return constrain(table.astype(dtype), "vocab", None)[tokens]


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
        self.inputs = {
            name: self.param(name, _weight("embed", *axes[name]), (c.width, *shapes[name]), c.param_dtype)
            for name in shapes
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
        projected = {name: multiply(x, self.adapt(name, weight)) for name, weight in self.inputs.items()}
        for name, bias in self.biases.items():
            projected[name] += bias.astype(x.dtype)
        c = self.config
        frequencies = attention.rotary_frequencies(c.head_dim // 2, c.rope_theta, c.rope_scaling)
        query, key = (attention.rotate(projected[name], positions, frequencies) for name in "qk")
        return query, key, projected["v"]

    def _output(self, attended: Array) -> Array:
        return multiply(attended, self.adapt("out", self.out), contracted=2)

    def __call__(self, x: Array, positions: Array, segment_ids: Array) -> tuple[Array, KeysValues]:
        query, key, value = self._project(x, positions)
        attended = attention.attend(query, key, value, segment_ids, self.config.attention)
        return self._output(attended), (key, value)

    def extend(
        self, x: Array, positions: Array, prefix: KeysValues, prefix_mask: Array, past: KeysValues | None, index: Array
    ) -> tuple[Array, KeysValues]:
        """The samples' newest tokens, x [questions, group, length, width], after a shared prefix and their own past.

        `past` has room for more tokens than it holds; the new ones are written at `index`. None: no past.
        """
        query, key, value = self._project(x, positions)
        if past is not None:
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), index, axis=2)
                for old, new in zip(past, (key, value), strict=True)
            )
        visible = jnp.arange(key.shape[2]) <= index + jnp.arange(x.shape[2])[:, None]  # [length, suffix_length]
        attended = attention.attend_with_prefix(query, prefix, prefix_mask, (key, value), visible)
        return self._output(attended), (key, value)


class MLP(_Adapted):
    """SwiGLU."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.config
        down = _weight("mlp", "embed", scale=0.5 / c.num_layers)
        gate = self.param("gate", _weight("embed", "mlp"), (c.width, c.mlp_width), c.param_dtype)
        up = self.param("up", _weight("embed", "mlp"), (c.width, c.mlp_width), c.param_dtype)
        down = self.param("down", down, (c.mlp_width, c.width), c.param_dtype)
        hidden = nn.silu(multiply(x, self.adapt("gate", gate))) * multiply(x, self.adapt("up", up))
        return multiply(hidden, self.adapt("down", down))


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

    def extend(
        self, x: Array, positions: Array, prefix: KeysValues, prefix_mask: Array, past: KeysValues | None, index: Array
    ) -> tuple[Array, KeysValues]:
        attended, keys_values = self.attention.extend(
            self.attention_norm(x), positions, prefix, prefix_mask, past, index
        )
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), keys_values


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


def _run_prompts(model: Transformer, params: Any, tokens: Array, lengths: Array) -> tuple[Array, KeysValues, Array]:
    """tokens [questions, prefix_length] -> last hidden [questions, width], keys and values, mask of the prompts."""
    slots = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    valid = slots < lengths[:, None]
    hidden, prefix = model.apply(params, tokens, slots, valid.astype(jnp.int32))
    return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0], prefix, valid


def prefill(
    model: Transformer, params: Any, tokens: Array, lengths: Array, group_size: int, suffix_length: int
) -> tuple[Array, Cache]:
    """Runs the questions once and makes the cache that their samples share.

    Args:
      tokens: int32 [questions, prefix_length], padded on the right.
      lengths: int32 [questions], tokens of each prompt.
      group_size: samples of each question.
      suffix_length: most tokens that will be decoded.
    Returns:
      logits float32 [questions, vocab] after each prompt's last token, and the cache.
    """
    last, prefix, valid = _run_prompts(model, params, tokens, lengths)
    config = model.config
    shape = (tokens.shape[0], group_size, suffix_length, config.num_kv_heads, config.head_dim)
    empty = tuple((jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)) for _ in range(config.num_layers))
    cache = Cache(prefix=prefix, prefix_mask=valid, suffix=empty, index=jnp.zeros((), jnp.int32))
    return model.apply(params, last, method="logits"), cache


def decode(model: Transformer, params: Any, tokens: Array, positions: Array, cache: Cache) -> tuple[Array, Cache]:
    """Advances every sample by one token.

    The layers are unrolled, not scanned: a scan would copy the whole cache at every token.

    Args:
      tokens, positions: int32 [questions, group].
    Returns:
      logits float32 [questions, group, vocab] and the cache with the token's keys and values in it.
    """
    block = Block(model.config)
    x = model.apply(params, tokens[..., None], method="embed")  # [questions, group, 1, width]
    suffix = []
    for layer in range(model.config.num_layers):
        weights, prefix = jax.tree.map(lambda leaf, layer=layer: leaf[layer], (_layers(params), cache.prefix))
        x, keys_values = block.apply(
            {"params": weights},
            x,
            positions[..., None],
            prefix,
            cache.prefix_mask,
            cache.suffix[layer],
            cache.index,
            method="extend",
        )
        suffix.append(keys_values)
    hidden = model.apply(params, x[:, :, 0], method="normalize")
    return model.apply(params, hidden, method="logits"), cache.replace(suffix=tuple(suffix), index=cache.index + 1)


def group_hidden(model: Transformer, params: Any, prompts: Array, prompt_lengths: Array, completions: Array) -> Array:
    """The last hidden states that predict a group's completions; each prompt is run once for its whole group.

    The same numbers as a plain forward pass over prompt and completion, at a fraction of its cost.

    Args:
      prompts: int32 [questions, prefix_length], padded on the right.
      prompt_lengths: int32 [questions].
      completions: int32 [questions, group, length], padded on the right.
    Returns:
      [questions, group, length, width]; the logits of position t predict completion token t.
    """
    last, prefix, valid = _run_prompts(model, params, prompts, prompt_lengths)
    questions, group, length = completions.shape
    positions = prompt_lengths[:, None, None] + jnp.broadcast_to(jnp.arange(length - 1), (questions, group, length - 1))
    block = Block(model.config)

    def layer(x: Array, weights_and_prefix: tuple[Any, KeysValues]) -> tuple[Array, None]:
        weights, keys_values = weights_and_prefix
        start = jnp.zeros((), jnp.int32)
        x, _ = block.apply({"params": weights}, x, positions, keys_values, valid, None, start, method="extend")
        return x, None

    x = model.apply(params, completions[..., :-1], method="embed")
    x, _ = jax.lax.scan(rematerialize(layer, model.config.remat), x, (_layers(params), prefix))
    first = jnp.broadcast_to(last[:, None, None], (questions, group, 1, last.shape[-1]))
    return jnp.concatenate([first, model.apply(params, x, method="normalize")], axis=2)


def _layers(params: Any) -> Any:
    """The stacked weights of the layers, [layers, ...] each."""
    return params["params"]["blocks"]
