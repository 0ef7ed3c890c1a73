"""Checkpoints come in, compute what they computed, and go out as they came, bit for bit; what cannot is refused."""

import functools
import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsmath.data.tokenizer import Tokenizer
from dsmath.huggingface import arrays, layout
from dsmath.model.generation import decode, empty_cache, fill, unstack
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import require_finished
from dsmath.train.checkpoint import Checkpointer, read_model, read_params
from dsmath.train.state import abstract_params, create_state
from experiments.convert import bring_in, bring_out, parse_side, parse_size

KINDS = ("llama2", "llama3", "deepseek", "qwen2")
NUMERICS = {"remat": "none", "attention": "xla"}


def _in(folder: pathlib.Path, workdir: pathlib.Path, dtype: str = "keep") -> pathlib.Path:
    bring_in(folder, workdir, dtype=dtype, numerics=NUMERICS)
    return workdir


def _out(workdir: pathlib.Path, folder: pathlib.Path, dtype: str = "keep", size: int = 10**9, length: int = 0):
    bring_out(workdir, folder, dtype=dtype, max_shard_size=size, length=length)
    return folder


def _params(workdir: pathlib.Path, mesh: dict[str, int]):
    model = Transformer(read_model(workdir))
    return model, read_params(workdir, abstract_params(model, _mesh(mesh)))


def _mesh(shape: dict[str, int]) -> jax.sharding.Mesh:
    return make_mesh(shape, jax.devices()[: math.prod(shape.values())])


