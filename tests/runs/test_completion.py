"""TAB in a shell: drivers, config files, presets, fields."""

import pathlib
import subprocess
import sys

import pytest

from dsmath.runs import completion

_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python -m experiments.sf", ["experiments.sft"]),
        ("python -m experiments.sft --config=", ["--config=configs/sft.py:"]),
        ("python -m experiments.sft --config=configs/r", ["--config=configs/reward.py:", "--config=configs/rl.py:"]),
        ("python -m experiments.sft --config=configs/sft.py:n", ["--config=configs/sft.py:nano"]),
        ("python -m experiments.sft --config.opt", ["--config.optimizer."]),
        ("python -m experiments.sft --config.optimizer.pe", ["--config.optimizer.peak_learning_rate="]),
        ("python -m experiments.sft --wo", ["--workdir="]),
        ("python -m experiments.sft --workdir=dsmath/la", ["--workdir=dsmath/launch/"]),
        ("python -m experiments.sft --config=configs/evaluate.py:7b,", ["--config=configs/evaluate.py:7b,base"]),
        ("python -m experiments.rl --config=configs/rl.py:nano,d", ["--config=configs/rl.py:nano,dpo"]),
        ("python -m experiments.launch --dr", ["--dry_run"]),
        ("python -m experiments.launch --tar", ["--target=", "--target."]),
        ("python -m experiments.launch --target=s", ["--target=slurm", "--target=ssh"]),
        ("python -m experiments.launch --target=gke --target.spo", ["--target.spot="]),
        ("python -m experiments.launch --target=local --target.spo", []),
        ("python -m experiments.rl --config 'configs/rl.py:nano' --config.ppo.dec", ["--config.ppo.decay="]),
        ("python -m experiments.sft --config configs/sft.py:n", ["configs/sft.py:nano"]),
        ("python -m experiments.view --p", ["--port="]),
        ("python -m experiments.view --config", []),
        ("python setup.py --config.", []),
    ],
)
def test_words_that_fit(line, expected):
    assert completion.complete(line, _ROOT) == expected


def test_fields_are_those_of_the_config_that_the_line_names():
    line = "python -m experiments.plan --config=configs/rl.py:nano --config.ppo.d"
    assert completion.complete(line, _ROOT) == ["--config.ppo.discount=", "--config.ppo.decay="]


def test_bash_completes_behind_colons_and_equals_signs(tmp_path):
    script = tmp_path / "try.sh"
    script.write_text(
        completion.shell_script("bash")
        + 'COMP_LINE="python -m experiments.sft --config=configs/sft.py:n"; COMP_POINT=${#COMP_LINE}\n'
        + f'COMP_WORDS=("{sys.executable}" -m experiments.sft --config = configs/sft.py : n); COMP_CWORD=7\n'
        + '_dsmath; printf "<%s>" "${COMPREPLY[@]}"\n'
    )
    ran = subprocess.run(["bash", script], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "<nano>"
