"""The mesh and the table of rules."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from dsmath.model import sharding
from dsmath.model.sharding import MESH_AXES, make_mesh, tree_shardings, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.runs.errors import InputError
from dsmath.train.state import abstract_state, create_state


def test_tests_run_on_eight_devices():
    assert jax.device_count() == 8


def test_a_mesh_has_all_axes_and_minus_one_takes_the_rest():
    mesh = make_mesh({"data": 2, "fsdp": -1, "tensor": 2})
    assert mesh.axis_names == MESH_AXES
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "sequence": 1, "tensor": 2}


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ({"data": 2, "pipeline": 4}, r"config\.mesh: unknown axis 'pipeline'"),
        ({"data": 3}, r"config\.mesh: .*needs 3 devices, 8 are here"),
        ({"data": 3, "fsdp": -1}, r"config\.mesh: .*needs 6 devices, 8 are here"),
        ({"data": 16, "fsdp": -1}, r"config\.mesh: .*needs 16 devices, 8 are here"),
        ({"data": -1, "fsdp": -1}, r"config\.mesh: .*at most one -1"),
        ({"data": 0, "fsdp": 8}, r"config\.mesh: .*must be positive"),
        ({"data": -2}, r"config\.mesh: .*must be positive"),
    ],
)
def test_a_wrong_mesh_is_named(shape, named):
    with pytest.raises(InputError, match=named):
        make_mesh(shape)


class _Chip:
    """What JAX's layout asks of a TPU chip."""

    platform, device_kind, core_on_chip = "tpu", "TPU v5p", 0

    def __init__(self, number: int, coords: tuple[int, int, int], slice_index: int):
        self.id, self.coords, self.slice_index, self.process_index = number, coords, slice_index, number // 4


def _chips(sides: tuple[int, int, int], slices: int = 1) -> list[_Chip]:
    places = [place[::-1] for place in itertools.product(*map(range, sides[::-1]))]  # x runs fastest
    return [_Chip(len(places) * s + number, place, s) for s in range(slices) for number, place in enumerate(places)]


@pytest.mark.parametrize("shape", [{"fsdp": 16, "tensor": 4}, {"fsdp": 32, "tensor": 2}, {"fsdp": 8, "tensor": 8}])
def test_neighbours_of_a_torus_share_the_innermost_axis(shape):
    devices = make_mesh(shape, _chips((4, 4, 4))).devices
    assert devices.size == len(set(devices.flat)) == 64
    for group in devices.reshape(-1, shape["tensor"]):  # a ring, or two of them
        coords = np.array([chip.coords for chip in group])
        assert np.prod(np.ptp(coords, axis=0) + 1) == len(group)


@pytest.mark.parametrize(
    ("shape", "slices"),
    [({"data": 2, "fsdp": 16, "tensor": 4}, 2), ({"data": 2, "fsdp": 32, "tensor": 4}, 4), ({"fsdp": 64}, 1)],
)
def test_slices_share_data_first_and_fsdp_next(shape, slices):
    devices = make_mesh(shape, _chips((4, 4, 4), slices)).devices
    rows = devices.reshape(slices, -1)
    assert [{chip.slice_index for chip in row} for row in rows] == [{number} for number in range(slices)]


def test_a_mesh_that_slices_or_a_torus_cannot_take_is_named():
    with pytest.raises(InputError, match=r"config\.mesh: data=2 and fsdp=1 cannot be shared by 4 slices"):
        make_mesh({"data": 2, "tensor": 128}, _chips((4, 4, 4), 4))


def test_a_changed_number_of_cpu_devices_needs_a_new_process():
    jax.devices()
    use_cpu_devices(8)  # what runs already
    with pytest.raises(InputError, match=r"config\.num_cpu_devices: 4, but JAX runs with 8"):
        use_cpu_devices(4)
    with pytest.raises(InputError, match=r"config\.num_cpu_devices: 0"):
        use_cpu_devices(0)


def test_a_parameter_without_a_rule_raises_with_its_name():
    mesh = make_mesh({"data": 8})
    leaf = nn.Partitioned(jax.ShapeDtypeStruct((4, 4), jnp.float32), names=("embed", "experts"))
    with pytest.raises(ValueError, match=r"\['mlp'\]\['router'\].*'experts'"):
        tree_shardings({"mlp": {"router": leaf}}, mesh)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_of_the_model_has_a_rule_for_each_dimension(make_model_config, tied):
    model = Transformer(make_model_config(tied=tied))
    one = jnp.zeros((1, 2), jnp.int32)
    boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), one, one, one, method="init_all"))
    leaves = jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))
    assert len(leaves) == 11 + (not tied)
    for leaf in leaves:
        assert isinstance(leaf, nn.Partitioned)
        assert len(leaf.names) == leaf.value.ndim
        assert set(leaf.names) <= set(sharding.RULES)


def test_parameters_and_their_moments_are_split_as_the_table_says(make_model_config):
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    model = Transformer(make_model_config(tied=False))
    state = create_state(model, optax.adam(1e-3), mesh, seed=0)
    moments = state.opt_state[0].mu
    for tree in (state.params, moments):
        blocks = tree["params"]["blocks"]
        expected = {
            "q": (blocks["attention"]["q"], PartitionSpec(None, "fsdp", "tensor", None), (2, 8, 2, 8)),
            "out": (blocks["attention"]["out"], PartitionSpec(None, "tensor", None, "fsdp"), (2, 2, 8, 8)),
            "down": (blocks["mlp"]["down"], PartitionSpec(None, "tensor", "fsdp"), (2, 24, 8)),
            "scale": (blocks["mlp_norm"]["scale"], PartitionSpec(None, None), (2, 32)),
            "embedding": (tree["params"]["embedding"], PartitionSpec("tensor", "fsdp"), (32, 8)),
            "output": (tree["params"]["output"], PartitionSpec("fsdp", "tensor"), (8, 32)),
        }
        for name, (leaf, spec, local) in expected.items():
            assert leaf.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, spec), leaf.ndim), name
            assert leaf.addressable_shards[0].data.shape == local, name


def test_the_abstract_state_is_the_real_ones_shape(make_model_config):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model, optimizer = Transformer(make_model_config()), optax.adam(1e-3)
    abstract, real = abstract_state(model, optimizer, mesh), create_state(model, optimizer, mesh, seed=0)
    assert jax.tree.structure(abstract) == jax.tree.structure(real)
    for one, other in zip(jax.tree.leaves(abstract), jax.tree.leaves(real), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.sharding.is_equivalent_to(other.sharding, len(one.shape))
