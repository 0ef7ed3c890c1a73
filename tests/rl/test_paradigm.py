"""Sources, rewards and coefficients: what goes together, what is refused and why."""

import jax
import numpy as np
import pytest

from configs import rl
from dsmath.rl import objectives, paradigm
from dsmath.runs.errors import InputError


def _config(method: str = "grpo_os", **changes):
    config = rl.get_config(f"nano,{method}")
    if "model" in config.reward:
        config.reward_model = "runs/reward"
    for field, value in changes.items():
        config.update({field: value} if not isinstance(value, dict) else {field: config[field].to_dict() | value})
    return config


@pytest.mark.parametrize("method", rl.METHODS)
@pytest.mark.parametrize("size", ["nano", "1b3", "7b"])
def test_every_named_method_makes_sense(size, method):
    config = rl.get_config(f"{size},{method}")
    if "model" in config.reward:
        with pytest.raises(InputError, match=r"config\.reward_model: is empty.*experiments\.reward"):
            paradigm.check_reward_model(config)
        config.reward_model = "runs/reward"
    paradigm.check(config)
    paradigm.check_reward_model(config)


def test_without_a_method_the_laptop_runs_grpo_with_the_rule():
    config = rl.get_config("nano")
    paradigm.check(config)
    assert (config.source, config.reward, config.coefficient) == ("policy", "rule", "grpo")
    with pytest.raises(ValueError, match="method 'gpro' is none of sft, rft"):
        rl.get_config("nano,gpro")


