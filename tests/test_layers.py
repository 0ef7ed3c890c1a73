"""Imports go one way; every file is read."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("dsmath", "experiments", "configs")

# A folder may import itself and these.
_DATA = {"runs", "data"}
_MODEL = {"runs", "model"}
_TRAIN = _MODEL | {"train"}
ALLOWED = {
    "runs": set(),
    "data": {"runs"},
    "model": {"runs"},
    "train": _MODEL | _DATA,
    "huggingface": _TRAIN | _DATA,
    "rollout": _TRAIN | _DATA,
    "reward": _TRAIN | _DATA | {"rollout"},
    "rl": _TRAIN | _DATA | {"rollout", "reward"},
    "plan": _TRAIN | {"rollout", "rl"},
    "evaluation": _TRAIN | _DATA | {"rollout", "reward", "sandbox"},
    "serve": _TRAIN | _DATA | {"rollout"},
    "web": _DATA,
    "sandbox": _DATA,
    "launch": {"runs"},
    "view": {"runs"},
}
# What the numerical core may import beyond dsmath and Python's own library.
_BEYOND_CORE = ("daft", "fasttext", "grain", "jinja2", "pyarrow", "sentencepiece", "tensorboardX", "tqdm")
CORE = {"jax", "flax", "optax", "orbax", "ml_collections", "absl", "numpy"}


def _modules() -> dict[str, pathlib.Path]:
    """Every module by its dotted name."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = _modules()


@functools.cache
def _imports(module: str) -> set[str]:
    """The modules that a file imports, wherever in the file, dotted as deep as they are modules of ours."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module`, or `from module import name`
            found |= {name if name in MODULES else node.module for name in names}
    return found


def _folder(module: str) -> str | None:
    """The layer of a module: `model` for dsmath.model.attention; None for the bare package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "dsmath" and len(parts) > 1 else None


def test_there_are_files_to_read():
    assert {"dsmath.model.transformer", "experiments.rl", "configs.rl", "dsmath.web.mine"} <= MODULES.keys()
    assert "dsmath.model.transformer" in _imports("experiments.evaluate")
    assert "dsmath.rl.phases" in _imports("experiments.rl")  # from dsmath.rl import …, phases, …


def test_every_folder_of_the_package_has_a_layer():
    assert {_folder(module) for module in MODULES} - {None} <= ALLOWED.keys()


@pytest.mark.parametrize("module", sorted(module for module in MODULES if _folder(module)))
def test_a_module_imports_only_the_layers_below_it(module):
    layer = _folder(module)
    for name in _imports(module):
        top = name.split(".")[0]
        assert top not in ("experiments", "configs", "tests"), f"{module} imports {name}"
        if top == "dsmath" and _folder(name):
            assert _folder(name) in ALLOWED[layer] | {layer}, f"{module} imports {name}"


def test_the_model_side_and_the_web_side_do_not_meet():
    model_side = {"model", "train", "huggingface", "rollout", "rl", "reward", "evaluation", "serve", "plan"}
    for module in MODULES:
        folders = {_folder(name) for name in _imports(module)}
        if _folder(module) in ("web", "sandbox"):
            assert not folders & model_side, module
        if _folder(module) in model_side:
            assert "web" not in folders, module


@pytest.mark.parametrize("module", sorted(module for module in MODULES if module.split(".")[0] == "configs"))
def test_configs_import_nothing_but_ml_collections_and_each_other(module):
    assert {name.split(".")[0] for name in _imports(module)} <= {"ml_collections", "configs"}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if _folder(m) in ("model", "train", "rollout", "plan")))
def test_the_numerical_core_stands_on_few_libraries(module):
    outside = {name.split(".")[0] for name in _imports(module)} - sys.stdlib_module_names - {"dsmath"}
    assert outside <= CORE


def test_the_numerical_core_runs_on_a_bare_accelerator_image(tmp_path):
    code = f"""
import sys
sys.modules.update(dict.fromkeys({_BEYOND_CORE}))  # importing one of them raises
import dsmath.rollout.engine, dsmath.train.lora, dsmath.train.supervised
from dsmath.runs.metrics import MetricsWriter, read_metrics
with MetricsWriter({str(tmp_path)!r}) as writer:
    writer.write(1, {{"loss": 2.0}})
assert read_metrics({str(tmp_path)!r}) == [{{"step": 1, "loss": 2.0}}]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pip install tensorboardX" in done.stderr


def test_no_module_imports_an_experiment():
    for module in MODULES:
        assert not [name for name in _imports(module) if name.split(".")[0] == "experiments"], module


def test_no_imports_go_in_a_circle():
    graph = {module: _imports(module) & MODULES.keys() for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle
