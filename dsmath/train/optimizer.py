"""AdamW with the paper's schedules."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
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
      config: `config.optimizer`: schedule, peak_learning_rate, warmup_steps, b1, b2, weight_decay, clip_norm.
      num_steps: steps of the whole training.
    Source: DeepSeekMath §2.2.1 (b1 0.9, b2 0.95, weight decay 0.1).
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
        optax.adamw(schedule, b1=config["b1"], b2=config["b2"], weight_decay=config["weight_decay"], mask=_decays),
    )
    return optimizer, schedule


def _decays(params: Any) -> Any:
    """Weight decay pulls on matrices, not on the scales of norms."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        return "scale" not in [getattr(entry, "key", None) for entry in path]

    return jax.tree_util.tree_map_with_path(decays, params)
