"""TRL's own trainers and we compute the same from the same numbers; it runs where `make peers` has been.

GRPO and DPO are those of the newest TRL, PPO that of 0.11, the last that has it in functions. What the peer computes is
in trl_peer.py and trl_ppo_peer.py. Where TRL differs from the paper, a test says how.
"""

import json
import os
import pathlib
import subprocess

import jax
import numpy as np
import optax
import pytest

from dsmath.huggingface import config as huggingface
from dsmath.huggingface import layout
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rl import advantages, objectives
from dsmath.rollout.batches import completion_logprobs, make_batch
from dsmath.rollout.samples import Samples
from dsmath.train.state import create_state

PYTHON = pathlib.Path(__file__).resolve().parents[2] / ".venv-peers" / "bin" / "python"
TOLERANCE = 1e-5
QUESTIONS, GROUP, LENGTH, LIMIT = 2, 4, 7, 9
LENGTHS = np.array([7, 1, 3, 4, 6, 2, 5, 7])
EPS, BETA, BOUND, END = 0.2, 0.04, 1.3, 1
PPO = {"gamma": 0.97, "lam": 0.9, "cliprange": 0.2, "cliprange_value": 0.3, "beta": 0.1}

# TRL's options, then ours; the random log-probabilities lie outside the clip range at about half of the tokens.
BASE = {"loss_type": "grpo", "beta": BETA, "epsilon": EPS, "use_bias_correction_kl": False}
OURS = {"clip_eps": EPS, "beta": BETA}
GRPO = {
    "paper": ({}, {}),
    "first_update": ({"old": False}, {}),
    "higher_clip": ({"epsilon_high": 0.5}, {"clip_eps_high": 0.5}),
    "bnpo": ({"loss_type": "bnpo"}, {"aggregation": "token"}),
    "dapo": ({"loss_type": "dapo", "epsilon_high": 0.28}, {"aggregation": "token", "clip_eps_high": 0.28}),
    "dr_grpo": (
        {"loss_type": "dr_grpo", "max_completion_length": LIMIT},
        {"aggregation": "constant", "max_length": LIMIT},
    ),
    "gspo": ({"importance_sampling_level": "sequence", "epsilon": 0.1}, {"sequence_ratio": True, "clip_eps": 0.1}),
    "two_sided": ({"delta": 1.4}, {"ratio_bound": 1.4}),
    "entropy": ({"loss_type": "bnpo", "entropy_coef": 0.02}, {"aggregation": "token", "entropy_bonus": 0.02}),
    "unbiased_kl": ({"use_bias_correction_kl": True}, {"unbiased_kl": True}),
    "corrected": ({"corrects": True}, {}),
    "corrected_gspo": (
        {"corrects": True, "importance_sampling_level": "sequence", "loss_type": "dapo"},
        {"sequence_ratio": True, "aggregation": "token"},
    ),
}
CORRECTION = {
    "corrects": True,
    "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_max": BOUND,
}
STEPS = {
    "step_paper": ({}, {}),
    "step_batch": (CORRECTION | {"loss_type": "dapo", "scale_rewards": "batch"}, {"aggregation": "token"}),
    "step_dr_grpo": (
        {"loss_type": "dr_grpo", "scale_rewards": "none", "max_completion_length": LIMIT},
        {"aggregation": "constant", "max_length": LIMIT},
    ),
    "step_truncated": ({"loss_type": "bnpo", "mask_truncated_completions": True}, {"aggregation": "token"}),
    "step_truncated_output": ({"mask_truncated_completions": True}, {}),
}
DPO = {
    "dpo": {"loss_type": "sigmoid", "beta": 0.1},
    "dpo_averaged": {"loss_type": "sigmoid_norm", "beta": 2.0},
}


