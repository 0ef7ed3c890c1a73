"""Every notebook runs on folders as its stages leave them, and none is stored with its outputs."""

import html.parser
import importlib
import json
import os
import pathlib
import runpy
from collections.abc import Callable, Iterator

import jupyter_client
import nbclient
import nbformat
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from dsmath.data import problems
from dsmath.evaluation import scores
from dsmath.evaluation.protocols import PROTOCOLS
from dsmath.runs.metrics import MetricsWriter
from dsmath.runs.workdir import write_json

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: pathlib.Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> pathlib.Path:
    """The chain's folder on which the report is tested."""
    write_chain = runpy.run_path(str(ROOT / "tests" / "evaluation" / "test_report.py"))["write_chain"]
    return write_chain(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def folders(chain, checkpoint, tmp_path_factory) -> dict[str, str]:
    """What the notebooks' environment variables name: a chain, a checkpoint, evaluations and sweeps."""
    root = tmp_path_factory.mktemp("looked-at")
    write_mining(chain / "mine")
    write_training(chain / "rl")
    evaluations = [root / name for name in ("before", "after")]
    for folder, accuracy in zip(evaluations, (0.4, 0.7), strict=True):
        write_evaluation(folder, accuracy)
    for name in ("fig5", "fig6", "fig7", "table1"):
        write_sweep(root / "sweeps" / name, name, chain / "rl")
    return {
        "DSMATH_RUN": str(chain),
        "DSMATH_CHECKPOINT": str(checkpoint),
        "DSMATH_EVALUATIONS": ",".join(map(str, evaluations)),
        "DSMATH_SWEEPS": str(root / "sweeps"),
    }


def write_mining(folder: pathlib.Path) -> None:
    """What the corpus notebook reads beside the report."""
    rng = np.random.default_rng(0)
    (folder / "scores").mkdir(parents=True)
    (folder / "domains").mkdir()
    for number in (1, 2, 3):
        table = pyarrow.table({"round": [number] * 200, "score": rng.beta(0.3, 0.5, 200).astype(np.float32)})
        pyarrow.parquet.write_table(table, folder / "scores" / f"round-{number}-docs.parquet")
    domains = {
        "domain": ["mathoverflow.net", "<b>news.org"],
        "pages": [20, 10],
        "collected": [19, 1],
        "share": [0.95, 0.1],
        "is_math": [True, False],
    }
    pyarrow.parquet.write_table(pyarrow.table(domains), folder / "domains" / "round-1.parquet")
    write_json(folder / "classifier-1.json", {"validation": {"precision": 0.9, "recall": 0.8, "f1": 0.85, "auc": 0.95}})
    write_json(folder / "marks" / "round-1.json", ["mathoverflow.net/questions"])


def write_training(folder: pathlib.Path) -> None:
    """The metrics of an RL run, with the spread of its coefficients."""
    fields = ("reward", "accuracy", "kl", "entropy", "zero_variance_groups", "solved", "length", "truncated")
    fields += ("grad_norm", "update_ratio", "rollout_gap", "clip_fraction")
    with MetricsWriter(folder) as writer:
        for step in range(1, 9):
            writer.write(step, {name: step / (place + 10) for place, name in enumerate(fields)})
            writer.write_histogram(step, "gradient_coefficient", [0, step, 2, 0], [-2, -1, 0, 1, 2])


def write_evaluation(folder: pathlib.Path, accuracy: float) -> None:
    """A finished evaluation on embedded problems: verdicts, figures, protocol."""
    rng = np.random.default_rng(int(100 * accuracy))
    rows = []
    for place, record in enumerate(problems.generate("test", 40, seed=1)):
        correct = bool(rng.random() < accuracy)
        answer = record.answer if correct else None if place % 3 else "<script>13"
        rows.append(
            {
                "question_index": place,
                "benchmark": "embedded",
                "mode": "chat",
                "id": f"p{place}",
                "subject": record.source.split("/")[1],
                "level": "",
                "language": record.language,
                "question": record.question,
                "gold": record.answer,
                "prompt_hash": f"{place:04}",
                "completion": f"It is \\boxed{{{answer}}}.",
                "tokens": 9,
                "truncated": answer is None,
                "answer": answer,
                "correct": correct,
                "reason": "right" if correct else "wrong" if answer else "no_answer",
            }
        )
    table = pyarrow.Table.from_pylist(rows)
    (folder / "verdicts").mkdir(parents=True)
    pyarrow.parquet.write_table(table, folder / "verdicts" / "embedded-chat-greedy.parquet")
    figures = {"benchmark": "embedded", "title": "Embedded problems", "mode": "chat"} | scores.summarize(table, None)
    write_json(folder / "result.json", {"grader": "strict", **scores.to_result([figures])})
    write_json(folder / "protocol.json", PROTOCOLS["nano"].record())


def write_sweep(folder: pathlib.Path, name: str, trained: pathlib.Path) -> None:
    """A finished sweep of a ready ablation, with figures that are made up."""
    config = importlib.import_module(f"configs.ablations.{name}").get_config("nano")
    write_json(folder / "config.json", {"stage": "sweep", **json.loads(config.to_json())})
    rng = np.random.default_rng(0)
    rows = []
    for run in config.runs:
        for seed in config.seeds if run.get("judged", True) else ():
            for step in config.evaluation.steps or (None,):
                workdir = folder / "stages" / f"{run['label']}-{seed}-{step}"
                parents = {"init_from": {"workdir": str(trained), "lineage": None}}
                write_json(workdir / "lineage.json", {"parents": parents})
                at_k = {k: float(rng.random()) for k in ("1", "4", "32")}
                result = {"accuracy": float(rng.random()), "pass_at": at_k, "maj_at": at_k}
                result["by_language"] = {"en": {"accuracy": 0.5}, "zh": {"accuracy": 0.25}}
                place = {"label": run["label"], "seed": seed, "step": step, "workdir": str(workdir)}
                rows.append(place | {"result": result})
    write_json(folder / "results.json", rows)


@pytest.fixture(scope="module")
def execute(folders) -> Iterator[Callable[[pathlib.Path], nbformat.NotebookNode]]:
    """Executes a notebook in a kernel that all share: most of a notebook's time is its imports."""
    kernel = jupyter_client.KernelManager()
    kernel.start_kernel(env=os.environ | folders)

    def run(path: pathlib.Path) -> nbformat.NotebookNode:
        notebook = read(path)
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # it must not live on another's names
        resources = {"metadata": {"path": str(ROOT / "notebooks")}}
        client = nbclient.NotebookClient(notebook, km=kernel, timeout=300, resources=resources)
        try:
            client.execute()
        finally:
            client.kc.stop_channels()  # else they ask for the kernel's ports for ever, whoever listens there next
        return notebook

    yield run
    kernel.shutdown_kernel(now=True)


def shown(notebook: nbformat.NotebookNode) -> tuple[list[dict], str]:
    """What the cells display, and what they print."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    return [output.data for output in outputs if "data" in output], printed


EXPECTED = {  # figures, and what is printed
    "corpus": (3, ("3 rounds", "mathoverflow.net", "1 marked paths", "precision 0.90")),
    "training": (2, ("pretrain", "finished")),
    "checkpoint": (4, ("2 layers",)),
    "rl": (4, ("rl: 8 steps",)),
    "evaluation": (2, ("40 problems", "mended", "broken")),
    "fig5": (2, ("seeds [0, 1, 2]",)),
    "fig6": (1, ("2 runs",)),
    "fig7": (1, ("2 runs",)),
    "table1": (1, ("5 runs",)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_notebook_draws_what_its_stages_left(name, execute):
    displayed, printed = shown(execute(ROOT / "notebooks" / f"{name}.ipynb"))
    figures, texts = EXPECTED[name]
    assert len([data for data in displayed if "image/png" in data]) == figures
    for text in texts:
        assert text in printed
    tables = "".join(data.get("text/markdown", "") for data in displayed)
    if name.startswith(("fig", "table")):
        assert tables.startswith("| run |") and " ± " in tables
    page = "".join(data["text/html"] for data in displayed if "text/html" in data)
    assert not Tags(page).count("script")  # what a model wrote is a text


def test_every_notebook_is_executed_here():
    assert sorted([*EXPECTED, "demo"]) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_stored(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert cells
    assert not [cell for cell in cells if cell.outputs or cell.execution_count is not None]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_names_the_kernel_that_everyone_has(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


def test_the_demo_notebook_draws_a_chain(execute):
    displayed, printed = shown(execute(ROOT / "notebooks" / "demo.ipynb"))
    # Rounds, hosts, losses, RL curves, pass@k with maj@k
    assert len([data for data in displayed if "image/png" in data]) == 5
    assert "3 rounds" in printed and "before RL" in printed and "after RL" in printed

    tags = Tags("".join(data["text/html"] for data in displayed if "text/html" in data))
    assert tags.count("tr") == 9  # a head, and four problems of each kind
    assert tags.count("math") > 8  # the boxed answers are typeset
    assert not tags.count("script")


def test_the_demo_notebook_names_what_is_missing(chain, monkeypatch):
    monkeypatch.setenv("DSMATH_RUN", str(chain / "nowhere"))
    notebook = read(ROOT / "notebooks" / "demo.ipynb")
    client = nbclient.NotebookClient(notebook, timeout=120)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=r"report\.json: no such file; run the stage"):
        client.execute()


class Tags(html.parser.HTMLParser):
    """The names of a page's elements."""

    def __init__(self, page: str):
        super().__init__()
        self.names: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)

    def count(self, tag: str) -> int:
        return self.names.count(tag)
