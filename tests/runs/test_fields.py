"""What --help tells of a config: its fields, their defaults, the comments beside them."""

import pathlib

import pytest

from configs import rl
from dsmath.runs import fields

_SHARED = """
import ml_collections

def guards(preset):
    c = ml_collections.ConfigDict({
        "on_spike": "none",  # or stop
    })
    return c
"""
_CONFIG = '''
import ml_collections

def get_config(preset="nano"):
    """Presets: nano (a laptop; 2 cores), 1b3 and 7b (the paper). Others raise."""
    if preset not in ("nano", "1b3", "7b"):
        raise ValueError(preset)
    c = ml_collections.ConfigDict()
    c.size = {"nano": 1, "1b3": 2, "7b": 3}[preset]  # of the model
    # How it learns,
    # in a group.
    c.optimizer = ml_collections.ConfigDict(
        {
            "learning_rate": 0.5,  # the peak
            "b1": 0.9,
        }
    )
    if preset == "7b":
        c.optimizer.b1 = 0.8  # §2.2
    c.weights = ml_collections.ConfigDict()  # of corpora that the user names
    c.weights["mined"] = 1.0
    c.a, c.b = 1, 2  # both
    c.deep = 16
    c.wide = 4  # the width
    c.layers = 2
    if preset == "7b":
        c.deep = 256  # §2.1
        c.wide = 512  # §2.3
        c.layers = c.a + 1  # what is no literal may be of any preset
    return c
'''


@pytest.fixture
def path(tmp_path) -> str:
    (tmp_path / "tiny.py").write_text(_CONFIG)
    return str(tmp_path / "tiny.py")


def test_fields_come_in_the_files_order_with_defaults_and_comments(path):
    assert [(field.name, field.value, field.meaning) for field in fields.read_fields(f"{path}:7b")] == [
        ("size", 3, "of the model"),
        ("optimizer", None, "How it learns, in a group."),
        ("optimizer.learning_rate", 0.5, "the peak"),
        ("optimizer.b1", 0.8, "§2.2"),
        ("weights", {"mined": 1.0}, "of corpora that the user names"),
        ("a", 1, "both"),
        ("b", 2, "both"),
        ("deep", 256, "§2.1"),
        ("wide", 512, "the width"),
        ("layers", 2, "what is no literal may be of any preset"),
    ]


def test_a_remark_on_another_presets_value_is_not_told(path):
    told = {field.name: (field.value, field.meaning) for field in fields.read_fields(f"{path}:nano")}
    assert told["optimizer.b1"] == (0.9, "") and told["deep"] == (16, "")
    assert told["wide"] == (4, "the width")
    assert told["layers"] == (2, "what is no literal may be of any preset")


def test_presets_are_those_of_the_docstring(path):
    assert fields.read_presets(path) == ["nano", "1b3", "7b"]


def test_methods_after_a_comma_are_those_that_the_config_knows():
    assert set(fields.read_variants("configs/rl.py")) == set(rl.METHODS)


def test_a_part_that_configs_share_brings_its_comments():
    found = {field.name: field.meaning for field in fields.read_fields("configs/sft.py:nano")}
    assert found["guards.on_nonfinite"] == "a loss or gradient that is not finite; ours"


def test_a_stage_in_a_chain_is_told_in_one_line():
    found = {field.name: field for field in fields.read_fields("configs/pipeline.py")}
    assert found["sft"].meaning == "the fields of configs/sft.py" and "sft.length" not in found


def test_long_meanings_wrap_below_themselves(path):
    lines = fields.render([fields.Field("name", 1, "word " * 40)], width=90).split("\n")
    assert len(lines) > 3 and all(len(line) <= 90 for line in lines)
    assert {len(line) - len(line.lstrip()) for line in lines[1:]} == {lines[0].index("word")}


@pytest.mark.parametrize("config", sorted(map(str, pathlib.Path("configs").glob("[a-z]*.py"))))
def test_every_field_of_every_config_has_a_meaning(config):
    unsaid = [field.name for field in fields.read_fields(config) if not field.meaning and "weights." not in field.name]
    assert not unsaid


@pytest.mark.parametrize("config", sorted(map(str, pathlib.Path("configs").rglob("[a-z]*.py"))))
def test_every_named_preset_loads(config):
    for preset in fields.read_presets(config):
        assert fields.read_fields(f"{config}:{preset}")
    assert fields.read_presets(config)
