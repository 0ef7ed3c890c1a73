"""The plan of a sweep: what is run, in folders named after what decides it; bad input is named at the start."""

import pathlib

import ml_collections
import pytest

from dsmath.runs.entries import flatten
from dsmath.runs.errors import InputError
from dsmath.runs.sweep import plan
from dsmath.runs.workdir import write_json

STAGES = {
    "base": {"data": "embedded", "seed": 0, "corpora": {"mined": "runs/mine"}},
    "tune": {"init_from": "runs/base", "seed": 0, "rate": 0.1, "num_steps": 6, "save_every": 2, "keep_last": 2},
    "test": {"init_from": "runs/tune", "step": 0, "problems": "embedded", "decoding": {"top_p": 1.0}},
}


def _load(stage: str, preset: str) -> ml_collections.ConfigDict:
    if stage not in STAGES:
        raise ImportError(stage)
    if preset != "nano":
        raise ValueError(f"preset {preset!r} is not nano")
    return ml_collections.ConfigDict(STAGES[stage])


def _common(**changes) -> dict:
    """The stages' configs with what is changed for all runs."""
    return STAGES | {"tune": STAGES["tune"] | {"init_from": "{base}"} | changes}


def _config(**changes) -> ml_collections.ConfigDict:
    fields = {
        "seeds": (0, 1),
        "defaults": STAGES,
        "common": _common(),
        "parents": {"base": {"stage": "base", "preset": "nano", "workdir": "", "overrides": {}}},
        "runs": (
            {"label": "slow", "stage": "tune", "preset": "nano", "overrides": {"rate": 0.01}},
            {"label": "fast", "stage": "tune", "preset": "nano", "overrides": {"rate": 1.0}},
        ),
        "evaluation": {"stage": "test", "preset": "nano", "overrides": {"init_from": "{run}"}, "steps": (0, 4, 6)},
    }
    return ml_collections.ConfigDict(fields | changes)


def _plan(config: ml_collections.ConfigDict, store: pathlib.Path = pathlib.Path("/store")):
    return plan(config, store, _load)


def _keys(config: ml_collections.ConfigDict, store: pathlib.Path = pathlib.Path("/store")) -> dict[str, str]:
    """The hash of each stage by its name."""
    return {stage.name: folder.name.rsplit("-", 1)[1] for folder, stage in _plan(config, store)[0].items()}


def test_parents_are_made_once_and_runs_with_every_seed():
    stages, points = _plan(_config())
    names = [stage.name for stage in stages.values()]
    assert names[:3] == ["base", "slow, seed 0 evaluated at 0", "slow, seed 0"]
    assert len([name for name in names if "evaluated" not in name]) == 1 + 2 * 2
    assert len([name for name in names if "evaluated" in name]) == 1 + 2 * 2 * 2  # step 0 is the base, for all
    assert [(point.label, point.seed, point.step) for point in points[:4]] == [
        ("slow", 0, 0), ("slow", 0, 4), ("slow", 0, 6), ("fast", 0, 0),
    ]  # fmt: skip
    assert {point.workdir for point in points if point.step == 0} == {points[0].workdir}


def test_commands_hold_the_overrides_and_the_folders_of_the_parents():
    stages, points = _plan(_config())
    base, _, tune, at_4 = list(stages.values())[:4]
    assert base.command[1:] == ["-m", "experiments.base", "--config=configs/base.py:nano", f"--workdir={base.workdir}"]
    assert tune.parents == (base.workdir,)
    assert tune.command[5:] == [f"--config.init_from={base.workdir}", "--config.rate=0.01"]
    assert at_4.workdir == points[1].workdir and at_4.parents == (tune.workdir,)
    assert at_4.command[5:] == [f"--config.init_from={tune.workdir}", "--config.step=4"]


