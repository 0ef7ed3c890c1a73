"""What does not learn is kept in no more digits than it computes with, and computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import rl
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.heads import ValueModel, headless
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.reward import models
from dsmath.rl import loop
from dsmath.rl.judge import Judge
from dsmath.rl.policy import Policy
from dsmath.rollout.batches import make_batch
from dsmath.rollout.samples import Samples
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.state import create_state

Q, G, L = 4, 2, 8


@pytest.fixture(scope="module")
def mesh():
    return make_mesh({"fsdp": 2, "tensor": 2}, jax.devices()[:4])


@pytest.fixture(scope="module", params=["bfloat16", "float32"])
def parents(request, tmp_path_factory, checkpoint, make_model_config, mesh):
    """Workdirs of a policy and of a reward model that compute in a dtype, and their parameters in float32."""
    config = make_model_config(vocab_size=448, dtype=request.param, attention_bias=True, tied=False)
    folder, params = tmp_path_factory.mktemp(request.param), {}
    for seed, (name, model) in enumerate(
        {"policy": Transformer(config), "judge": ValueModel(headless(config))}.items()
    ):
        state = create_state(model, optax.identity(), mesh, seed=seed)
        key = jax.random.key(seed)  # no norm is 1 and no bias 0
        state = state.replace(
            params=jax.tree.map(lambda x, key=key: x + 0.3 * jax.random.normal(key, x.shape), state.params)
        )
        Tokenizer.load(checkpoint).save(folder / name)
        with Checkpointer(folder / name, model.config, save_every=1, keep_last=1) as checkpointer:
            checkpointer.save(state, {}, loss=1.0)
        params[name] = state.params
    models.write_kind(folder / "judge", models.OUTCOME, models.SIGMOID)
    return request.param, folder, params


def _config(folder, **changes):
    config = rl.get_config("nano,grpo_os")
    config.init_from, config.reward_model = str(folder / "policy"), str(folder / "judge")
    config.num_groups, config.group_size, config.decoding.max_new_tokens = Q, G, L
    config.update(changes)
    return config


def _parts(mesh):
    rng = np.random.default_rng(0)
    shape = (Q, G, L)
    samples = Samples(
        tokens=rng.integers(4, 400, shape).astype(np.int32),
        logprobs=np.zeros(shape, np.float32),
        mask=np.ones(shape, np.float32),
        lengths=np.full((Q, G), L, np.int32),
        truncated=np.zeros((Q, G), bool),
    )
    prompts = [list(range(4, 8 + place)) for place in range(Q)]
    return samples, prompts, loop.cut(make_batch(prompts, samples, 0), 0, mesh)


def test_the_reference_scores_as_the_policy_that_it_was_bit_for_bit(parents, mesh):
    dtype, folder, params = parents
    policy = Policy(_config(folder), mesh, Tokenizer.load(folder / "policy"), longest_prompt=12)
    _, _, parts = _parts(mesh)
    expected = policy.logprobs(params["policy"], parts)
    assert expected.std() > 0.1
    copied = policy.freeze(params["policy"])
    for frozen in (policy.parent, copied):
        assert frozen["params"]["output"].dtype == frozen["params"]["embedding"].dtype == jnp.dtype(dtype)
        assert frozen["params"]["blocks"]["attention_norm"]["scale"].dtype == jnp.float32
        np.testing.assert_array_equal(policy.logprobs(frozen, parts), expected)
        jax.tree.map(
            lambda x, wanted: np.testing.assert_equal(
                (x.shape, x.dtype, x.sharding.is_equivalent_to(wanted.sharding, x.ndim)),
                (wanted.shape, wanted.dtype, True),
            ),
            frozen,
            policy.abstract_frozen,
        )
    # The policy itself starts with all its digits, and the reference outlives what an update gives away.
    state = policy.start()
    jax.tree.map(np.testing.assert_array_equal, state.params, params["policy"])
    copied = policy.freeze(state.params)
    jax.tree.map(lambda x: x.delete(), state.params)
    np.testing.assert_array_equal(policy.logprobs(copied, parts), expected)
    if dtype == "bfloat16":  # were the norms cast too, it would not do
        rounded = jax.tree.map(lambda x: x.astype(dtype), params["policy"])
        assert (policy.logprobs(rounded, parts) != expected).any()


def test_a_reward_model_that_does_not_learn_gives_the_same_rewards_in_fewer_digits(parents, mesh):
    dtype, folder, params = parents
    tokenizer = Tokenizer.load(folder / "policy")
    samples, prompts, parts = _parts(mesh)
    once, again = (Judge(_config(folder, iterations=n, num_steps=4), mesh, tokenizer) for n in (1, 2))
    head = ("params", "head", "weight")
    assert _at(once.model.params, head).dtype == jnp.dtype(dtype)
    jax.tree.map(np.testing.assert_array_equal, again.model.params, params["judge"])  # it goes on learning
    rewards = [judge.reward(samples, prompts, ["1"] * Q).outputs for judge in (once, again)]
    assert rewards[0].std() > 0.01
    np.testing.assert_array_equal(*rewards)
    for at in ("token", "before"):
        values = loop.make_values(once.model.model, mesh, at)
        found = [loop.over(parts, values, judge.model.params) for judge in (once, again)]
        np.testing.assert_array_equal(*found)


def _at(tree, path):
    for name in path:
        tree = tree[name]
    return tree