def _make_arrays() -> dict[str, np.ndarray]:
    """Random numbers of eight outputs, two groups; a tool spoke in two of them."""
    rng = np.random.default_rng(0)
    shape = (QUESTIONS * GROUP, LENGTH)
    logprobs = -rng.exponential(1.0, shape)
    completion_mask = (np.arange(LENGTH) < LENGTHS[:, None]).astype(np.int64)
    tool_mask = np.ones(shape, np.int64)
    tool_mask[0, 2:4] = tool_mask[4, 1] = 0
    arrays = {
        "logprobs": logprobs,
        "old_logprobs": logprobs + rng.normal(0, 0.4, shape),
        "ref_logprobs": logprobs + rng.normal(0, 0.5, shape),
        "entropies": rng.exponential(1.0, shape),
        "advantages": rng.normal(size=shape[0]),
        "correction": rng.uniform(0.3, BOUND, shape),
        "rewards": rng.normal(size=(QUESTIONS, GROUP)),
        "scores": rng.normal(size=shape[0]),
        "values": rng.normal(size=shape),
        "old_values": rng.normal(size=shape),
        "mask": completion_mask * tool_mask,
        **PPO,
    }
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    return arrays | {"completion_mask": completion_mask, "tool_mask": tool_mask}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return _make_arrays()


@pytest.fixture(scope="module")
def models(make_model_config):
    """A tiny model, its parameters, and other ones of the reference."""
    model = Transformer(make_model_config(tied=False))
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    return model, *(jax.device_get(create_state(model, optax.identity(), mesh, seed).params) for seed in (0, 1))


@pytest.fixture(scope="module")
def samples(arrays) -> tuple[list[list[int]], Samples]:
    """Prompts of different lengths with groups of samples; all but two end with the end-of-sequence token."""
    rng = np.random.default_rng(1)
    prompts = [rng.integers(2, 64, length).tolist() for length in (5, 3)]
    lengths = LENGTHS.reshape(QUESTIONS, GROUP).astype(np.int32)
    tokens = rng.integers(2, 64, (QUESTIONS, GROUP, LENGTH)).astype(np.int32)
    truncated = lengths == LENGTH
    is_last = (np.arange(LENGTH) == lengths[..., None] - 1) & ~truncated[..., None]
    tokens = np.where(np.arange(LENGTH) < lengths[..., None], np.where(is_last, END, tokens), 0)
    mask = arrays["mask"].reshape(tokens.shape)
    logprobs = (-rng.exponential(1.0, tokens.shape) * mask).astype(np.float32)
    return prompts, Samples(tokens, logprobs, mask, lengths, truncated)


@pytest.fixture(scope="module")
def found(tmp_path_factory, arrays, models, samples) -> dict[str, np.ndarray]:
    """What TRL computes."""
    if not PYTHON.exists():
        pytest.skip("the peers' environment is absent: make peers")
    folder = tmp_path_factory.mktemp("trl")
    model, *params = models
    weights = {
        f"{kind}/{name}": array
        for kind, tree in zip(("policy", "reference"), params, strict=True)
        for name, array in layout.state_dict(model.config, tree).items()
    }
    np.savez(folder / "arrays.npz", **arrays, **weights)
    prompts, drawn = samples
    cut = lambda x: [row[:length].tolist() for row, length in zip(x.reshape(-1, LENGTH), LENGTHS, strict=True)]  # noqa: E731
    job = {
        "shape": huggingface.to_huggingface(model.config, dtype="float32", length=64),
        "grpo": {name: BASE | theirs for name, (theirs, _) in GRPO.items()},
        "steps": {name: BASE | theirs for name, (theirs, _) in STEPS.items()},
        "dpo": DPO,
        "prompts": prompts,
        "completions": cut(drawn.tokens),
        "chosen_tokens": cut(drawn.mask.astype(int)),
        "sampler_logprobs": cut(drawn.logprobs),
    }
    (folder / "job.json").write_text(json.dumps(job))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "2"}
    answers = {}
    for script, file in (("trl_peer.py", "found.npz"), ("trl_ppo_peer.py", "found_ppo.npz")):
        done = subprocess.run(
            [PYTHON, pathlib.Path(__file__).with_name(script), folder],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if "No module named 'trl'" in done.stderr:
            pytest.skip("the peers' environment is older than these tests and lacks TRL: rm -r .venv-peers; make peers")
        assert done.returncode == 0, done.stderr
        with np.load(folder / file) as opened:
            answers |= {name: opened[name] for name in opened.files}
    return answers


# -------------------------------------------------------------------------------------------- GRPO of random tensors


def _grpo(arrays, name: str, **changes):
    """Our mean loss, its gradients by log-probabilities and entropies, and the sums, of a case of `GRPO`."""
    theirs, settings = GRPO[name]
    numbers = arrays | changes

    def mean_loss(logprobs, entropies):
        loss, sums = objectives.grpo(
            logprobs,
            numbers["old_logprobs"] if theirs.get("old", True) else None,
            numbers["ref_logprobs"],
            numbers["advantages"][:, None],
            numbers["mask"],
            correction=numbers["correction"] if theirs.get("corrects") else None,
            entropies=entropies if "entropy_coef" in theirs else None,
            **OURS | settings,
        )
        return loss / sums["denominator"], sums

    arguments = (numbers["logprobs"], numbers["entropies"])
    (loss, sums), gradients = jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True)(*arguments)
    return loss, gradients, sums


