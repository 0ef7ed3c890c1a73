"""A plan says what real steps hold and exchange."""

import dataclasses
import functools
import json
import subprocess
import sys

import jax
import pytest

from benchmarks.scaling import expected_bytes
from configs import pretrain, rl
from dsmath.model import attention
from dsmath.model.sharding import batch_sharding, make_mesh
from dsmath.model.transformer import Transformer
from dsmath.plan import flops
from dsmath.plan.collectives import Collective
from dsmath.plan.devices import DEVICES, Device
from dsmath.plan.plan import Plan, ProgramPlan, plan
from dsmath.plan.stages import make_stage
from dsmath.plan.work import device_bytes
from dsmath.runs.errors import InputError
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import abstract_state, create_state, make_train_step
from dsmath.train.supervised import next_token_loss

ROWS, LENGTH = 16, 16


@pytest.fixture(scope="module")
def model(make_model_config):
    """Untied, float32, one key head for each head, nothing computed again."""
    return make_model_config(tied=False, num_heads=8, num_kv_heads=8, width=64, head_dim=8, mlp_width=96)


@pytest.fixture(scope="module")
def config():
    """(changes) -> a config of pretraining on short rows."""

    def make(**changes):
        c = pretrain.get_config("nano")
        with c.unlocked():
            c.update({"length": LENGTH, "batch_size": ROWS, "logits_chunk": LENGTH} | changes)
        return c

    return make


@pytest.fixture(scope="module")
def planned(config, model):
    """(mesh shape, changes of the config, changes of the model) -> the plan, each made once."""

    @functools.cache
    def make(shape, changes=(), fields=()) -> Plan:
        changed = dataclasses.replace(model, **dict(fields))
        return plan(config(**dict(changes)), dict(shape), model=changed, prompt_length=1)

    return lambda shape, changes=(), **fields: make(
        tuple(shape.items()), tuple(dict(changes).items()), tuple(fields.items())
    )


def _update(found: Plan) -> ProgramPlan:
    return found.programs[-1]


@pytest.mark.parametrize("moments", ["bfloat16", "factored"])
def test_the_state_takes_the_bytes_that_the_plan_says(config, model, moments):
    c = config()
    c.optimizer.moments = moments
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    stage = make_stage(c, model, mesh, prompt_length=1)
    optimizer, _ = make_optimizer(c.optimizer, c.num_steps)
    state = create_state(Transformer(model), Guard(c.guards).wrap(optimizer), mesh, seed=0)

    def held(tree) -> int:
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))

    assert device_bytes(stage.state.params) == held(state.params)
    assert device_bytes(stage.state.opt_state) == held(state.opt_state)


def test_arguments_and_temporaries_are_the_compiled_step_s(planned, model, config):
    shape = {"fsdp": 4, "tensor": 2}
    found = planned(shape, {"num_microbatches": 2})
    mesh, decoder = make_mesh(shape), Transformer(model)
    optimizer, _ = make_optimizer(config().optimizer, config().num_steps)
    optimizer = Guard(config().guards).wrap(optimizer)
    step = make_train_step(next_token_loss(decoder, LENGTH), optimizer, mesh, 2)
    rows = jax.ShapeDtypeStruct((ROWS, LENGTH), "int32", sharding=batch_sharding(mesh))
    batch = dict.fromkeys(("tokens", "targets", "positions", "segment_ids"), rows)
    batch["loss_mask"] = rows.update(dtype="float32")
    state = abstract_state(decoder, optimizer, mesh)
    real = step.lower(state, batch).compile().memory_analysis()
    memory = _update(found).memory
    assert memory["gradients"] + memory["activations and temporaries"] == (
        real.temp_size_in_bytes + real.output_size_in_bytes - real.alias_size_in_bytes
    )
    beside = device_bytes((state.step, state.rng))
    assert memory["batch"] + sum(found.resident.values()) + beside == real.argument_size_in_bytes
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(("axis", "count"), [("data", 8), ("fsdp", 8), ("tensor", 4)])
def test_exchanged_bytes_are_those_of_arithmetic(planned, model, axis, count):
    found = planned({axis: count})
    assert {axes for axes, _ in found.collective_bytes()} == {(axis,)}
    counted = {kind: held for (_, kind), (held, _) in found.collective_bytes().items()}
    # Sums of single numbers, such as the gradient's norm, are beside these.
    assert counted == pytest.approx(expected_bytes(model, axis, count, ROWS, LENGTH), rel=0.01, abs=256)