def _assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_is_exact_to_the_bit(make_checkpoint, read_tensors, tmp_path, kind, dtype):
    folder, tensors = make_checkpoint(kind, dtype, parts=3)
    back = _out(_in(folder, tmp_path / "workdir"), tmp_path / "back", size=20_000)
    _assert_same(read_tensors(back), tensors)
    files = sorted(back.glob("*.safetensors"))
    assert len(files) > 3
    index = json.loads((back / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tensors)
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert max(file.stat().st_size for file in files) < 20_000 + tensors["model.embed_tokens.weight"].nbytes
    # And once more: what went out is a checkpoint like the one that came in.
    again = _out(_in(back, tmp_path / "workdir2"), tmp_path / "again")
    _assert_same(read_tensors(again), tensors)
    config = json.loads((back / "config.json").read_text())
    assert config == json.loads((again / "config.json").read_text())
    assert config["max_position_embeddings"] == 512
    tokenizer = Tokenizer.load(back, "--from")
    assert [config[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
    ]
    assert config["torch_dtype"] == dtype


def _reference(fields: dict, tensors: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The logits [length, vocab] of one sequence, in float64, straight from their tensors and their config."""
    x = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    heads, kv_heads = fields["num_attention_heads"], fields["num_key_value_heads"]
    size = fields.get("head_dim", fields["hidden_size"] // heads)
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    theta = rope.get("rope_theta", fields.get("rope_theta", 10000.0))
    frequencies = theta ** -(np.arange(0, size, 2) / size)
    if rope.get("type") == "linear":
        frequencies = frequencies / rope["factor"]
    if rope.get("rope_type") == "llama3":
        rotations = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        share = np.clip((rotations - low) / (high - low), 0, 1)
        frequencies = frequencies * (share + (1 - share) / rope["factor"])
    turns = np.exp(1j * np.outer(np.arange(len(ids)), frequencies))[:, None]

    def norm(stream, name):
        return stream / np.sqrt((stream**2).mean(-1, keepdims=True) + fields["rms_norm_eps"]) * x[name]

    def project(stream, name, count):
        return (stream @ x[f"{name}.weight"].T + x.get(f"{name}.bias", 0)).reshape(len(ids), count, size)

    def rotate(vectors):
        turned = (vectors[..., : size // 2] + 1j * vectors[..., size // 2 :]) * turns
        return np.concatenate([turned.real, turned.imag], -1)

    stream = x["model.embed_tokens.weight"][ids]
    for layer in range(fields["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        normed = norm(stream, f"{prefix}.input_layernorm.weight")
        query = rotate(project(normed, f"{prefix}.self_attn.q_proj", heads))
        key = rotate(project(normed, f"{prefix}.self_attn.k_proj", kv_heads)).repeat(heads // kv_heads, 1)
        value = project(normed, f"{prefix}.self_attn.v_proj", kv_heads).repeat(heads // kv_heads, 1)
        scores = np.einsum("qhd,khd->hqk", query, key) / size**0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * np.tri(len(ids))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, value).reshape(len(ids), -1)
        stream = stream + mixed @ x[f"{prefix}.self_attn.o_proj.weight"].T
        normed = norm(stream, f"{prefix}.post_attention_layernorm.weight")
        gate = normed @ x[f"{prefix}.mlp.gate_proj.weight"].T
        hidden = gate / (1 + np.exp(-gate)) * (normed @ x[f"{prefix}.mlp.up_proj.weight"].T)
        stream = stream + hidden @ x[f"{prefix}.mlp.down_proj.weight"].T
    return norm(stream, "model.norm.weight") @ x.get("lm_head.weight", x["model.embed_tokens.weight"]).T


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_came_in_computes_what_its_config_says(make_checkpoint, tmp_path, kind):
    folder, tensors = make_checkpoint(kind)
    model, params = _params(_in(folder, tmp_path / "workdir"), {"data": 1})
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 40)).astype(np.int32)
    fields = json.loads((folder / "config.json").read_text())
    wanted = np.stack([_reference(fields, tensors, row) for row in ids])

    @jax.jit
    def forward(ids):
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        hidden, _ = model.apply(params, ids, positions, jnp.ones_like(ids))
        return model.apply(params, hidden, method="logits")

    np.testing.assert_allclose(forward(ids), wanted, atol=1e-4)

    # The same through the cache: prompts of 9 and 12 tokens, then one token after the other.
    lengths = np.array([9, 12], np.int32)
    apart = unstack(params, model.config)
    cache = empty_cache(model.config, rows=2, width=1, prefix_length=12, suffix_length=20, dtype=jnp.float32)
    cache = jax.jit(functools.partial(fill, model))(apart, cache, ids[:, :12], lengths, np.arange(2))
    step = jax.jit(functools.partial(decode, model))
    for index in range(20):
        places = np.full((2, 1), index, np.int32)
        logits, cache = step(apart, ids[[0, 1], lengths + index][:, None], lengths, places, cache)
        np.testing.assert_allclose(logits[:, 0], wanted[[0, 1], lengths + index], atol=1e-4)


def test_weights_that_came_in_short_are_held_in_float32_on_any_mesh(make_checkpoint, tmp_path):
    folder, tensors = make_checkpoint("llama3", "bfloat16", parts=2)
    workdir = _in(folder, tmp_path / "workdir")
    require_finished(workdir, "config.init_from")
    model, params = _params(workdir, {"data": 2, "fsdp": 2, "tensor": 2})
    assert model.config.dtype == "bfloat16"  # it computes as it came
    assert model.config.param_dtype == "float32"
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    back = layout.state_dict(model.config, params)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor.astype(np.float32))


@pytest.mark.parametrize(("there", "here"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "bfloat16")])
def test_a_number_format_can_be_asked_for_on_both_ways(make_checkpoint, read_tensors, tmp_path, there, here):
    folder, tensors = make_checkpoint("qwen2", there)
    wanted = {name: tensor.astype(jnp.dtype(here)) for name, tensor in tensors.items()}
    workdir = _in(folder, tmp_path / "cast", dtype=here)
    assert read_model(workdir).dtype == here
    _assert_same(read_tensors(_out(workdir, tmp_path / "a")), wanted)
    _assert_same(read_tensors(_out(_in(folder, tmp_path / "kept"), tmp_path / "b", dtype=here)), wanted)


@pytest.mark.parametrize("mesh", [{"data": 1}, {"fsdp": 4, "tensor": 2}])
def test_a_checkpoint_that_training_wrote_goes_out(make_model_config, tokenizer, read_tensors, tmp_path, mesh):
    scaling = {"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_length": 32}
    config = make_model_config(vocab_size=360, attention_bias=True, tied=False, rope_scaling=scaling)
    model = Transformer(config)
    state = create_state(model, optax.identity(), _mesh(mesh), seed=0)
    with Checkpointer(tmp_path / "run", config, save_every=1, keep_last=1) as checkpointer:
        checkpointer.save(state, {}, loss=0.0)
    tokenizer.save(tmp_path / "run")
    with pytest.raises(InputError, match=r"--length: .*config\.json names none; give"):
        _out(tmp_path / "run", tmp_path / "hf")
    back = _out(tmp_path / "run", tmp_path / "hf", length=128)
    _assert_same(read_tensors(back), layout.state_dict(config, state.params))
    assert json.loads((back / "lineage.json").read_text())["parents"]["from"]["step"] == 0
    assert read_model(_in(back, tmp_path / "in")) == config
    assert Tokenizer.load(tmp_path / "in").equals(tokenizer)


def test_views_share_memory_both_ways(make_model_config):
    for leaf in layout.leaves(make_model_config(attention_bias=True, tied=False)):
        theirs = np.zeros(leaf.their_shape)
        assert np.shares_memory(theirs, leaf.from_theirs(theirs))  # what is written to the view reaches the file
        assert leaf.to_theirs(leaf.from_theirs(theirs)).shape == leaf.their_shape


def test_the_rotary_frequencies_of_old_checkpoints_are_no_parameters(make_checkpoint, read_tensors, tmp_path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    folder, tensors = make_checkpoint("llama2", change=lambda tensors: tensors.update({name: np.ones(4, np.float32)}))
    back = read_tensors(_out(_in(folder, tmp_path / "workdir"), tmp_path / "back"))
    assert back.keys() == tensors.keys() - {name}


def _repeat_embedding(tensors: dict[str, np.ndarray], plus: float) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + np.float32(plus)


def test_an_output_matrix_beside_a_tied_embedding_must_repeat_it(make_checkpoint, read_tensors, tmp_path):
    folder, tensors = make_checkpoint("qwen2", change=lambda tensors: _repeat_embedding(tensors, 0))
    back = read_tensors(_out(_in(folder, tmp_path / "workdir"), tmp_path / "back"))
    assert back.keys() == tensors.keys() - {"lm_head.weight"}
    shutil.rmtree(folder)
    folder, _ = make_checkpoint("qwen2", change=lambda tensors: _repeat_embedding(tensors, 1))
    with pytest.raises(InputError, match=r"model\.safetensors: tensor lm_head\.weight has no place in the model"):
        _in(folder, tmp_path / "other")


_LAYER = "model.layers.1.self_attn."


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop(f"{_LAYER}k_proj.weight"), r"no tensor model\.layers\.1\.self_attn\.k_proj\.weight in any"),
        (
            lambda t: t.update({f"{_LAYER}q_proj.bias": np.ones(32, np.float32)}),
            r"model\.safetensors: tensor model\.layers\.1\.self_attn\.q_proj\.bias has no place",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.ones(33, np.float32)}),
            r"model\.norm\.weight is \(33,\), and config\.json asks for \(32,\)",
        ),
        (
            lambda t: t.update({"lm_head.weight": np.ones((360, 32), np.int8)}),
            r"lm_head\.weight is I8, and only F32, BF16, F16 are read; dequantize",
        ),
        (
            lambda t: t.update({f"{_LAYER}k_proj.weight": np.ones((32, 32), np.float16)}),
            r"k_proj\.weight is float16, and that of another layer float32; give --dtype",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(make_checkpoint, tmp_path, change, named):
    folder, _ = make_checkpoint("llama2", change=change)
    with pytest.raises(InputError, match=named) as caught:
        _in(folder, tmp_path / "workdir")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "workdir").exists()


def test_files_that_are_absent_or_damaged_are_named(make_checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"--from=hf:.*nowhere: no .*config\.json; name the folder"):
        _in(tmp_path / "nowhere", tmp_path / "workdir")
    folder, _ = make_checkpoint("llama2", parts=2)
    part = folder / "model-2.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"model-2\.safetensors: no whole safetensors file"):
        _in(folder, tmp_path / "workdir")
    part.unlink()
    with pytest.raises(InputError, match=r"model-2\.safetensors: no such file; download"):
        _in(folder, tmp_path / "workdir")
    part.write_bytes(whole)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(InputError, match=r"--from=hf:.*no .*tokenizer\.model and no tokenizer\.json"):
        _in(folder, tmp_path / "workdir")
    (folder / "model.safetensors.index.json").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no model\.safetensors and no .*; weights in other files, such as pytorch"):
        _in(folder, tmp_path / "workdir")


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused(make_checkpoint, tmp_path):
    folder, _ = make_checkpoint("llama2", fields={"vocab_size": 330})
    with pytest.raises(InputError, match=r"config\.json: vocab_size is 330, and the tokenizer has 340 ids"):
        _in(folder, tmp_path / "workdir")


def test_what_broke_off_is_no_checkpoint_and_the_same_line_makes_it(
    make_checkpoint, read_tensors, tmp_path, monkeypatch
):
    def break_off(*_, **__):
        raise RuntimeError("killed")

    folder, tensors = make_checkpoint("deepseek", parts=2)
    with monkeypatch.context() as broken:
        broken.setattr(arrays, "write_metadata", break_off)
        with pytest.raises(RuntimeError, match="killed"):
            _in(folder, tmp_path / "workdir")
    with pytest.raises(InputError, match="its stage has not finished"):
        require_finished(tmp_path / "workdir", "config.init_from")
    with pytest.raises(InputError, match="no finished checkpoint"):
        read_model(tmp_path / "workdir")
    with pytest.raises(InputError, match="its stage has not finished"):
        _out(tmp_path / "workdir", tmp_path / "back")
    _in(folder, tmp_path / "workdir")
    assert [path.name for path in (tmp_path / "workdir" / "checkpoints").iterdir()] == ["0"]

    with monkeypatch.context() as broken:
        broken.setattr("dsmath.huggingface.config.to_huggingface", break_off)
        with pytest.raises(RuntimeError, match="killed"):
            _out(tmp_path / "workdir", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    _assert_same(read_tensors(_out(tmp_path / "workdir", tmp_path / "back")), tensors)
    assert not (tmp_path / ".back.partial").exists()


def test_a_finished_conversion_is_not_done_again_and_nothing_is_overwritten(make_checkpoint, tmp_path, capsys):
    folder, _ = make_checkpoint("llama2")
    for _ in range(2):
        _out(_in(folder, tmp_path / "workdir"), tmp_path / "back")
    assert capsys.readouterr().err.count("is finished; nothing to do") == 2
    with pytest.raises(InputError, match=r"--to=hf:.*back: something else is there; remove it"):
        _out(tmp_path / "workdir", tmp_path / "back", dtype="bfloat16")
    with pytest.raises(InputError, match=r"--to=hf:.*something else is there"):
        _out(tmp_path / "workdir", folder)
    with pytest.raises(InputError, match=r"config\.dtype is 'keep' there and 'bfloat16' in this command"):
        _in(folder, tmp_path / "workdir", dtype="bfloat16")


@pytest.mark.parametrize("text", ["runs/sft", "hf:", "gguf:model", ":x"])
def test_a_side_that_is_not_understood_is_named(text):
    with pytest.raises(InputError, match=r"--from=.*: write hf:DIR or orbax:WORKDIR"):
        parse_side("from", text)


def test_sizes_are_decimal():
    assert [parse_size(text) for text in ("7", "2kb", "500MB", "5GB")] == [7, 2000, 500 * 10**6, 5 * 10**9]
    with pytest.raises(InputError, match=r"--max_shard_size=5TB: give a size"):
        parse_size("5TB")