@pytest.mark.parametrize("name", GRPO)
def test_grpo_and_its_gradient_are_trls(found, arrays, name):
    loss, (gradient, entropy_gradient), _ = _grpo(arrays, name)
    np.testing.assert_allclose(loss, found[f"{name}/loss"], atol=TOLERANCE)
    np.testing.assert_allclose(gradient, found[f"{name}/gradient"], atol=TOLERANCE)
    assert np.abs(found[f"{name}/gradient"]).max() > 0.01  # it compares something
    if "entropy_coef" in GRPO[name][0]:
        np.testing.assert_allclose(entropy_gradient, found[f"{name}/entropy_gradient"], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["bnpo", "dapo"])
def test_kl_and_clip_share_are_trls_where_tokens_count_alike(found, arrays, name):
    *_, sums = _grpo(arrays, name)
    np.testing.assert_allclose(sums["kl"] / sums["denominator"], found[f"{name}/kl"], atol=TOLERANCE)
    share = sums["clip_fraction"] / sums["denominator"]
    np.testing.assert_allclose(share, found[f"{name}/clip_ratio/region_mean"], atol=TOLERANCE)
    assert 0.1 < float(share) < 0.9


# --------------------------------------------------------------------------- GRPO of samples: the model's gradients too


@pytest.fixture(scope="module")
def passes(models, samples):
    """The samples' log-probabilities by reference and policy, and the policy's gradient of any loss of these."""
    model, params, reference = models
    batch = make_batch(*samples, pad_id=0)

    def run(params):
        return completion_logprobs(model, params, batch, logits_chunk=64)[0]

    forward = jax.jit(run)
    backward = jax.jit(lambda params, by_logprobs: jax.vjp(run, params)[1](by_logprobs)[0])
    return forward(reference), forward(params), lambda by_logprobs: jax.device_get(backward(params, by_logprobs))