@pytest.mark.parametrize(
    ("method", "changes", "why"),
    [
        ("grpo_os", {"source": "web"}, r"config\.source: 'web' is none of sft_data"),
        ("grpo_os", {"source": "sft_model"}, r"config\.source: sft_model makes no sense.*the policy that learns"),
        (
            "rft",
            {"source": "sft_data", "group_size": 1},
            r"config\.source: sft_data.*on data it is sft; choose sft_model",
        ),
        ("sft", {"source": "policy"}, r"config\.source: policy.*only the data's are"),
        ("sft", {"reward": "rule"}, r"config\.reward: rule makes no sense with config\.coefficient=sft"),
        ("online_rft", {"reward": "outcome_model"}, r"config\.reward: outcome_model.*a score does not say"),
        ("dpo", {"reward": "process_model"}, r"config\.reward: process_model.*one number an output"),
        ("ppo", {"reward": "none"}, r"config\.reward: none.*needs a reward"),
        ("grpo_os", {"reward": "rule"}, r"config\.reward_model: config\.reward=rule uses none"),
        ("grpo_os", {"group_size": 1}, r"config\.group_size: grpo compares.*1 must be at least 2"),
        ("sft", {"group_size": 4}, r"config\.group_size: .*one solution in the data"),
        ("grpo_os", {"beta": -0.1}, r"config\.beta: -0.1 must not be negative"),
        ("grpo_os", {"clip_eps": 1.5}, r"config\.clip_eps: 1.5 is not between"),
        ("grpo_os", {"clip_eps_high": 0.1}, r"config\.clip_eps_high: 0.1 is below config\.clip_eps=0.2"),
        ("grpo_os", {"kl": "k4"}, r"config\.kl: 'k4' is none of k1, k2, k3"),
        ("grpo_os", {"aggregation": "mean"}, r"config\.aggregation: 'mean' is none of output, token, constant"),
        ("ppo", {"scale_advantages": "batch"}, r"config\.scale_advantages: .*ppo has no such thing, only grpo"),
        ("sft", {"clip_eps_high": 0.28}, r"config\.clip_eps_high: .*only ppo and grpo; set it to 0.0"),
        ("online_rft", {"aggregation": "token"}, r"config\.aggregation: "),
        ("grpo_os", {"distinct": True}, r"config\.distinct: .*only rft"),
        ("grpo_os", {"decoding": {"max_new_tokens": 0}}, r"config\.decoding\.max_new_tokens"),
        ("dpo", {"decoding": {"temperature": 0.0}}, r"config\.decoding\.temperature: at 0 all samples"),
        ("grpo_iterative", {"replay": {"num_steps": 0}}, r"config\.replay\.num_steps: 0 must be at least 1"),
        ("grpo_os", {"iterations": 3}, r"config\.num_steps: 50 is no multiple of config\.iterations=3"),
        ("online_rft", {"iterations": 2}, r"config\.iterations: rft has no reference"),
        ("rft", {"lag": 1}, r"config\.lag: source sft_model does not change"),
        ("grpo_iterative", {"lag": 1}, r"config\.lag: "),
        ("ppo", {"zero_variance": "skip"}, r"config\.zero_variance: .*ppo has no such thing"),
        ("dpo", {"updates_per_rollout": 2}, r"config\.updates_per_rollout: .*dpo has no such thing"),
        ("dpo", {"dpo": {"pairs": 9}}, r"config\.dpo\.pairs: 9 is not between 1 and half of config\.group_size=16"),
        ("ppo", {"ppo": {"decay": 1.5}}, r"config\.ppo\.decay: 1.5"),
        ("ppo", {"ppo": {"value_clip": 0.0}}, r"config\.ppo\.value_clip: 0\.0 must be positive"),
        ("ppo", {"ppo": {"critic_learning_rate": 0.0}}, r"config\.ppo\.critic_learning_rate: 0\.0 must be positive"),
        ("grpo_iterative", {"replay": {"share": 1.0}}, r"config\.replay\.share: 1.0"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(method, changes, why):
    config = _config(method, **changes)
    with pytest.raises(InputError, match=why):
        paradigm.check(config)
        paradigm.check_reward_model(config)


def test_micro_batches_hold_a_group_of_what_is_scored_or_learned_from_and_its_prompt():
    sizes = {"group_size": 8, "decoding": {"max_new_tokens": 128}}
    for method, least in (
        ("grpo_os", 8 * 128 + 80),  # prompts of 70 tokens are padded to 80
        ("grpo_iterative", 8 * 128 + 96),  # and to 96 in the reward model's training between two iterations
        ("online_rft", 8 * 128 + 80),
        ("dpo", 2 * 128 + 80),  # one pair
    ):
        changes = sizes | ({"reward": "rule"} if method == "dpo" else {})
        paradigm.check_prompts(_config(method, **changes, microbatch_tokens=least), 70)
        paradigm.check_prompts(_config(method, **changes, microbatch_tokens=0), 70)
        with pytest.raises(InputError, match=rf"config\.microbatch_tokens: {least - 1} cannot.*at least {least}"):
            paradigm.check_prompts(_config(method, **changes, microbatch_tokens=least - 1), 70)


Q, G, L = 2, 4, 5


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, L + 1, (Q, G))
    mask = (np.arange(L) < lengths[..., None]).astype(np.float32)

    def normal(*shape):
        return rng.normal(-1, 0.3, shape).astype(np.float32)

    names = ("old_logprobs", "ref_logprobs", "rollout_logprobs")
    batch = {name: normal(Q, G, L) for name in names} | {
        "mask": mask,
        "advantages": rng.normal(0.5, 1, (Q, G, 1)).astype(np.float32),
    }
    return normal(Q, G, L), batch


def test_the_options_of_grpo_reach_the_objective(arrays):
    logprobs, batch = arrays
    plain = paradigm.make_objective(_config())(logprobs, batch)[0]
    expected, _ = objectives.grpo(
        logprobs, *(batch[n] for n in ("old_logprobs", "ref_logprobs", "advantages", "mask")), clip_eps=0.2, beta=0.04
    )
    np.testing.assert_allclose(plain, expected, rtol=1e-6)
    for change in (
        {"kl": "k1"},
        {"beta": 0.5},
        {"clip_eps_high": 0.9},
        {"sequence_ratio": True},
        {"aggregation": "token"},
        {"aggregation": "constant"},
        {"max_correction": 1.0},
    ):
        assert abs(float(paradigm.make_objective(_config(**change))(logprobs, batch)[0] - plain)) > 1e-4, change


@pytest.mark.parametrize("method", ["grpo_os", "ppo"])
def test_a_divergence_of_no_weight_needs_no_reference(arrays, method):
    logprobs, batch = arrays
    config = _config(method, beta=0.0)
    assert not paradigm.uses_reference(config)
    assert not paradigm.uses_parent(config)
    assert paradigm.uses_reference(_config(method))
    loss, sums = paradigm.make_objective(config)(logprobs, batch)
    alone = {name: array for name, array in batch.items() if name != "ref_logprobs"}
    same, rest = paradigm.make_objective(config)(logprobs, alone)
    assert float(same) == float(loss)
    assert "kl" not in rest
    assert rest.keys() == sums.keys() - {"kl"}


def test_an_iteration_without_a_reference_renews_the_reward_model_alone():
    paradigm.check(_config("grpo_iterative", beta=0.0))
    with pytest.raises(InputError, match=r"config\.iterations: grpo has no reference to reset at config\.beta=0\.0"):
        paradigm.check(_config("grpo_iterative", beta=0.0, reward="rule", reward_model=""))


def test_dpo_pairs_the_halves_of_a_group(arrays):
    logprobs, batch = arrays
    for averaged in (True, False):
        config = _config("dpo", dpo={"pairs": 2, "length_averaged": averaged})
        loss, sums = paradigm.make_objective(config)(logprobs, batch)
        total = 0.0
        for q in range(Q):
            for pair in range(2):
                good, bad = (
                    [x[q, place] for x in (logprobs, batch["ref_logprobs"], batch["mask"])]
                    for place in (pair, pair + 2)
                )
                ratio = [((x - ref) * m).sum() / (m.sum() if averaged else 1.0) for x, ref, m in (good, bad)]
                total += np.log1p(np.exp(-0.1 * (ratio[0] - ratio[1])))
        np.testing.assert_allclose(loss, total, rtol=1e-5)
        assert float(sums["denominator"]) == 4


def test_old_logprobs_are_used_where_the_sampler_is_not_the_learner():
    uses = paradigm.uses_old_logprobs
    assert not uses(_config())
    assert uses(_config(updates_per_rollout=2))
    assert uses(_config(lag=1))
    assert uses(_config(max_correction=2.0))
    assert uses(_config("ppo"))
    assert not uses(_config("online_rft"))


def test_gradients_of_an_objective_stop_at_the_mask(arrays):
    logprobs, batch = arrays
    for method in ("grpo_os", "ppo", "dpo"):
        objective = paradigm.make_objective(_config(method))
        gradient = jax.grad(lambda x, objective=objective: objective(x, batch)[0])(logprobs)
        assert (np.asarray(gradient)[batch["mask"] == 0] == 0).all()
        assert np.abs(np.asarray(gradient)[batch["mask"] > 0]).max() > 0