def test_micro_batches_gather_again(planned):
    once, twice = planned({"fsdp": 8}), planned({"fsdp": 8}, {"num_microbatches": 2})
    gathered = (("fsdp",), "all-gather")
    assert twice.collective_bytes()[gathered][0] == pytest.approx(2 * once.collective_bytes()[gathered][0], rel=0.01)


def test_operations_are_those_of_the_formula_and_of_xla_where_no_loop_turns_twice(planned):
    found = planned({"data": 8})
    assert 8 * _update(found).flops == pytest.approx(found.model_flops, rel=0.05)
    found = planned({"data": 1}, num_layers=1, remat="full")
    assert _update(found).flops > 1.2 * found.model_flops  # the layer's forward pass runs again
    # XLA counts elementwise operations too: few beside the products of a layer that is wide enough.
    assert _update(found).cost_flops == pytest.approx(_update(found).flops, rel=0.5)


@pytest.mark.slow
def test_kernels_that_hold_no_scores_are_planned_without_them(planned):
    attend, held, multiplied = attention.attend, {}, {}
    for name in ("xla", "splash"):
        shape = {"fsdp": 2, "sequence": 2, "tensor": 2}
        found = planned(shape, {"length": 256}, attention=name, dtype="bfloat16", num_layers=1)
        held[name] = _update(found).memory["activations and temporaries"]
        multiplied[name] = 8 * _update(found).flops
    assert multiplied["splash"] == pytest.approx(found.model_flops, rel=0.01)
    # "xla" multiplies what the mask hides too, and forms the scores again: seven products in place of six.
    products = 6 * 2 * 8 * flops.causal_pairs(256) * 4 * 32  # operations, rows, pairs, heads, head_dim
    more = products * (7 / 6 * 256**2 / flops.causal_pairs(256) - 1)
    assert multiplied["xla"] == pytest.approx(found.model_flops + more, rel=0.01)
    assert attention.attend is attend
    assert held["xla"] - held["splash"] > 8 * 128 * 256 * 4 * 4  # rows, queries, keys, heads, float32


@pytest.fixture(scope="module")
def reinforcement():
    """(changes) -> a config of reinforcement learning on short outputs."""

    def make(**changes):
        c = rl.get_config("nano")
        c.num_groups, c.group_size, c.decoding.max_new_tokens, c.logits_chunk = 8, 8, 8, 8
        c.rollout.slots = 32
        c.update(changes)
        return c

    return make


def test_reinforcement_counts_the_cache_the_reference_and_all_its_programs(reinforcement, model):
    shape = {"data": 2, "fsdp": 2, "tensor": 2}
    model = dataclasses.replace(model, num_layers=1)
    found = plan(reinforcement(), shape, model=model, prompt_length=10)
    assert [program.name for program in found.programs] == ["gather", "sample", "reference", "update", "update: apply"]
    assert found.tokens == 8 * 8 * 8
    assert found.resident["frozen parameters"] == found.resident["parameters"]
    sample, update, apply = (found.programs[place] for place in (1, 3, 4))
    assert update.memory["gradients"] == apply.memory["gradients"] == found.resident["parameters"]
    assert sample.times == 2  # 64 samples, 32 at a time, each ends within a block
    # 16 rows of 2 samples, each 8 tokens, beside a question of 16; keys and values, 8 heads of 8 numbers.
    assert sample.memory["keys and values"] == 16 * (16 + 2 * 8) * 2 * 8 * 8 * 4 // 8
    whole = 4 * found.parameters
    assert whole / 2 < sample.memory["gathered parameters"] < whole / 1.9  # norms are not spread over tensor
    assert sample.times * sample.flops * 8 == pytest.approx(sample.times * sample.model_flops, rel=0.25)


