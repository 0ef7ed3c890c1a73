"""Programs are made for accelerators that are not here: lowered for them everywhere, compiled where libtpu is."""

import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from configs import pretrain, rl
from dsmath.model.backend import backend, made_for
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.plan import sampling
from dsmath.plan.plan import plan
from dsmath.plan.topology import find_devices
from dsmath.plan.work import rows_of
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.memory import fit
from dsmath.rollout.programs import Programs
from dsmath.runs.errors import InputError
from dsmath.train.state import abstract_params
from dsmath.train.supervised import next_token_loss

_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@pytest.fixture
def make_wide_config(make_model_config) -> Callable[[str], ModelConfig]:
    """attention -> a model whose heads are as large as the kernels of accelerators want them."""
    sizes = {"width": 128, "num_heads": 8, "num_kv_heads": 8, "head_dim": 128, "mlp_width": 64, "vocab_size": 512}
    return lambda attention: make_model_config(**sizes, num_layers=1, dtype="bfloat16", attention=attention)


@pytest.mark.parametrize("shape", [{"fsdp": 4, "tensor": 2}, {"fsdp": 2, "sequence": 2, "tensor": 2}])
@pytest.mark.parametrize(
    ("platform", "attention", "kernel"), [("tpu", "splash", "tpu_custom_call"), ("tpu", "xla", ""), ("cuda", "xla", "")]
)
def test_gradients_are_lowered_for_accelerators(make_wide_config, shape, platform, attention, kernel):
    """ "cudnn" is not among them: JAX lowers it beside cuDNN alone."""
    mesh, model = make_mesh(shape), Transformer(make_wide_config(attention))
    rows = rows_of(mesh, 8, 256)
    batch = dict.fromkeys(("tokens", "targets", "positions", "segment_ids"), rows(jnp.int32))
    batch["loss_mask"] = rows(jnp.float32)
    loss = next_token_loss(model, logits_chunk=64)
    gradients = jax.jit(lambda params, batch: jax.grad(lambda params: loss(params, batch)[0])(params))
    params = abstract_params(model, mesh)
    with made_for("gpu" if platform == "cuda" else platform), jax.set_mesh(mesh):
        traced = gradients.trace(params, batch)
        assert kernel in traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("platform", "attention", "kernel"), [("tpu", "splash", ""), ("cuda", "cudnn", "triton"), ("cuda", "xla", "")]
)
def test_decoding_is_lowered_for_accelerators(make_wide_config, platform, attention, kernel):
    mesh, model = make_mesh({"fsdp": 4, "tensor": 2}), Transformer(make_wide_config(attention))
    sizes = {"group_size": 8, "longest_prompt": 64, "max_new_tokens": 128}
    limits = fit(model.config, mesh, **rl.get_config("nano").rollout, **sizes)
    with made_for("gpu" if platform == "cuda" else platform):
        programs, params = Programs(model, mesh, limits), abstract_params(model, mesh)
        arrays = programs.resharding(params).eval_shape(params), programs.create.eval_shape()
        block = sampling._block(limits, programs, Decoding(1.0, 1.0, 128))
        buckets = {"prefix_length": limits.prompt_buckets[-1], "suffix_length": limits.new_buckets[-1]}
        key = jax.eval_shape(jax.random.key, 0)
        with jax.set_mesh(mesh):
            traced = programs.decode.trace(*arrays, block, None, key, steps=limits.block_steps, **buckets)
            assert kernel in traced.lower(lowering_platforms=(platform,)).as_text()


def test_the_platform_is_another_one_only_within():
    with made_for("tpu"):
        assert backend() == "tpu"
    assert backend() == jax.default_backend() == "cpu"


@_LIBTPU
def test_a_tpus_own_compiler_says_what_a_chip_holds(make_wide_config):
    config = pretrain.get_config("nano")
    config.length, config.batch_size, config.logits_chunk = 256, 8, 64
    model, shape = make_wide_config("splash"), {"fsdp": 2, "tensor": 2}
    of_cpu, of_tpu = (
        plan(config, shape, model=model, prompt_length=1, topology=topology) for topology in (None, "v5e:2x2")
    )
    assert of_tpu.resident == of_cpu.resident
    assert 0.5 < of_tpu.bytes / of_cpu.bytes < 2
    assert of_tpu.bytes != of_cpu.bytes
    assert [program.flops for program in of_tpu.programs] == [program.flops for program in of_cpu.programs]
    with pytest.raises(InputError, match=r"config\.mesh: .* needs 4 devices, 16 are here"):
        plan(config, shape, model=model, prompt_length=1, topology="v5e:4x4")


@_LIBTPU
def test_an_unknown_slice_is_named():
    with pytest.raises(InputError, match=r"--topology=v9z:4x4: no slice of a TPU .*; name one such as v5p:4x4x4"):
        find_devices("v9z:4x4")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_the_compiler_it_is_said_how_to_get_it():
    with pytest.raises(InputError, match=r"--topology: the TPU's compiler is missing; install it: pip install libtpu"):
        find_devices("v5p:4x4x4")
