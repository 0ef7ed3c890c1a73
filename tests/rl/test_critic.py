"""PPO's critic: where it starts."""

import jax
import numpy as np
import optax
import pytest

from configs import rl
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh
from dsmath.reward import models
from dsmath.rl.critic import Critic
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.state import start_from


@pytest.mark.parametrize("loss", [models.SIGMOID, models.PAIRWISE])
def test_a_reward_model_gives_its_head_where_it_speaks_of_returns(checkpoint, tmp_path, loss):
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    tokenizer, model = Tokenizer.load(checkpoint), models.base_model(checkpoint)
    params = models.base_params(checkpoint, mesh)
    head = params["params"]["head"]["weight"]
    params["params"]["head"]["weight"] = jax.random.normal(jax.random.key(0), head.shape)
    tokenizer.save(tmp_path)
    models.write_kind(tmp_path, models.OUTCOME, loss)
    with Checkpointer(tmp_path, model.config, save_every=1, keep_last=1) as checkpointer:
        checkpointer.save(start_from(params, model, optax.identity(), mesh, seed=0), {}, loss=1.0)
    config = rl.get_config("nano,ppo")
    config.init_from, config.ppo.critic_from = str(checkpoint), str(tmp_path)
    found = Critic(config, mesh, tokenizer).start().params["params"]
    expected = params["params"]
    jax.tree.map(np.testing.assert_array_equal, found["blocks"], expected["blocks"])
    np.testing.assert_array_equal(found["embedding"], expected["embedding"])
    # Behind a sigmoid the head's numbers are logits.
    kept = expected["head"]["weight"] * (loss == models.PAIRWISE)
    np.testing.assert_array_equal(found["head"]["weight"], kept)
    config.ppo.critic_from = ""
    assert not Critic(config, mesh, tokenizer).start().params["params"]["head"]["weight"].any()