@pytest.mark.parametrize("name", STEPS)
def test_a_step_on_samples_has_trls_advantages_loss_and_parameter_gradients(
    found, arrays, models, samples, passes, name
):
    theirs, settings = STEPS[name]
    ref_logprobs, logprobs, gradient_of = passes
    _, drawn = samples
    mask, there = drawn.mask, np.arange(LENGTH) < drawn.lengths[..., None]
    if "mask_truncated_completions" in theirs:  # TRL takes these out of attention as well
        mask, there = (x * ~drawn.truncated[..., None] for x in (mask, there))
    expected = found[f"{name}/ref_per_token_logps"].reshape(mask.shape)
    np.testing.assert_allclose(np.where(there, ref_logprobs, 0), np.where(there, expected, 0), atol=TOLERANCE)

    scaling, rewards = theirs.get("scale_rewards", "group"), arrays["rewards"]
    ours = np.asarray(advantages.outcome(rewards, scale=scaling != "none", batch_deviation=scaling == "batch"))
    if scaling != "none":  # TRL's deviation is the unbiased one, and what it adds is 1e-4
        deviation = rewards.std(axis=None if scaling == "batch" else 1, keepdims=True)
        count = rewards.size if scaling == "batch" else GROUP
        ours = ours * (deviation + advantages.EPSILON) / (deviation * (count / (count - 1)) ** 0.5 + 1e-4)
    np.testing.assert_allclose(ours.ravel(), found[f"{name}/advantages"], atol=TOLERANCE)

    correction = None
    if theirs.get("corrects"):
        correction = objectives.importance_correction(logprobs, drawn.logprobs, BOUND)
        weights = found[f"{name}/importance_sampling_ratio"].reshape(mask.shape)
        np.testing.assert_allclose(np.where(mask > 0, correction, 1), np.where(mask > 0, weights, 1), atol=TOLERANCE)

    def mean_loss(logprobs):
        loss, sums = objectives.grpo(
            logprobs, None, ref_logprobs, ours[..., None], mask, correction=correction, **OURS | settings
        )
        return loss / sums["denominator"]

    loss, by_logprobs = jax.value_and_grad(mean_loss)(logprobs)
    # TRL's "grpo" divides by all outputs; ours counts those that hold a token.
    counted = (mask.sum(axis=2) > 0).mean() if (BASE | theirs)["loss_type"] == "grpo" else 1.0
    np.testing.assert_allclose(loss * counted, found[f"{name}/loss"], atol=TOLERANCE)
    gradients = layout.state_dict(models[0].config, gradient_of(by_logprobs))
    assert max(np.abs(array).max() for array in gradients.values()) > 0.01
    for key, array in gradients.items():
        np.testing.assert_allclose(array * counted, found[f"{name}/gradient/{key}"], atol=TOLERANCE, err_msg=key)


# -------------------------------------------------------------------------------------- where TRL and the paper differ


def test_the_papers_advantage_is_larger_than_trls_by_the_bias_of_the_deviation(found, arrays):
    """Population against unbiased deviation: a factor of sqrt(G / (G - 1)), 15 % at G = 4 and 1 % at G = 64."""
    ratio = np.asarray(advantages.outcome(arrays["rewards"])).ravel() / found["step_paper/advantages"]
    np.testing.assert_allclose(ratio, (GROUP / (GROUP - 1)) ** 0.5, rtol=1e-3)


def test_trls_defaults_are_not_the_papers(found, arrays):
    """Those: no reference, all tokens counted alike, KL weighed by the ratio. The paper's: beta 0.04, and eq. 3."""
    assert float(found["default_beta"]) == 0.0
    assert str(found["default_loss_type"]) == "dapo"
    assert bool(found["default_unbiased_kl"])
    for other in ("bnpo", "unbiased_kl"):
        assert abs(float(_grpo(arrays, "paper")[0]) - float(found[f"{other}/loss"])) > 1e-4