def test_micro_batches_and_updates_are_counted(reinforcement, model):
    changes = {"microbatch_tokens": 64 + 16, "updates_per_rollout": 2}
    stage = make_stage(
        reinforcement(**changes), model, make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4]), prompt_length=10
    )
    times = {name: work.times for name, work in stage.works.items() if name != "sample"}
    assert times == {"gather": 1, "score": 2, "reference": 2, "update": 2 * 2, "update: apply": 2}
    assert stage.works["update"].batch["rows"].shape == (4, 1, 64)
    with pytest.raises(InputError, match=r"config\.microbatch_tokens: 79 cannot hold a group .* at least 80"):
        make_stage(
            reinforcement(microbatch_tokens=79),
            model,
            make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4]),
            prompt_length=10,
        )


@pytest.mark.slow
def test_ppo_holds_a_critic_beside_what_grpo_holds(reinforcement, model):
    model = dataclasses.replace(model, num_layers=1)
    shape, learned = {"data": 2, "fsdp": 2}, {"reward": "outcome_model"}
    grpo = plan(reinforcement(**learned), shape, model=model, prompt_length=10)
    ppo = plan(reinforcement(**learned, coefficient="ppo"), shape, model=model, prompt_length=10)
    assert grpo.resident.keys() < ppo.resident.keys()
    assert ppo.resident["critic's optimizer"] >= 2 * ppo.resident["critic"]
    assert ppo.resident["critic"] == ppo.resident["reward model"] < ppo.resident["parameters"]  # no output matrix
    names = [program.name for program in ppo.programs]
    assert names[2:5] == ["score", "reference", "reward"]
    assert names[5:] == ["update", "update: apply", "value", "critic update", "critic update: apply"]
    assert ppo.bytes > grpo.bytes


@pytest.mark.parametrize("method", ["sft", "rft", "dpo"])
def test_every_method_has_its_programs(reinforcement, model, method):
    named = rl.get_config(f"nano,{method}")
    changes = {name: named[name] for name in ("source", "reward", "coefficient")}
    size = {"group_size": 1} if method == "sft" else {}
    stage = make_stage(
        reinforcement(**changes, **size), model, make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4]), prompt_length=10
    )
    programs = {"sft": [], "rft": ["gather", "sample"], "dpo": ["gather", "sample", "reference"]}[method]
    assert list(stage.works) == [*programs, "update", "update: apply"]
    assert (stage.frozen is None) == (method == "sft")


def test_all_samples_of_a_pair_are_scored(reinforcement, model):
    """A pair is chosen after the reward model has seen its whole group."""
    mesh, named = make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4]), rl.get_config("nano,dpo")
    changes = {name: named[name] for name in ("source", "coefficient")} | {"reward": "outcome_model"}
    few, many = (
        make_stage(reinforcement(**changes, dpo={"pairs": pairs}), model, mesh, prompt_length=10) for pairs in (1, 4)
    )
    assert few.works["reward"].forward == many.works["reward"].forward
    assert few.works["update"].forward.total < many.works["update"].forward.total


def test_a_micro_batch_need_hold_a_whole_group_only_where_it_is_scored(reinforcement, model):
    mesh, named = make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4]), rl.get_config("nano,dpo")
    changes = {name: named[name] for name in ("source", "reward", "coefficient")} | {"dpo": {"pairs": 1}}
    room = {"microbatch_tokens": 2 * 8 + 16}  # of a pair and its prompt
    assert "update" in make_stage(reinforcement(**changes, **room), model, mesh, prompt_length=10).works
    with pytest.raises(InputError, match=r"config\.microbatch_tokens: 32 cannot hold a group"):
        make_stage(reinforcement(**changes | {"reward": "outcome_model"}, **room), model, mesh, prompt_length=10)


def test_a_whole_critic_beside_adapters_is_read_and_written_whole(reinforcement, model):
    mesh = make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4])
    ppo = {"coefficient": "ppo", "reward": "outcome_model", "lora_rank": 2}
    stage = make_stage(reinforcement(**ppo), model, mesh, prompt_length=10)
    policy, critic = (stage.works[f"{name}: apply"].changes for name in ("update", "critic update"))
    assert device_bytes(policy) < device_bytes(critic) / 2


