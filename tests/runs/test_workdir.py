"""A stage's folder: files appear whole, one config owns it, one process works in it."""

import hashlib
import json
import subprocess
import sys

import ml_collections
import pytest

from dsmath.runs import workdir
from dsmath.runs.errors import InputError


def _config(**fields) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"seed": 0, "model": {"width": 32}, **fields})


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    workdir.write_atomically(path, "one")
    workdir.write_atomically(path, "两\n".encode())
    assert path.read_text(encoding="utf-8") == "两\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_atomic_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    workdir.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        workdir.write_atomically(path, "\ud800")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        workdir.write_atomically(tmp_path / "taken", "a folder is in the way")
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file.txt", "taken"]


def test_the_same_config_opens_a_workdir_again(tmp_path):
    folder = workdir.open_workdir(tmp_path / "run", _config(), "sft")
    assert workdir.open_workdir(tmp_path / "run", _config(), "sft") == folder
    assert json.loads((folder / "config.json").read_text()) == {"stage": "sft", "seed": 0, "model": {"width": 32}}


@pytest.mark.parametrize(
    ("config", "stage", "named"),
    [
        (_config(seed=1), "sft", r"config\.json: config\.seed is 0 there and 1 in this command"),
        (_config(model={"width": 64}), "sft", r"config\.model\.width is 32 there and 64"),
        (_config(extra=1), "sft", r"config\.extra is None there and 1"),
        (_config(), "rl", r"config\.stage is 'sft' there and 'rl'"),
    ],
)
def test_a_workdir_of_another_config_or_stage_is_refused(tmp_path, config, stage, named):
    workdir.open_workdir(tmp_path, _config(), "sft")
    workdir.write_lineage(tmp_path)
    with pytest.raises(InputError, match=named):
        workdir.open_workdir(tmp_path, config, stage)


def test_a_start_that_failed_leaves_the_workdir_to_the_corrected_config(tmp_path):
    workdir.open_workdir(tmp_path, _config(seed=1), "sft")
    workdir.open_workdir(tmp_path, _config(seed=2), "sft")
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2


def test_a_parent_that_has_not_finished_is_refused(tmp_path):
    workdir.open_workdir(tmp_path, _config(), "sft")
    with pytest.raises(InputError, match=r"config\.init_from=.*has not finished"):
        workdir.require_finished(tmp_path, "config.init_from")
    workdir.write_result(tmp_path, {})
    workdir.require_finished(tmp_path, "config.init_from")
    workdir.require_finished(tmp_path / "plain", "config.corpus")  # a folder of data, no stage's


def test_a_workdir_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="name a folder"):
        workdir.open_workdir(tmp_path / "file", _config(), "sft")
    with pytest.raises(InputError, match="--workdir"):
        workdir.open_workdir("", _config(), "sft")
    with pytest.raises(InputError, match="--workdir=gs://bucket/run: is no folder; mount the bucket"):
        workdir.open_workdir("gs://bucket/run", _config(), "sft")


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"stage": ')
    workdir.write_lineage(tmp_path)
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        workdir.open_workdir(tmp_path, _config(), "sft")
    with pytest.raises(InputError, match=r"absent\.json: no such file"):
        workdir.read_json(tmp_path / "absent.json")


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    program = (
        "import sys; from dsmath.runs.workdir import lock_workdir\n"
        f"with lock_workdir({str(tmp_path)!r}): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another process works there"), workdir.lock_workdir(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with workdir.lock_workdir(tmp_path):
        pass


def test_result_marks_a_finished_stage(tmp_path):
    assert workdir.read_result(tmp_path) is None
    workdir.write_result(tmp_path, {"loss": 0.5, "note": "中文"})
    assert workdir.read_result(tmp_path) == {"loss": 0.5, "note": "中文"}


def test_lineage_names_parents_and_data_by_their_content_and_keeps_its_start(tmp_path):
    parent, child, data = tmp_path / "parent", tmp_path / "child", tmp_path / "data.txt"
    data.write_bytes(b"text")
    workdir.write_lineage(parent)
    for step in ("10", "20", "30.orbax-checkpoint-tmp"):
        (parent / "checkpoints" / step).mkdir(parents=True)
    workdir.write_lineage(child, parents={"init_from": parent, "corpus": tmp_path}, data=[data])
    record = json.loads((child / "lineage.json").read_text())
    lineage = hashlib.sha256((parent / "lineage.json").read_bytes()).hexdigest()[:16]
    assert record["parents"]["init_from"] == {"workdir": str(parent), "lineage": lineage, "step": 20}
    assert record["parents"]["corpus"]["lineage"] is None
    assert record["data"] == {str(data): hashlib.sha256(b"text").hexdigest()[:16]}

    workdir.write_lineage(child, parents={"init_from": parent, "corpus": tmp_path}, data=[data])
    data.write_bytes(b"changed")
    with pytest.raises(InputError, match=r"data\.txt has changed since this run began"):
        workdir.write_lineage(child, data=[data])
    assert json.loads((child / "lineage.json").read_text()) == record
