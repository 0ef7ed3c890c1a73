"""Several processes of one run: what they agree on, and that an error in one of them ends them all."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from dsmath.runs import processes
from dsmath.runs.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
_CONFIG = """
import ml_collections

def get_config():
    return ml_collections.ConfigDict({"fails": -1, "defect": False, "limit": 1})
"""
_DRIVER = """
import pathlib, sys
from dsmath.runs import driver, processes
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress

def run(config, workdir):
    here = processes.index()
    assert config.limit == 1 or processes.count() == 1
    if here == config.fails:
        if config.defect:
            return {"quotient": 1 / 0}
        raise InputError(f"config.fails: process {here} fails; do not")
    with processes.main_first():
        path = pathlib.Path(workdir) / "made"
        found = path.exists()
        if processes.is_main():
            path.write_text("once")
    assert found != processes.is_main()
    processes.barrier()  # where the others wait when one fails
    with Progress(1, "work", "piece") as progress:
        progress.advance()
    told = processes.broadcast({"from": here})
    if processes.is_main() and processes.count() > 1:  # nothing that was told stays in memory
        assert not processes._state().client.key_value_dir_get("dsmath/broadcast")
    long = [[here] * 10_000 * here, "é"]
    gathered = [[len(numbers), sign] for numbers, sign in processes.gather(long)]
    return {"told": told, "gathered": gathered}

driver.main("tiny", run, many_processes=True)
"""

SLURM = {  # what it tells the two processes of one step; JAX makes the port from the job's number
    "SLURM_JOB_ID": str(os.getpid()),
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_NTASKS": "2",
}


@pytest.fixture
def stage(tmp_path):
    """Runs a tiny stage in two processes; (arguments, arguments of process 1 alone) -> the finished processes."""
    (tmp_path / "config.py").write_text(_CONFIG)
    (tmp_path / "stage.py").write_text(_DRIVER)

    def run(*arguments: str, second: tuple[str, ...] = (), slurm: bool = False) -> list[tuple[int, list, list]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        joined = ["--distributed"] if slurm else [f"--coordinator={address}", "--num_processes=2"]
        flags = ["--config=config.py", "--workdir=work", *joined, *arguments]
        started = [
            subprocess.Popen(
                [
                    *(sys.executable, "stage.py", *flags),
                    *([] if slurm else [f"--process_id={index}"]),
                    *(second if index else ()),
                ],
                cwd=tmp_path,
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
                | (SLURM | {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)} if slurm else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]
        ended = [(*process.communicate(timeout=60), process.returncode) for process in started]
        return [(code, out.splitlines(), err.splitlines()) for out, err, code in ended]

    return run


def _told(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("[Gloo]")]  # it tells of its connections


def test_the_first_process_alone_writes_and_speaks(stage, tmp_path):
    (code, out, err), (other_code, other_out, other_err) = stage()
    assert (code, other_code) == (0, 0), (err, other_err)
    assert _told(out)[:2] == ["told: {'from': 0}", "gathered: [[0, 'é'], [10000, 'é']]"]
    assert _told(err)[0].startswith("work: 1/1 piece")
    assert _told(err)[-1].startswith("tiny: finished in")
    assert (_told(other_out), _told(other_err)) == ([], [])
    result = json.loads((tmp_path / "work" / "result.json").read_text())
    assert result["told"] == {"from": 0}
    again = stage()
    assert [(code, _told(err)) for code, _, err in again] == [(0, ["tiny: work is finished; nothing to do"]), (0, [])]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_input_error_in_one_process_ends_both_with_its_line(stage, tmp_path, failing):
    for code, out, err in stage(f"--config.fails={failing}"):
        assert (code, _told(out), _told(err)) == (2, [], [f"error: config.fails: process {failing} fails; do not"])
    assert not (tmp_path / "work" / "result.json").exists()


def test_a_defect_in_one_process_ends_both_and_shows_where_it_is(stage):
    (code, _, err), (other_code, _, other_err) = stage("--config.fails=1", "--config.defect")
    assert (code, other_code) == (1, 1)
    assert _told(err) == ["error: process 1 failed; its output says why, and the same line resumes the run"]
    assert "ZeroDivisionError: division by zero" in other_err


def test_processes_that_slurm_has_started_know_each_other_and_are_refused_with_different_configs(stage):
    for code, _, err in stage(second=("--config.limit=2",), slurm=True):
        assert code == 2
        assert _told(err) == [
            "error: process 0: config.limit is 1 there and 2 in this command; give all processes the same flags"
        ]


def test_a_single_process_agrees_with_itself():
    assert (processes.index(), processes.count(), processes.is_main()) == (0, 1, True)
    assert processes.broadcast([1]) == [1]
    assert processes.gather({"a": 1}) == [{"a": 1}]
    processes.barrier()
    processes.start(None, None, None, detect=False)
    assert processes.count() == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None, 2, 0, False), r"--coordinator: is missing; give --coordinator, --num_processes, --process_id together"),
        (("host:1", None, 0, False), r"--num_processes: is missing"),
        (("host:1", 2, 2, False), r"--process_id: 2 is not between 0 and --num_processes=2"),
        (("host", 2, 1, False), r"--coordinator=host: has no port; give HOST:PORT"),
        ((None, None, None, True), r"--distributed: JAX cannot tell this cluster \(.*\); give --coordinator"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(arguments, named):
    with pytest.raises(InputError, match=named):
        processes.start(*arguments)
