"""Tool-integrated solutions from training to rollout: one sequence of tokens, one mask, in both."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pyarrow.parquet
import pytest

from configs import generate as generate_configs
from configs import rl as rl_configs
from dsmath.data import chat
from dsmath.data.solutions import Solution, chat_prompt
from dsmath.data.tokenizer import Tokenizer
from dsmath.data.turns import write_block, write_output
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.ends import find_call
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Request
from dsmath.runs.errors import InputError
from dsmath.sandbox.tool import PythonTool
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.state import create_state, make_train_step
from dsmath.train.supervised import next_token_loss
from experiments import generate, rl

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEW = 160  # tokens of a sample
RECORDS = [
    Solution("How many?", "42", f"```python\nprint(6*7)\n```\n\n{write_output('42')}So \\boxed{{42}}.", "tir"),
    Solution(
        "有多少个？",
        "43",
        f"用程序计算。\n{write_block('x = 6*7')}{write_output('')}好。\n"
        f"{write_block('print(x + 1)')}{write_output('43')}答案是\\boxed{{43}}。",
        "tir",
        "zh",
    ),
]


@pytest.fixture(scope="module")
def tokenizer():
    texts = [chat_prompt(record.question, record.language, "tir") + record.solution for record in RECORDS]
    return Tokenizer.train(texts * 20, vocab_size=400)


@pytest.fixture(scope="module")
def tool(pool):
    return PythonTool(pool, seconds=20.0, memory=256 << 20, ends=50, max_calls=2, max_output_tokens=50)


@pytest.fixture(scope="module")
def learned(make_model_config, tokenizer):
    """A model that knows the solutions by heart, having learned from the examples of SFT."""
    examples = chat.encode_examples(RECORDS, tokenizer, 1000)
    shape = (len(examples), max(len(example["tokens"]) for example in examples))
    tokens, mask, held = (np.zeros(shape, np.int32) for _ in range(3))
    for row, example in enumerate(examples):
        length = len(example["tokens"])
        tokens[row, :length], mask[row, :length], held[row, :length] = example["tokens"], example["loss_mask"], 1
    batch = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "positions": np.broadcast_to(np.arange(shape[1] - 1, dtype=np.int32), (shape[0], shape[1] - 1)),
        "segment_ids": held[:, :-1],
        "loss_mask": mask[:, 1:].astype(np.float32),
    }
    mesh, optimizer = make_mesh({"data": 1}, jax.devices()[:1]), optax.adam(1e-2)
    model = Transformer(make_model_config(vocab_size=tokenizer.vocab_size, tied=False))
    state = create_state(model, optimizer, mesh, seed=0)
    step = make_train_step(next_token_loss(model, 512), optimizer, mesh)
    for _ in range(100):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 0.05
    return model, mesh, state


@pytest.fixture(scope="module")
def workdir(learned, tokenizer, tmp_path_factory):
    """The model as a finished stage."""
    model, _, state = learned
    folder = tmp_path_factory.mktemp("learned")
    tokenizer.save(folder)
    with Checkpointer(folder, model.config, save_every=1, keep_last=1) as checkpointer:
        checkpointer.save(state, {}, loss=1.0)
    (folder / "result.json").write_text("{}")
    return folder


def test_a_rollout_makes_the_tokens_and_the_mask_of_training(learned, tokenizer, tool):
    model, mesh, state = learned
    limits = fit(
        model.config,
        mesh,
        slots=4,
        memory_gib=1.0,
        cache_dtype="float32",
        block_steps=8,
        prefill_tokens=512,
        group_size=1,
        longest_prompt=200,
        max_new_tokens=NEW,
    )
    engine = Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)
    requests = [
        Request(
            place,
            chat.encode_prompt(record, tokenizer),
            1,
            Decoding(0.0, 1.0, NEW),
            (tokenizer.eos_id,),
            tool=tool,
        )
        for place, record in enumerate(RECORDS)
    ]
    completions = {one.request_id: one for one in engine.generate(state.params, requests, jax.random.key(0))}
    examples = chat.encode_examples(RECORDS, tokenizer, 1000)
    for place, (request, example) in enumerate(zip(requests, examples, strict=True)):
        assert completions[place].finish_reason == "stop"
        assert [*request.prompt, *completions[place].tokens] == example["tokens"].tolist()
        assert [0] * len(request.prompt) + [*completions[place].loss_mask] == example["loss_mask"].tolist()
        assert 0 in completions[place].loss_mask


def test_a_call_ends_with_a_turn_of_the_training_example(tokenizer, tool):
    for record in RECORDS:
        tokens, mask = chat.encode_solution(record, tokenizer)
        starts = [0, *(place for place in range(1, len(mask)) if mask[place] > mask[place - 1])]
        for start in starts[:-1]:
            end = start + mask[start:].index(0)
            assert find_call(tokenizer, tool, tokens, start, start)[0] == end


def test_completions_of_a_file_hold_what_programs_printed(workdir, pool, tmp_path):
    config = generate_configs.get_config("nano")
    config.init_from, config.input, config.num_cpu_devices = str(workdir), str(tmp_path / "p.jsonl"), jax.device_count()
    config.num_samples, config.rollout.slots, config.tool.workers, config.tool.enabled = 1, 8, 1, True
    config.decoding.update({"temperature": 0.0, "max_new_tokens": NEW})
    lines = [{"question": record.question, "language": record.language, "kind": "tir"} for record in RECORDS]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    generate.run(config, tmp_path / "run")
    files = sorted((tmp_path / "run" / "completions").glob("*.parquet"))
    completions = pyarrow.parquet.read_table(files)["completion"].to_pylist()
    assert completions[1].strip() == RECORDS[1].solution
    assert write_output("42") in completions[0]


@pytest.mark.slow
def test_a_policy_with_the_tool_is_rewarded_for_its_answer_and_learns_from_its_own_tokens(workdir, pool, tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"question": "How many?", "answer": "#### 42"}) + "\n")
    overrides = {
        "init_from": workdir,
        "problems": tmp_path,
        "num_problems": 0,
        "num_groups": 2,
        "group_size": 4,
        "num_steps": 2,
        "samples_every": 1,
        "decoding.max_new_tokens": NEW,
        "rollout.slots": 8,
        "optimizer.warmup_steps": 1,
        "tool.enabled": True,
        "tool.workers": 1,
    }
    command = [sys.executable, "-m", "experiments.rl", "--config=configs/rl.py:nano", f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.{field}={value}" for field, value in overrides.items()]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["accuracy"] > 0.5
    samples = pyarrow.parquet.read_table(sorted((tmp_path / "run" / "samples").glob("*.parquet"))).to_pylist()
    said = ["".join(p for p, mine in zip(row["pieces"], row["mask"], strict=True) if not mine) for row in samples]
    assert write_output("42") in said


def test_the_tool_is_refused_where_it_cannot_be(tmp_path):
    config = rl_configs.get_config("nano,grpo_iterative")
    config.reward, config.reward_model, config.tool.enabled = "process_model", "runs/reward", True
    with pytest.raises(InputError, match=r"config\.tool\.enabled: .* set it to False or iterations to 1"):
        rl.run(config, tmp_path)
    config = rl_configs.get_config("nano")
    config.tool.update({"enabled": True, "seconds": 0.0})
    with pytest.raises(InputError, match=r"config\.tool\.seconds: 0\.0 must be positive"):
        rl.run(config, tmp_path)
