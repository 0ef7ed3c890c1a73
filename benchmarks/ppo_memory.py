"""Memory of PPO against GRPO with the same policy, from the compiled programs of their steps, without the hardware.

    python -m benchmarks.ppo_memory [--preset=1b3 --fsdp=8 --rewards=rule --prompt_length=256 --json=FILE]

Both are planned as `experiments.plan` does it, at their presets' sizes and worst case, where every sample is as long as
may be, one group a device at a time. The paper's policy is the 7B, and so is the default.

Two figures. What stays from step to step: the policy in float32 with its optimizer's moments, the reference in
bfloat16, a reward model in bfloat16 unless the rule rewards; PPO a critic in float32 with its own moments besides, as
large as the policy but for the output matrix. And the most that a device holds at a time, which the verdict is of: the
same with the largest program of a step, the gradients of a group's update. Activations are the same for both methods
and grow with the group, so that they draw this figure towards 1; the fewer devices share the parameters, or the shorter
the samples, the nearer it is to the first.

Either figure is of this code. PPO's critic learns after the policy, so that the gradients of both are never there at
once: a trainer that differentiates both in one program needs more. One that keeps the critic's moments in fewer digits,
or lets critic and policy share a decoder, needs less.
"""

import jax
from absl import app, flags

from benchmarks import timing
from configs import pretrain, rl
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import use_cpu_devices
from dsmath.plan.plan import Plan, plan
from dsmath.runs.workdir import write_json

_PRESET = flags.DEFINE_enum("preset", "7b", ["nano", "1b3", "7b"], "the policy's shape")
_FSDP = flags.DEFINE_integer("fsdp", 8, "devices", lower_bound=1)
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 102400, "the paper's", lower_bound=1)
_PROMPT_LENGTH = flags.DEFINE_integer("prompt_length", 256, "tokens of a prompt", lower_bound=1)
_GROUP_SIZE = flags.DEFINE_integer("group_size", 0, "samples of a question; 0: the preset's", lower_bound=0)
_REWARDS = flags.DEFINE_enum("rewards", "outcome_model", ["outcome_model", "rule"], "where rewards come from")
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOAL = 1 / 0.6


def main(argv: list[str]) -> None:
    del argv
    jax.config.update("jax_platforms", "cpu")
    use_cpu_devices(_FSDP.value)
    model = ModelConfig.create({**pretrain.get_config(_PRESET.value).model, "vocab_size": _VOCAB_SIZE.value})
    plans = {coefficient: _plan(coefficient, model) for coefficient in ("grpo", "ppo")}
    tables = {name: {**found.resident, **found.peak.memory} for name, found in plans.items()}
    peaks = ", ".join(f"{name} {found.peak.name}" for name, found in plans.items())
    print(f"policy {_PRESET.value} on {_FSDP.value} devices, rewards by {_REWARDS.value}; largest programs: {peaks}")
    print(f"{'GB of a device':<32}{'GRPO':>8}{'PPO':>8}")
    for item in tables["grpo"] | tables["ppo"]:
        print(f"  {item:<30}" + "".join(f"{table.get(item, 0) / 1e9:>8.2f}" for table in tables.values()))
    print(f"  {'at most':<30}" + "".join(f"{found.bytes / 1e9:>8.2f}" for found in plans.values()))
    held = [sum(found.resident.values()) for found in plans.values()]
    print(f"what stays from step to step: GRPO / PPO = {held[0] / held[1]:.3f}")
    print(f"at most: GRPO / PPO = {plans['grpo'].bytes / plans['ppo'].bytes:.3f}")
    if _JSON.value:
        machine = timing.describe_machine("jax", "jaxlib", "flax")
        write_json(_JSON.value, {name: found.to_dict() for name, found in plans.items()} | {"machine": machine})
    timing.conclude("ppo_memory", plans["ppo"].bytes / plans["grpo"].bytes, _GOAL)


def _plan(coefficient: str, model: ModelConfig) -> Plan:
    """A step with one group at a time on each device."""
    config = rl.get_config(_PRESET.value)
    config.update({"coefficient": coefficient, "reward": _REWARDS.value})
    config.group_size = _GROUP_SIZE.value or config.group_size
    config.num_groups = _FSDP.value
    return plan(config, {"fsdp": _FSDP.value}, model=model, prompt_length=_PROMPT_LENGTH.value)


if __name__ == "__main__":
    app.run(main)