def test_adapters_learn_beside_parameters_that_stay(reinforcement, model):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    narrow = dataclasses.replace(model, dtype="bfloat16")
    whole, adapted = (make_stage(reinforcement(lora_rank=rank), narrow, mesh, prompt_length=1) for rank in (0, 2))
    assert device_bytes(adapted.frozen) == device_bytes(whole.state.params) / 2  # of bfloat16
    assert device_bytes(adapted.state.opt_state) < device_bytes(whole.state.opt_state) / 2
    assert adapted.works["sample"].held["merged parameters"] == device_bytes(adapted.frozen)
    assert (whole.works["update"].passes, adapted.works["update"].passes) == (3, 2)


def test_what_does_not_learn_is_counted_in_the_digits_that_it_computes_with(reinforcement, model):
    mesh, narrow = make_mesh({"data": 2, "fsdp": 2, "tensor": 2}), dataclasses.replace(model, dtype="bfloat16")

    def stage(**changes):
        return make_stage(reinforcement(reward="outcome_model", **changes), narrow, mesh, prompt_length=1)

    once, again, adapted, free = stage(), stage(iterations=2), stage(iterations=2, lora_rank=2), stage(beta=0.0)
    learned = device_bytes(once.state.params)
    norms = 4 * (2 * model.num_layers + 1) * model.width  # on every device, in float32
    assert device_bytes(once.frozen) == (learned - norms) / 2 + norms
    scored = device_bytes(again.beside["reward model"])  # it learns between the iterations
    assert device_bytes(once.beside["reward model"]) == (scored - norms) / 2 + norms
    # The policy that becomes the reference takes the parent's place, but where adapters stand on that.
    assert "renewed reference" not in again.beside
    assert device_bytes(adapted.beside["renewed reference"]) == device_bytes(adapted.frozen)
    assert free.frozen is None
    assert "reference" not in free.works
    assert "ref_logprobs" not in free.works["update"].batch


def test_a_link_beyond_the_host_is_slower_and_bounds_the_step():
    def exchange(group) -> Plan:
        one = Collective("all-gather", ("fsdp",), group, 1000, "bf16", 1, "")
        program = ProgramPlan("update", 1, {"batch": 5}, 1.0, 1.0, 1.0, 1.0, (one,), 0.0)
        return Plan({"fsdp": 16}, 1, 1, {"parameters": 10}, (program,), None)

    device = Device("made up", memory=15, flops=1, bandwidth=1, interconnect=1000, island=8, network=10)
    inside, across = exchange((0, 1)).estimate(device), exchange((0, 8)).estimate(device)
    assert (inside.interconnect, across.interconnect) == (0.5, 50)
    assert exchange((0, 1, 8, 9)).estimate(device).interconnect == pytest.approx(750 / 20)  # by two ports a host
    assert (across.fastest, across.slowest) == (50, 52)
    assert exchange((0, 1)).fits(device)
    assert not exchange((0, 1)).fits(dataclasses.replace(device, memory=14))


@pytest.mark.parametrize(
    ("shape", "changes", "device", "named"),
    [
        ({"data": 2}, {}, "h1000", r"--device: 'h1000' is none of v4, "),
        ({"tensor": 3}, {"batch_size": 3}, None, r"config\.mesh: .* which 3 devices \(tensor\) do not divide"),
        ({"data": 3}, {}, None, r"config\.batch_size: 16 is no multiple of 3"),
        ({"sequence": 3}, {}, None, r"config\.length: 16 is no multiple of the 3 devices along sequence"),
        ({"model": 2}, {}, None, r"unknown axis 'model'"),
        ({"data": 16}, {}, None, r"--mesh: it has 16 devices, and this process has 8"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(config, model, shape, changes, device, named):
    with pytest.raises(InputError, match=named) as refusal:
        plan(config(**changes), shape, device, model=model, prompt_length=1)
    assert "\n" not in str(refusal.value)


def test_the_command_prints_writes_and_tells_by_its_status(tmp_path):
    line = [sys.executable, "-m", "experiments.plan", "--mesh=fsdp=2,tensor=2", "--device=v5e"]
    line += ["--config=configs/pretrain.py:nano", "--config.length=65536", f"--json={tmp_path / 'plan.json'}"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("does not fit: TPU v5e, ")
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["estimates"].keys() == DEVICES.keys()
    assert written["devices"] == 4
    assert not written["estimates"]["v5e"]["fits"]
    done = subprocess.run([*line, "--config.lenght=1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
