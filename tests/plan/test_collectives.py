"""A compiled program's text is read: its groups of devices, its loops, its matrix products."""

import pytest

from dsmath.plan.collectives import find_collectives
from dsmath.plan.hlo import Program, flops

MESH = {"data": 2, "fsdp": 2, "tensor": 2}

TEXT = """HloModule step, entry_computation_layout={(f32[4,8])->f32[4,8]}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (state: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %state = (s32[], f32[4,8]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%count, %one)
  %rows = f32[4,8]{1,0} get-tuple-element(%state), index=1
  %weight = f32[8,8]{1,0} constant({...})
  %product = f32[4,8]{1,0} dot(%rows, %weight), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %reduced = f32[4,8]{1,0} all-reduce(%product), replica_groups=GROUPS, to_apply=%add, metadata={op_name="a(b)/c"}
  USER
  ROOT %out = (s32[], /*index=1*/f32[4,8]{1,0}) tuple(%next, %reduced)
}

%condition (state.1: (s32[], f32[4,8])) -> pred[] {
  %state.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  %count.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%count.1, %limit), direction=LT
}

ENTRY %main (input: f32[4,8]) -> f32[4,8] {
  %input = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[4,8]{1,0}) tuple(%zero, %input)
  %loop = (s32[], f32[4,8]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %result = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def _read(groups: str, user: str = "") -> Program:
    return Program(TEXT.replace("GROUPS", groups).replace("  USER\n", f"  {user}\n" if user else ""))


@pytest.mark.parametrize(
    ("groups", "axes", "group"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",), (0, 1)),
        ("{{0,4},{1,5},{2,6},{3,7}}", ("data",), (0, 4)),
        ("{}", ("data", "fsdp", "tensor"), tuple(range(8))),
        ("[2,4]<=[8]", ("fsdp", "tensor"), (0, 1, 2, 3)),
        ("[2,4]<=[4,2]T(1,0)", ("data", "fsdp"), (0, 2, 4, 6)),
        ("mesh['a'=2,'b'=2,'c'=2] {'b'}", ("fsdp",), (0, 2)),
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", ("data", "fsdp"), (0, 2, 4, 6)),
        ("mesh['a'=8] {'a':(2)2}", ("fsdp",), (0, 2)),
    ],
)
def test_groups_of_devices_name_mesh_axes(groups, axes, group):
    (found,) = find_collectives(_read(groups), MESH)
    assert (found.axes, found.group) == (axes, group)


def test_loops_multiply_what_they_hold():
    program = _read("[4,2]<=[8]")
    (found,) = find_collectives(program, MESH)
    assert (found.kind, found.bytes, found.times, found.source) == ("all-reduce", 4 * 8 * 4, 5, "a(b)/c")
    assert found.sent == 5 * 128  # two devices: each sends half of the array, twice
    assert sum(times * flops(one, inside) for one, inside, times in program.run()) == 5 * 2 * 4 * 8 * 8


def test_a_sum_of_which_each_device_keeps_a_part_is_a_reduce_scatter():
    kept = "%kept = f32[2,8]{1,0} dynamic-slice(%reduced, %count, %one), dynamic_slice_sizes={2,8}"
    program = _read("[4,2]<=[8]", kept)
    assert find_collectives(program, MESH)[0].kind == "all-reduce"  # the loop's result needs it whole too
    text = TEXT.replace("tuple(%next, %reduced)", "tuple(%next, %rows)").replace("GROUPS", "[4,2]<=[8]")
    (found,) = find_collectives(Program(text.replace("USER", kept)), MESH)
    assert (found.kind, found.bytes) == ("reduce-scatter", 128)


def test_a_group_of_one_device_exchanges_nothing():
    assert find_collectives(_read("{{0},{1},{2},{3},{4},{5},{6},{7}}"), MESH) == []
