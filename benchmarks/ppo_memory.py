"""Memory of PPO against GRPO with the same policy, from the compiled programs of their updates, without the hardware.

    python -m benchmarks.ppo_memory [--preset=1b3 --fsdp=8 --rows=64 --json=FILE …]

Both hold the policy with its optimizer, a reference and a reward model; PPO a critic with its own optimizer besides, as
large as the policy but for the output matrix. A micro-batch is a packed group on each device; its gradients are added
to the sums of those before it (`make_accumulate`), and one update follows (`make_apply`). The programs are compiled for
CPU devices from shapes alone, as `experiments.plan` does it; the largest counts. What is held is exact, and three
choices decide the ratio:
  frozen: the dtype of the models that do not learn, `float32` or `bfloat16`;
  critic: `after`, its gradients are summed when the policy's are gone; or `beside`, one pass over the micro-batches
    makes both, so that both sums are there at once;
  rewards: a `model`, or a `rule`, which needs no memory.
All are printed; the flags choose the one that the figure is of. Generation and scores need less than the updates.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax import Array
from jax.sharding import Mesh

from benchmarks import timing
from configs import pretrain, rl
from dsmath.model.config import ModelConfig
from dsmath.model.heads import ValueModel, headless
from dsmath.model.sharding import batch_sharding, make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.plan.compiled import CompiledProgram, compile_program
from dsmath.plan.stages import for_cpu
from dsmath.plan.work import device_bytes
from dsmath.rl import objectives
from dsmath.rollout.batches import PACKED, completion_logprobs, completion_values
from dsmath.runs.workdir import write_json
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import LossFunction, TrainState, abstract_state, make_accumulate, make_apply

_PRESET = flags.DEFINE_enum("preset", "1b3", ["nano", "1b3", "7b"], "the policy's shape")
_FSDP = flags.DEFINE_integer("fsdp", 8, "devices", lower_bound=1)
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 102400, "the paper's", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 64, "packed rows of a group; at worst as many as its samples", lower_bound=1)
_PROMPT_LENGTH = flags.DEFINE_integer("prompt_length", 256, "tokens of a prompt", lower_bound=1)
_FROZEN = flags.DEFINE_enum("frozen", "float32", ["float32", "bfloat16"], "dtype of reference and reward model")
_CRITIC = flags.DEFINE_enum("critic", "after", ["after", "beside"], "when its gradients are summed")
_REWARDS = flags.DEFINE_enum("rewards", "model", ["model", "rule"], "where rewards come from")
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOAL = 1 / 0.6
_VALUE_CLIP = 0.2
_PARTS = ("accumulate", "apply")


def main(argv: list[str]) -> None:
    del argv
    jax.config.update("jax_platforms", "cpu")
    use_cpu_devices(_FSDP.value)
    mesh = make_mesh({"fsdp": _FSDP.value})
    config = ModelConfig.create({**pretrain.get_config(_PRESET.value).model, "vocab_size": _VOCAB_SIZE.value})
    settings = rl.get_config("7b")
    optimizer, _ = make_optimizer(settings.optimizer, settings.num_steps)
    policy, critic = Transformer(for_cpu(config)), ValueModel(headless(for_cpu(config)))
    states = {"policy": abstract_state(policy, optimizer, mesh), "critic": abstract_state(critic, optimizer, mesh)}
    batch = _abstract_batch(mesh, settings.group_size, settings.decoding.max_new_tokens)
    losses = {
        "grpo": ("policy", _grpo_loss(policy, settings)),
        "ppo": ("policy", _ppo_loss(policy, settings)),
        "critic": ("critic", _critic_loss(critic)),
    }
    programs = {
        name: _compile(loss_function, states[of], batch, optimizer, mesh)
        for name, (of, loss_function) in losses.items()
    }
    held = {name: _held(state) for name, state in states.items()}
    cases = {
        choice: _needed(held, programs, *choice)
        for choice in itertools.product(("float32", "bfloat16"), ("after", "beside"), ("model", "rule"))
    }
    _conclude(held, programs, cases)


def _abstract_batch(mesh: Mesh, group_size: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A micro-batch with one group on each device."""
    groups = mesh.shape["fsdp"]

    def arrays(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((groups, *shape), dtype, sharding=batch_sharding(mesh))

    batch = dict.fromkeys(PACKED, arrays(jnp.int32, _ROWS.value, length))
    batch |= dict.fromkeys(("completions", "places"), arrays(jnp.int32, group_size, length))
    tokens = ("mask", "ref_logprobs", "old_logprobs", "advantages", "old_values", "returns")
    batch |= dict.fromkeys(tokens, arrays(jnp.float32, group_size, length))
    batch |= {"prompts": arrays(jnp.int32, _PROMPT_LENGTH.value), "prompt_lengths": arrays(jnp.int32)}
    return batch | {"lengths": arrays(jnp.int32, group_size)}


def _grpo_loss(model: Transformer, settings: Any) -> LossFunction:
    def loss_function(params: Any, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        logprobs, _ = completion_logprobs(model, params, batch, settings.logits_chunk)
        return objectives.grpo(
            logprobs,
            batch["old_logprobs"],
            batch["ref_logprobs"],
            batch["advantages"],
            batch["mask"],
            clip_eps=settings.clip_eps,
            beta=settings.beta,
        )

    return loss_function


def _ppo_loss(model: Transformer, settings: Any) -> LossFunction:
    def loss_function(params: Any, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        logprobs, _ = completion_logprobs(model, params, batch, settings.logits_chunk)
        return objectives.ppo(
            logprobs,
            batch["old_logprobs"],
            batch["advantages"],
            batch["mask"],
            clip_eps=settings.clip_eps,
            aggregation="output",
        )

    return loss_function


def _critic_loss(model: ValueModel) -> LossFunction:
    def loss_function(params: Any, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        values = completion_values(model, params, batch, at="before")
        return objectives.value_loss(
            values, batch["old_values"], batch["returns"], batch["mask"], clip=_VALUE_CLIP, aggregation="output"
        )

    return loss_function


def _compile(
    loss_function: LossFunction, state: TrainState, batch: Mapping[str, Any], optimizer: Any, mesh: Mesh
) -> dict[str, int]:
    """Bytes on a device, beside what is held, of the two programs of an update."""
    with jax.set_mesh(mesh):
        loss, sums = jax.eval_shape(loss_function, state.params, batch)
    totals = (state.params, {"loss": loss, **sums})
    accumulate = make_accumulate(loss_function, mesh).lower(state.params, batch, totals)
    apply = make_apply(optimizer, mesh).lower(state, totals)
    compiled: list[CompiledProgram] = [compile_program(lowered, mesh.shape) for lowered in (accumulate, apply)]
    gradients = device_bytes(state.params)
    return {
        "batch": compiled[0].arguments - 2 * gradients,
        "gradients": gradients,
        "accumulate": compiled[0].temporaries,
        "apply": compiled[1].temporaries,
    }


def _held(state: TrainState) -> dict[str, int]:
    return {"parameters": device_bytes(state.params), "optimizer": device_bytes(state.opt_state)}


def _needed(
    held: Mapping[str, Mapping[str, int]],
    programs: Mapping[str, Mapping[str, int]],
    frozen: str,
    critic: str,
    rewards: str,
) -> dict[str, dict[str, int]]:
    """Bytes on a device by item, of GRPO and PPO."""
    narrow = 2 if frozen == "bfloat16" else 1  # the masters are float32
    both = {
        "policy": held["policy"]["parameters"],
        "policy's optimizer": held["policy"]["optimizer"],
        "reference": held["policy"]["parameters"] // narrow,
        "reward model": held["critic"]["parameters"] // narrow if rewards == "model" else 0,
    }
    critics = {"critic": held["critic"]["parameters"], "critic's optimizer": held["critic"]["optimizer"]}

    def updating(*names: str) -> dict[str, int]:
        """The largest of the programs of these updates, and the gradients that are there while it runs."""
        program = {
            name: max(programs[name]["batch"] + programs[name]["accumulate"], programs[name]["apply"]) for name in names
        }
        if critic == "beside":
            gradients, largest = sum(programs[name]["gradients"] for name in names), max(program.values())
        else:
            worst = max(names, key=lambda name: programs[name]["gradients"] + program[name])
            gradients, largest = programs[worst]["gradients"], program[worst]
        return {"sums of gradients": gradients, "batch and temporaries": largest}

    return {"grpo": both | updating("grpo"), "ppo": both | critics | updating("ppo", "critic")}


def _conclude(held: dict, programs: dict, cases: dict) -> None:
    chosen = (_FROZEN.value, _CRITIC.value, _REWARDS.value)
    grpo, ppo = cases[chosen]["grpo"], cases[chosen]["ppo"]
    print(f"policy {_PRESET.value} on {_FSDP.value} devices; a group of {_ROWS.value} rows a device and micro-batch")
    print(f"{'GB of a device':<26}{'GRPO':>8}{'PPO':>8}")
    for item in ppo:
        print(f"  {item:<24}{grpo.get(item, 0) / 1e9:>8.2f}{ppo[item] / 1e9:>8.2f}")
    print(f"  {'at most':<24}{sum(grpo.values()) / 1e9:>8.2f}{sum(ppo.values()) / 1e9:>8.2f}")
    temporaries = [f"{name} {of[part] / 1e9:.2f} ({part})" for name, of in programs.items() for part in _PARTS]
    print(f"temporaries of a program, GB: {', '.join(temporaries)}")
    shares = {choice: sum(of["grpo"].values()) / sum(of["ppo"].values()) for choice, of in cases.items()}
    print(f"{'frozen':<10}{'critic':<8}{'rewards':<9}{'GRPO / PPO':>10}")
    for choice, share in shares.items():
        print("{:<10}{:<8}{:<9}".format(*choice) + f"{share:>10.3f}" + (" *" if choice == chosen else ""))
    if _JSON.value:
        write_json(
            _JSON.value,
            {
                "shares": {" ".join(choice): share for choice, share in shares.items()},
                "cases": {" ".join(choice): of for choice, of in cases.items()},
                "held": held,
                "programs": programs,
                "machine": timing.describe_machine("jax", "jaxlib", "flax"),
            },
        )
    timing.conclude("ppo_memory", 1 / shares[chosen], _GOAL)


if __name__ == "__main__":
    app.run(main)
