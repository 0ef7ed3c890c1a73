"""Frozen protocols."""

import dataclasses
import json

import pytest

from dsmath.evaluation.protocols import PROTOCOLS, check, find_protocol
from dsmath.runs.errors import InputError


def test_the_papers_protocol_is_that_of_the_released_evaluation():
    paper = find_protocol("paper", "--protocol")
    assert (paper.max_new_tokens, paper.greedy_temperature, paper.temperature) == (1024, 0.0, 0.7)
    assert (paper.tool_rounds, paper.program_seconds, paper.tool_output_ends) == (2, 10.0, 50)
    assert paper.frames["chat_en"].endswith("put your final answer within \\boxed{}.\n\nAssistant:")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_that_went_through_a_file_is_the_same(name):
    check(PROTOCOLS[name], json.loads(json.dumps(PROTOCOLS[name].record())), "runs/a")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PROTOCOLS["paper"])])
def test_a_field_that_differs_is_named(field):
    recorded = PROTOCOLS["paper"].record() | {field: "else"}
    with pytest.raises(InputError, match=f"^runs/a: .* whose {field} is 'else'"):
        check(PROTOCOLS["paper"], recorded, "runs/a")


def test_an_unknown_protocol_is_refused():
    with pytest.raises(InputError, match=r"config\.protocol: 'papers' is none of paper, nano"):
        find_protocol("papers", "config.protocol")