def test_a_folder_is_named_after_what_decides_its_stage(tmp_path):
    keys = _keys(_config())
    assert _keys(_config(), tmp_path) == keys  # not by its place
    changed = _keys(_config(common=_common(num_steps=8), evaluation={
        "stage": "", "preset": "nano", "overrides": {}, "steps": (),
    }))  # fmt: skip
    assert changed["base"] == keys["base"] and changed["slow, seed 0"] != keys["slow, seed 0"]
    parent = {"stage": "base", "preset": "nano", "workdir": "", "overrides": {"seed": 7}}
    other = _keys(_config(parents={"base": parent}))
    assert not set(other.values()) & set(keys.values())  # what a parent is decides its children


def test_data_decides_by_content(tmp_path):
    def key(folder: pathlib.Path, text: str) -> str:
        folder.mkdir()
        (folder / "part.txt").write_text(text)
        parent = {"stage": "base", "preset": "nano", "workdir": "", "overrides": {"corpora": {"web": str(folder)}}}
        return _keys(_config(parents={"base": parent}))["base"]

    first = key(tmp_path / "a", "1 + 1 = 2")
    assert key(tmp_path / "b", "1 + 1 = 2") == first
    assert key(tmp_path / "c", "1 + 1 = 3") != first


@pytest.mark.parametrize("field", ["corpora", "weights", "solutions", "repeats"])
def test_a_mapping_whose_keys_are_the_users_is_overridden_as_a_whole(field):
    assert dict(flatten({field: {"mine": 1}, "decoding": {"top_p": 1.0}})) == {
        field: {"mine": 1},
        "decoding.top_p": 1.0,
    }


def test_what_another_sweep_made_is_found_under_its_name(tmp_path):
    key = _keys(_config())["slow, seed 0"]
    (tmp_path / f"another-name-{key}").mkdir()
    stages, _ = _plan(_config(), tmp_path)
    assert tmp_path / f"another-name-{key}" in stages


def test_a_finished_workdir_takes_the_place_of_a_parent_and_its_ancestors(tmp_path):
    write_json(tmp_path / "config.json", {"stage": "base"})
    parents = {
        "data": {"stage": "base", "preset": "nano", "workdir": "", "overrides": {}},
        "base": {"stage": "base", "preset": "nano", "workdir": str(tmp_path), "overrides": {"data": "{data}"}},
    }
    with pytest.raises(InputError, match=r"config\.parents\.base\.workdir=.*has not finished"):
        _plan(_config(parents=parents))
    write_json(tmp_path / "result.json", {})
    stages, _ = _plan(_config(parents=parents))
    assert not [stage for stage in stages.values() if stage.name in ("base", "data")]
    tune = next(stage for stage in stages.values() if stage.name == "slow, seed 0")
    assert tune.parents == () and f"--config.init_from={tmp_path}" in tune.command


def test_a_grid_is_a_run_for_each_of_its_points():
    run = {"label": "", "stage": "tune", "preset": "nano", "grid": {"rate": (0.1, 1.0), "num_steps": (4, 6)}}
    _, points = _plan(_config(runs=(run,), seeds=(0,), evaluation={"stage": "", "steps": ()}))
    assert [point.label for point in points] == [
        "rate=0.1, num_steps=4", "rate=0.1, num_steps=6", "rate=1.0, num_steps=4", "rate=1.0, num_steps=6",
    ]  # fmt: skip


def test_a_run_goes_on_from_another_of_the_same_seed():
    first = {"label": "first", "stage": "tune", "preset": "nano"}
    second = {"label": "second", "stage": "tune", "preset": "nano", "overrides": {"init_from": "{first}"}}
    stages, _ = _plan(_config(runs=(second, first)))
    by_name = {stage.name: stage for stage in stages.values()}
    for seed in (0, 1):
        assert by_name[f"second, seed {seed}"].parents == (by_name[f"first, seed {seed}"].workdir,)


def _one_run(**fields) -> dict:
    return {"runs": ({"label": "a", "stage": "tune", "preset": "nano", **fields},)}


