"""What a conversion needs in memory, and what kills at any moment leave behind."""

import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import require_finished
from dsmath.train.checkpoint import read_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
LARGE = {"vocab_size": 16000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16}
FILES = 8

# The peak of each direction over what stands when it starts; a small conversion goes before, which loads everything.
_MEASURE = """
import pathlib, sys
from experiments.convert import bring_in, bring_out

def memory(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def convert(source, folder, size):
    numerics = {"remat": "none", "attention": "xla"}
    for move in (
        lambda: bring_in(source, folder / "workdir", dtype="keep", numerics=numerics),
        lambda: bring_out(folder / "workdir", folder / "back", dtype="keep", max_shard_size=size, length=0),
    ):
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = memory("VmRSS")
        move()
        print("peak", memory("VmHWM") - before)

small, large, folder = map(pathlib.Path, sys.argv[1:4])
convert(small, folder / "small", int(sys.argv[4]))
convert(large, folder / "large", int(sys.argv[4]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="this kernel does not tell the peak")
def test_a_conversion_needs_no_more_memory_than_two_files_and_a_layer(make_checkpoint, read_tensors, tmp_path):
    small, _ = make_checkpoint("qwen2", "bfloat16")
    large, tensors = make_checkpoint("llama2", "bfloat16", parts=FILES, fields=LARGE)
    size = max(file.stat().st_size for file in large.glob("*.safetensors"))
    layer = sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith("model.layers.0."))
    command = [sys.executable, "-c", _MEASURE, small, large, tmp_path, str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak")][2:]
    print(f"in, out: {[peak >> 20 for peak in peaks]} MiB; a file {size >> 20} MiB, a layer {layer >> 20} MiB")
    assert max(peaks) <= 2 * size + layer
    back = read_tensors(tmp_path / "large" / "back")
    assert back.keys() == tensors.keys()
    assert all(back[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())


def _convert(source: str, target: str) -> list[str]:
    return [sys.executable, "-m", "experiments.convert", f"--from={source}", f"--to={target}"]


def _kill_at(command: list[str], seconds: float, folder: pathlib.Path) -> bool:
    """Starts the command and kills it so long after it began to write; whether it had not ended by then."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not folder.exists():
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_half_of_a_checkpoint(make_checkpoint, read_tensors, tmp_path):
    folder, tensors = make_checkpoint("llama2", "bfloat16", parts=4, fields=LARGE | {"num_hidden_layers": 4})
    workdir, back = tmp_path / "workdir", tmp_path / "back"
    rng = random.Random(0)
    killed = 0
    for _ in range(6):
        shutil.rmtree(workdir, ignore_errors=True)
        killed += _kill_at(_convert(f"hf:{folder}", f"orbax:{workdir}"), rng.uniform(0, 2), workdir)
        if not (workdir / "result.json").exists():
            with pytest.raises(InputError):
                require_finished(workdir, "config.init_from")
        if not list(workdir.glob("checkpoints/0")):
            with pytest.raises(InputError):
                read_model(workdir)
    subprocess.run(_convert(f"hf:{folder}", f"orbax:{workdir}"), cwd=ROOT, check=True)
    for _ in range(6):
        shutil.rmtree(back, ignore_errors=True)
        killed += _kill_at(_convert(f"orbax:{workdir}", f"hf:{back}"), rng.uniform(0, 1), tmp_path / ".back.partial")
        if back.exists():
            assert set(read_tensors(back)) == set(tensors)
    subprocess.run(_convert(f"orbax:{workdir}", f"hf:{back}"), cwd=ROOT, check=True)
    assert killed >= 6
    found = read_tensors(back)
    assert found.keys() == tensors.keys()
    assert all(found[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())
