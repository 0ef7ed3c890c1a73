"""AdamW with the paper's schedules."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dsmath.runs.errors import InputError

Schedule = Callable[[Any], Any]


def make_schedule(name: str, *, peak: float, warmup_steps: int, num_steps: int) -> Schedule:
    """The learning rate by step.

    Args:
      name: "multi_step" (31.6 % of the peak after 80 % of training, 10 % after 90 %), "constant" or "cosine"
        (to 10 % of the peak); all after a linear warm-up.
      peak: learning rate at the end of the warm-up.
      warmup_steps: steps from 0 to the peak.
      num_steps: steps of the whole training.
    Source: DeepSeekMath §2.2.1 (multi_step), §3 (constant).
    """
    if not 0 <= warmup_steps <= num_steps:
        raise InputError(f"config.optimizer.warmup_steps: {warmup_steps} is not between 0 and the {num_steps} steps")
    if name == "multi_step":
        after = optax.join_schedules(
            [optax.constant_schedule(share * peak) for share in (1.0, 0.316, 0.1)],
            [int(0.8 * num_steps) - warmup_steps, int(0.9 * num_steps) - warmup_steps],
        )
    elif name == "constant":
        after = optax.constant_schedule(peak)
    elif name == "cosine":
        after = optax.cosine_decay_schedule(peak, max(1, num_steps - warmup_steps), alpha=0.1)
    else:
        raise InputError(f"config.optimizer.schedule: {name!r} is none of 'multi_step', 'constant', 'cosine'")
    if not warmup_steps:
        return after
    # The warm-up ends one step late on purpose: step 0 already learns.
    warmup = optax.linear_schedule(peak / warmup_steps, peak, max(1, warmup_steps - 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(config: Mapping[str, Any], num_steps: int) -> tuple[optax.GradientTransformation, Schedule]:
    """AdamW behind global-norm clipping.

    Args:
      config: `config.optimizer`: schedule, peak_learning_rate, warmup_steps, b1, b2, weight_decay, clip_norm, and
        moments: "float32"; "bfloat16", half the memory; "factored", Adafactor's: means over rows and columns for the
        squares, no first moment, hardly any memory.
      num_steps: steps of the whole training.
    Source: DeepSeekMath §2.2.1 (b1 0.9, b2 0.95, weight decay 0.1); Shazeer and Stern 2018 (factored).
    """
    for field in ("peak_learning_rate", "clip_norm"):
        if config[field] <= 0:
            raise InputError(f"config.optimizer.{field}: {config[field]} must be positive")
    schedule = make_schedule(
        config["schedule"],
        peak=config["peak_learning_rate"],
        warmup_steps=config["warmup_steps"],
        num_steps=num_steps,
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config["clip_norm"]),
        _scale(config),
        optax.add_decayed_weights(config["weight_decay"], mask=_decays),
        optax.scale_by_learning_rate(schedule),
    )
    return optimizer, schedule


def _scale(config: Mapping[str, Any]) -> optax.GradientTransformation:
    kind = config["moments"]
    if kind == "factored":
        return optax.scale_by_factored_rms()
    if kind not in ("float32", "bfloat16"):
        raise InputError(f"config.optimizer.moments: {kind!r} is none of 'float32', 'bfloat16', 'factored'")
    adam = optax.scale_by_adam(b1=config["b1"], b2=config["b2"])
    return adam if kind == "float32" else _in_bfloat16(adam)


def _in_bfloat16(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Keeps the moments in bfloat16; each update computes in float32."""

    def cast(state: Any, source: Any, target: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(target) if x.dtype == source else x, state)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(updates, cast(state, jnp.bfloat16, jnp.float32), params)
        return updates, cast(state, jnp.float32, jnp.bfloat16)

    return optax.GradientTransformation(lambda params: cast(inner.init(params), jnp.float32, jnp.bfloat16), update)


def _decays(params: Any) -> Any:
    """Weight decay pulls on matrices, not on the scales of norms or on biases."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        names = [str(getattr(entry, "key", "")) for entry in path]
        return not any(name == "scale" or name.endswith("_bias") for name in names)

    return jax.tree_util.tree_map_with_path(decays, params)