def _one_parent(**fields) -> dict:
    return {"parents": {"base": {"stage": "base", "preset": "nano", "workdir": "", "overrides": {}, **fields}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (_one_run(overrides={"num_step": 3}), r"config\.runs\[0\]: .* tune has no field 'num_step'; .* 'num_steps'"),
        (_one_run(overrides={"decoding": {"top_p": 3}}), r"tune has no field 'decoding\.top_p'"),
        (_one_run(overrides={"num_steps": "many"}), r"num_steps is 6 by default, not of the kind 'many'"),
        (_one_run(overides={}), r"config\.runs\[0\]: unknown field 'overides'; did you mean 'overrides'"),
        (_one_run(stage="tunes"), r"config\.runs\[0\]\.stage: there is no configs/tunes\.py"),
        (_one_run(preset="huge"), r"config\.runs\[0\]\.preset: .*'huge' is not nano"),
        (_one_run(label=""), r"config\.runs\[0\]: '' is no name"),
        (_one_run(label="base"), r"'base' is the label of two"),
        (_one_run(grid={"rate": 0.1}), r"config\.runs\[0\]\.grid\.rate: 0\.1 is no list of values"),
        (_one_run(grid={"rate": (0.1, 0.1)}), r"'a, rate=0\.1' is the label of two"),
        (_one_run(overrides={"init_from": "{bas}"}), r"there is no \{bas\}; did you mean 'base'"),
        (_one_run(overrides={"init_from": "{a}"}), r"\{a, seed 0\} needs \{a, seed 0\}; .* its own ancestor"),
        (_one_parent(overrides={"data": "{base}"}), r"\{base\} needs \{base\}"),
        (_one_parent(workdir="nowhere"), r"config\.parents\.base\.workdir='nowhere': there is no such folder"),
        ({"runs": ()}, r"config\.runs: empty"),
        ({"seeds": (1, 1)}, r"config\.seeds: .* twice"),
        (
            {"evaluation": {"stage": "test", "preset": "nano", "overrides": {"init_from": "{run}"}, "steps": (2,)}},
            r"config\.evaluation\.steps: 2 is none of the checkpoints that slow, seed 0 keeps, 4, 6",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named_at_the_start(changes, message):
    with pytest.raises(InputError, match=message):
        _plan(_config(**changes))


def test_a_checkpoints_number_counts_all_updates(monkeypatch):
    monkeypatch.setitem(STAGES, "tune", STAGES["tune"] | {"updates_per_rollout": 3})
    evaluation = _config().evaluation.to_dict()
    with pytest.raises(InputError, match=r"config\.evaluation\.steps: 4 is none of the .* keeps, 12, 18;"):
        _plan(_config(defaults=STAGES, common=_common(), evaluation=evaluation | {"steps": (4,)}))
    _, points = _plan(_config(defaults=STAGES, common=_common(), evaluation=evaluation | {"steps": (12, 18)}))
    assert {point.step for point in points} == {12, 18}


def test_a_run_that_others_start_from_is_neither_evaluated_nor_shown():
    runs = (
        {"label": "base, long", "stage": "base", "preset": "nano", "overrides": {}, "judged": False},
        {"label": "long", "stage": "tune", "preset": "nano", "overrides": {"init_from": "{base, long}"}},
    )
    stages, points = _plan(_config(runs=runs, evaluation=_config().evaluation.to_dict() | {"steps": ()}))
    names = [stage.name for stage in stages.values()]
    assert names[:3] == ["base, long, seed 0", "long, seed 0", "long, seed 0 evaluated"]
    assert {point.label for point in points} == {"long"}


def test_a_model_that_no_run_trains_is_evaluated_as_it_is():
    runs = ({"label": "as it is", "stage": "", "preset": "", "overrides": {"init_from": "{base}"}},)
    stages, points = _plan(_config(runs=runs, evaluation=_config().evaluation.to_dict() | {"steps": ()}))
    base, test = stages.values()
    assert f"--config.init_from={base.workdir}" in test.command
    assert {point.workdir for point in points} == {test.workdir}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"judged": "no"}, r"judged: 'no' is neither"), ({"stage": ""}, r"stage: empty, so overrides must name")],
)
def test_a_run_that_says_neither_what_is_run_nor_what_is_evaluated_is_named(change, message):
    run = {"label": "one", "stage": "tune", "preset": "nano", "overrides": {}} | change
    with pytest.raises(InputError, match=rf"config\.runs\[0\]\.{message}"):
        _plan(_config(runs=(run,)))