def test_trls_entropy_bonus_counts_tokens_alike_and_ours_counts_as_the_loss_does(arrays):
    entropies, mask = arrays["entropies"], arrays["mask"]

    def bonus(aggregation: str) -> float:
        loss, sums = objectives.grpo(
            arrays["logprobs"],
            None,
            arrays["logprobs"],
            np.zeros_like(mask),
            mask,
            entropies=entropies,
            entropy_bonus=1.0,
            aggregation=aggregation,
            **OURS,
        )
        return -float(loss / sums["denominator"])

    by_output = ((entropies * mask).sum(axis=1) / mask.sum(axis=1)).mean()
    np.testing.assert_allclose(bonus("token"), (entropies * mask).sum() / mask.sum(), rtol=1e-5)
    np.testing.assert_allclose(bonus("output"), by_output, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- DPO, and PPO


@pytest.mark.parametrize(("name", "length_averaged"), [("dpo", False), ("dpo_averaged", True)])
def test_dpo_and_its_gradient_are_trls(found, arrays, name, length_averaged):
    """The standard form is TRL's `sigmoid`; the paper's (eq. 12, averaged over each output) is its `sigmoid_norm`."""
    half = len(LENGTHS) // 2
    beta = DPO[name]["beta"]

    def mean_loss(logprobs):
        stacked = (logprobs, arrays["ref_logprobs"], arrays["completion_mask"])
        loss, sums = objectives.dpo(
            tuple(x[:half] for x in stacked),
            tuple(x[half:] for x in stacked),
            beta=beta,
            length_averaged=length_averaged,
        )
        return loss / sums["denominator"], sums

    (loss, sums), gradient = jax.value_and_grad(mean_loss, has_aux=True)(arrays["logprobs"])
    np.testing.assert_allclose(loss, found[f"{name}/loss"], atol=TOLERANCE)
    np.testing.assert_allclose(gradient, found[f"{name}/gradient"], atol=TOLERANCE)
    if not length_averaged:  # TRL tells both of the summed log-ratios in either form
        np.testing.assert_allclose(sums["pair_accuracy"] / half, found[f"{name}/accuracy"], atol=TOLERANCE)
        np.testing.assert_allclose(sums["margin"] / half, found[f"{name}/margin"], atol=TOLERANCE)


def test_ppos_rewards_advantages_and_returns_are_trls(found, arrays):
    mask = arrays["completion_mask"].astype(np.float32)
    rewards = advantages.shape_rewards(
        arrays["scores"], arrays["old_logprobs"], arrays["ref_logprobs"], mask, beta=PPO["beta"]
    )
    np.testing.assert_allclose(rewards, found["rewards"], atol=TOLERANCE)
    estimated, returns = advantages.gae(rewards, arrays["old_values"], mask, discount=PPO["gamma"], decay=PPO["lam"])
    np.testing.assert_allclose(returns, found["returns"], atol=TOLERANCE)
    # TRL whitens by the unbiased deviation, and adds 1e-8 to the variance.
    count, chosen = mask.sum(), np.asarray(estimated)[mask > 0]
    ours = advantages.whiten(estimated, mask) * (chosen.std() + advantages.EPSILON)
    np.testing.assert_allclose(ours / (chosen.std() * (count / (count - 1)) ** 0.5), found["whitened"], atol=TOLERANCE)


def test_ppos_losses_and_their_gradients_are_trls(found, arrays):
    mask = arrays["completion_mask"].astype(np.float32)

    def policy_loss(logprobs):
        loss, sums = objectives.ppo(
            logprobs,
            arrays["old_logprobs"],
            found["whitened"],
            mask,
            clip_eps=PPO["cliprange"],
            aggregation="token",
        )
        return loss / sums["denominator"], sums["clip_fraction"] / sums["denominator"]

    def value_loss(values):
        loss, sums = objectives.value_loss(
            values, arrays["old_values"], found["returns"], mask, clip=PPO["cliprange_value"], aggregation="token"
        )
        return loss / sums["denominator"], sums["value_clip_fraction"] / sums["denominator"]

    (loss, share), gradient = jax.value_and_grad(policy_loss, has_aux=True)(arrays["logprobs"])
    np.testing.assert_allclose(loss, found["policy_loss"], atol=TOLERANCE)
    np.testing.assert_allclose(gradient, found["policy_gradient"], atol=TOLERANCE)
    np.testing.assert_allclose(share, found["clip_fraction"], atol=TOLERANCE)
    (loss, share), gradient = jax.value_and_grad(value_loss, has_aux=True)(arrays["values"])
    np.testing.assert_allclose(loss, found["value_loss"], atol=TOLERANCE)
    np.testing.assert_allclose(gradient, found["value_gradient"], atol=TOLERANCE)
    np.testing.assert_allclose(share, found["value_clip_fraction"], atol=TOLERANCE)


def test_k1_and_k2_are_trls_kl_and_mse(found, arrays):
    for ours, theirs in (("k1", "kl"), ("k2", "mse")):
        estimate = objectives.KL[ours](arrays["logprobs"], arrays["ref_logprobs"])
        np.testing.assert_allclose(estimate, found[theirs], atol=TOLERANCE)
