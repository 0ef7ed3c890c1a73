"""Every notebook runs on a chain's folder, and none is stored with its outputs."""

import html.parser
import pathlib
import runpy

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: pathlib.Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> pathlib.Path:
    """The chain's folder on which the report is tested."""
    write_chain = runpy.run_path(str(ROOT / "tests" / "evaluation" / "test_report.py"))["write_chain"]
    return write_chain(tmp_path_factory.mktemp("runs") / "demo")


def test_there_are_notebooks():
    assert ROOT / "notebooks" / "demo.ipynb" in NOTEBOOKS


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


def test_the_demo_notebook_draws_a_chain(chain, monkeypatch):
    monkeypatch.setenv("DSMATH_RUN", str(chain))
    notebook = read(ROOT / "notebooks" / "demo.ipynb")
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}}
    ).execute()  # a cell that fails raises

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    shown = [output.data for output in outputs if "data" in output]
    # Rounds, hosts, losses, RL curves, pass@k with maj@k
    assert len([data for data in shown if "image/png" in data]) == 5
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "3 rounds" in printed and "before RL" in printed and "after RL" in printed

    tags = Tags("".join(data["text/html"] for data in shown if "text/html" in data))
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
