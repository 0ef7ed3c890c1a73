"""transformers and we compute the same from the same files; it runs where `make peers` has made its environment."""

import functools
import json
import os
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.data.tokenizer import Tokenizer
from dsmath.model.generation import decode, empty_cache, fill, unstack
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.state import abstract_params
from experiments.convert import bring_in, bring_out

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
KINDS = ("llama2", "llama3", "deepseek", "qwen2")
BYTE_LEVEL = ("qwen2",)  # the others have our tokenizer
TOLERANCE = 1e-4  # of logits, in float32
TEXTS = [
    "Anna has 12 apples.\n\nShe gets 7 more: 12+7=19.",
    "  two leading and trailing spaces  ",
    "小明有3盒苹果，每盒12个。",
    "\tdef f(x):\r\n\t\treturn x ** 2\n",
    "🙂 é e\u0301 \u00a0 ∫ f(x) dx",
    "",
]


def _ask_peer(task: str, folder: pathlib.Path) -> None:
    script = pathlib.Path(__file__).with_name("transformers_peer.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([PYTHON, script, task, folder], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, byte_level) -> pathlib.Path:
    """Of each kind the peer's checkpoint, our workdir, and the checkpoint that goes back, which the peer has read."""
    if not PYTHON.exists():
        pytest.skip("the peers' environment is absent: make peers")
    folder = tmp_path_factory.mktemp("transformers")
    _ask_peer("make", folder)
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    for kind in KINDS:
        (byte_level if kind in BYTE_LEVEL else tokenizer).save(folder / kind)
        numerics = {"remat": "none", "attention": "xla"}
        bring_in(folder / kind, folder / f"{kind}-workdir", dtype="keep", numerics=numerics)
        back = folder / f"{kind}-back"
        bring_out(folder / f"{kind}-workdir", back, dtype="keep", max_shard_size=100_000, length=0)
    _ask_peer("read", folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_both_compute_the_same_logits_at_once_and_through_the_cache(folder, kind):
    model = Transformer(read_model(folder / f"{kind}-workdir"))
    params = read_params(folder / f"{kind}-workdir", abstract_params(model, make_mesh({"data": 8})))
    with np.load(folder / f"{kind}.npz") as file:
        ids, logits, cached = file["ids"].astype(np.int32), file["logits"], file["cached"]
    rows, length = ids.shape
    prompt = length + 1 - cached.shape[1]

    @jax.jit
    def forward(ids):
        positions = jnp.broadcast_to(jnp.arange(length), ids.shape)
        hidden, _ = model.apply(params, ids, positions, jnp.ones_like(ids))
        return model.apply(params, hidden, method="logits")

    assert logits.std() > 0.5  # there is something to compare
    np.testing.assert_allclose(forward(ids), logits, rtol=0, atol=TOLERANCE)

    lengths = np.full(rows, prompt - 1, np.int32)
    apart, steps = unstack(params, model.config), cached.shape[1]
    cache = empty_cache(model.config, rows, width=1, prefix_length=prompt, suffix_length=steps, dtype=jnp.float32)
    cache = jax.jit(functools.partial(fill, model))(apart, cache, ids[:, :prompt], lengths, np.arange(rows))
    step = jax.jit(functools.partial(decode, model))
    for index in range(steps):  # the prompt's last token comes first
        places = np.full((rows, 1), index, np.int32)
        ours, cache = step(apart, ids[:, prompt - 1 + index, None], lengths, places, cache)
        np.testing.assert_allclose(ours[:, 0], cached[:, index], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_the_peer_reads_what_goes_back_and_computes_the_same_to_the_bit(folder, kind):
    with np.load(folder / f"{kind}.npz") as before, np.load(folder / f"{kind}-back.npz") as after:
        np.testing.assert_array_equal(after["logits"], before["logits"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_peer_tokenizes_as_we_do(folder, kind):
    ours = Tokenizer.load(folder / f"{kind}-workdir")
    theirs = json.loads((folder / f"{kind}-tokens.json").read_text())
    assert theirs["ids"] == ours.encode_all(TEXTS)
    assert theirs["texts"] == [ours.decode(ids) for ids in theirs["ids"]]
    assert theirs["special"][1:] == [ours.eos_id, ours.pad_id]
    if kind not in BYTE_LEVEL:
        assert theirs["texts"] == TEXTS
        assert theirs["special"][0] == ours.bos_id
        assert theirs["framed"] == [ours.bos_id, *theirs["ids"][0]]
    assert Tokenizer.load(folder / f"{kind}-back").equals(ours)
