"""The reward model that goes on learning between iterations: what it needs is looked at when the run begins."""

import json

import jax
import numpy as np
import optax
import pyarrow
import pyarrow.parquet
import pytest

from configs import rl
from dsmath.data import chat
from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh
from dsmath.reward import models
from dsmath.reward.groups import Group, prefix_length
from dsmath.rl import paradigm, replay
from dsmath.rl.exploration import Stage
from dsmath.rl.rewards import Rewards
from dsmath.rollout.batches import row_shape
from dsmath.rollout.samples import empty_samples
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import CONFIG
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.state import start_from
from experiments.rl import set_up

G, L = 4, 128
QUESTIONS = ("How many?", "How many are there?")


def _save_reward_model(workdir, checkpoint, kind: str) -> None:
    """A reward model whose own training asked a long question."""
    mesh, model = make_mesh({"data": 1}, jax.devices()[:1]), models.base_model(checkpoint)
    Tokenizer.load(checkpoint).save(workdir)
    models.write_kind(workdir, kind, models.SIGMOID)
    (workdir / CONFIG).write_text(json.dumps({"labels": "hard", "num_completions": 2}))
    with Checkpointer(workdir, model.config, save_every=1, keep_last=1) as checkpointer:
        params = models.base_params(checkpoint, mesh)
        checkpointer.save(start_from(params, model, optax.identity(), mesh, seed=0), {}, loss=1.0)
    question = {"question_index": 0, "question": 40 * "How many? ", "language": "en"}
    rows = [question | {"token_ids": [5, token], "correct": right} for token, right in ((6, True), (7, False))]
    (workdir / "labelled").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), workdir / "labelled" / "0.parquet")


def _config(checkpoint, reward_model, method: str = "grpo_iterative"):
    config = rl.get_config(f"nano,{method}")
    config.init_from, config.reward_model = str(checkpoint), str(reward_model)
    config.num_cpu_devices, config.iterations = 8, 2
    config.num_groups, config.group_size, config.decoding.max_new_tokens = 2, G, L
    config.replay.update({"share": 0.5, "num_steps": 2, "num_groups": 2})
    return config


def _save_stage(workdir) -> None:
    """A step that asked both questions, whose samples are right in half of the cases."""
    samples, shape = empty_samples(2, G, L, 0), (2, G)
    samples.tokens[..., :3], samples.lengths[:], samples.mask[..., :3] = 8, 3, 1
    rewards = Rewards(np.zeros(shape, np.float32), np.broadcast_to(np.arange(G) % 2 == 0, shape))
    replay.keep(workdir, 1, Stage(np.arange(2), np.arange(2), samples, rewards, None, {}, 2, 0))


def test_a_micro_batch_that_holds_the_runs_questions_holds_what_is_replayed(checkpoint, tmp_path, caplog):
    _save_reward_model(tmp_path, checkpoint, models.OUTCOME)
    _save_stage(tmp_path)
    config, mesh = _config(checkpoint, tmp_path), make_mesh({"data": 1}, jax.devices()[:1])
    tokenizer = Tokenizer.load(checkpoint)
    prompts = [chat.encode_prompt(Solution(question, "", ""), tokenizer) for question in QUESTIONS]
    longest = max(map(len, prompts))
    config.microbatch_tokens = G * L + prefix_length(longest)  # the least that the start lets pass
    paradigm.check_prompts(config, longest)
    (long,) = replay.read_training(tmp_path, tokenizer, soft=False)
    assert prefix_length(len(long.prompt)) > prefix_length(longest)
    reward_model = models.read(tmp_path, mesh, tokenizer, learns=True)
    _, figures = replay.go_on(reward_model, tmp_path, range(1, 2), prompts, ["1", "2"], None, config, mesh, tokenizer)
    assert figures["reward_model/loss"] > 0
    assert "1 older questions are too long for config.microbatch_tokens" in caplog.text


def test_older_questions_are_left_out_where_there_is_no_room_for_them_alone():
    rows, width = row_shape(G, L)
    older = [Group([1] * length, ()) for length in (10, 16, 17, 300)]
    assert replay.leave_out_long(older, G, L, 0) == older
    assert replay.leave_out_long(older, G, L, rows * width + 16) == older[:2]
    assert replay.leave_out_long(older, G, L, rows * width + 32) == older[:3]
    assert replay.leave_out_long(older, G, L, 10**6) == older


def test_the_labels_of_steps_have_their_memory_looked_at_when_the_run_begins(checkpoint, tmp_path):
    _save_reward_model(tmp_path, checkpoint, models.PROCESS)
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({"question": question, "answer": "#### 1"}) + "\n" for question in QUESTIONS)
    )
    config = _config(checkpoint, tmp_path, "grpo_ps")
    config.problems, config.num_problems, config.decoding.max_new_tokens = str(tmp_path), 0, 512
    # Bytes of a device: a sample's keys and values go in, and not those of a solution with its completion.
    config.rollout.memory_gib = 300e3 / 2**30
    with pytest.raises(InputError, match=r"memory_gib: .* one question with one sample takes"):
        set_up(config, None)
    config.iterations = 1
    set_up(config, None)
    config.iterations, config.rollout.memory_gib = 2, 1.0
    set_up(config, None)
    config.microbatch_tokens = 100
    with pytest.raises(InputError, match=r"config\.microbatch_tokens: 100 cannot hold a group .* at least 2\d\d\d"):
        set_up(config, None)
