import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from dsmath.data import problems
from dsmath.evaluation import report
from dsmath.runs import formulas
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import fingerprint

ATTACK = "<script>alert(1)</script>"
KS = (1, 2, 4, 8, 16)
QUESTIONS, SAMPLES = 300, 16


def write_json(path: pathlib.Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_metrics(folder: pathlib.Path, columns: dict[str, np.ndarray]) -> None:
    count = len(next(iter(columns.values())))
    records = [{name: round(float(values[i]), 5) for name, values in columns.items()} for i in range(count)]
    lines = [json.dumps({"step": 5 * (i + 1), **record}) for i, record in enumerate(records)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_mine(folder: pathlib.Path, rng: np.random.Generator) -> None:
    names = "sympy mpmath scipy numpy networkx jax optax flax python requests jinja2 tqdm absl docutils daft pyarrow"
    hosts = []
    for i, name in enumerate(names.split()):
        pages = int(rng.integers(60, 480))
        share = rng.uniform(0.35, 0.9) if i < 8 else rng.uniform(0, 0.08)
        hosts.append({"host": f"{name}.docs.invalid", "pages": pages, "collected": int(pages * share)})
    hosts.append({"host": f"{ATTACK}.invalid", "pages": 12, "collected": 0})
    collected = sum(host["collected"] for host in hosts)
    rounds = [
        {
            "round": i + 1,
            "positives": positives,
            "negatives": positives,
            "collected": int(collected * share),
            "already_collected": already,
            "math_domains": domains,
            "new_positives": new,
            "threshold": 0.62,
        }
        for i, (positives, share, already, domains, new) in enumerate(
            [(400, 0.71, None, 5, 310), (710, 0.93, 0.74, 8, 96), (806, 1.0, 0.981, 8, 0)]
        )
    ]
    page = (
        "The Gamma function extends the factorial: $\\Gamma(n) = (n-1)!$ for positive integers, and in general "
        "\\[\\Gamma(z) = \\int_0^\\infty t^{z-1} e^{-t} dt.\\] A broken one: $\\frac{1$ and a price of $5 or $6."
    )
    write_json(
        folder / "mine" / "report.json",
        {
            "input": "crawl/*.warc.gz",
            "pages": sum(host["pages"] for host in hosts) + 260,
            "skipped": {"no_text": 31, "not_html": 12, "damaged_record": 2, "timeout": 1},
            "duplicates": {"url": 57, "exact": 91, "near": 67},
            "unique": sum(host["pages"] for host in hosts),
            "rounds": rounds,
            "ended": "stop_share",
            "collected": collected,
            "corpus_characters": 5_213_904,
            "contaminated": 14,
            "hosts": hosts,
            "examples": [
                {"url": "https://mpmath.docs.invalid/functions/gamma.html", "score": 0.991, "text": page},
                {
                    "url": "javascript:alert(1)",
                    "score": 0.7,
                    "text": f"Sets {ATTACK} and $\\text{{{ATTACK}}}$ and more.",
                },
            ],
        },
    )


def write_training(folder: pathlib.Path, rng: np.random.Generator, speed: float) -> None:
    def noise(count: int, scale: float) -> np.ndarray:
        return rng.normal(0, scale, count)

    for stage, count, start, end in (("pretrain", 160, 7.2, 2.1), ("sft", 90, 2.4, 0.19)):
        x = np.linspace(0, 1, count)
        write_metrics(
            folder / stage,
            {
                "loss": end + (start - end) * np.exp(-5 * x) + noise(count, 0.02 * start),
                "learning_rate": np.interp(x, [0, 0.1, 0.8, 0.81, 1], [0, 1e-3, 1e-3, 3e-4, 3e-4]),
                "grad_norm": 1 + np.abs(noise(count, 0.3)),
                "tokens_per_second": speed * (9000 + noise(count, 200)),
            },
        )
    x = np.linspace(0, 1, 80)
    write_metrics(
        folder / "rl",
        {
            "reward": 0.38 + 0.27 * (1 - np.exp(-3 * x)) + noise(80, 0.03),
            "reward_std": 0.45 - 0.1 * x,
            "kl": 0.06 * x**1.5 + np.abs(noise(80, 0.002)),
            "clip_fraction": np.zeros(80),
            "entropy": 0.42 * np.exp(-1.2 * x) + noise(80, 0.01),
            "truncated": np.clip(0.03 * np.exp(-4 * x) + noise(80, 0.004), 0, 1),
            "length": 24 + 9 * x + noise(80, 0.8),
            "loss": noise(80, 0.002),
            "grad_norm": 0.5 + np.abs(noise(80, 0.1)),
            "zero_variance_groups": 0.25 + 0.3 * x + noise(80, 0.04),
            "seconds": speed * 2 * np.ones(80),
        },
    )


def write_evaluation(folder: pathlib.Path, skill: float, sharpness: float, speed: float) -> None:
    """A model that solves question i with a chance drawn from a beta distribution."""
    records = problems.generate("test", QUESTIONS, seed=1)
    chances = np.random.default_rng(5).beta(skill * sharpness, (1 - skill) * sharpness, QUESTIONS)
    rng = np.random.default_rng(int(1000 * skill))
    right = rng.random((QUESTIONS, SAMPLES)) < chances[:, None]
    greedy = chances + rng.normal(0, 0.15, QUESTIONS) > 0.5
    greedy_rows = []
    for record, correct in zip(records, greedy, strict=True):
        answer = record.answer if correct else "13"
        typed = answer if "/" not in answer else "\\frac{{{}}}{{{}}}".format(*answer.split("/"))
        text = f"First 3+4=7. Then 7*2={typed}. The answer is \\boxed{{{typed}}}."
        greedy_rows.append((record.question, record.answer, record.language, text, answer, bool(correct)))
    wrong = np.flatnonzero(~greedy)
    greedy_rows[wrong[0]] = (*greedy_rows[wrong[0]][:4], None, False)
    names = ("question", "gold", "language", "completion", "answer", "correct")
    (folder / "verdicts").mkdir(parents=True, exist_ok=True)
    table = {name: [row[i] for row in greedy_rows] for i, name in enumerate(names)}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "verdicts" / "embedded-chat-greedy.parquet")
    sampled = {
        "question_index": np.repeat(np.arange(QUESTIONS), SAMPLES),
        "sample_index": np.tile(np.arange(SAMPLES), QUESTIONS),
        "completion": ["…"] * (QUESTIONS * SAMPLES),
        "answer": ["1"] * (QUESTIONS * SAMPLES),
        "correct": right.ravel(),
    }
    pyarrow.parquet.write_table(pyarrow.table(sampled), folder / "verdicts" / "embedded-chat-samples.parquet")
    accuracy = float(greedy.mean())
    by_language = {
        language: np.array(
            [correct for record, correct in zip(records, greedy, strict=True) if record.language == language]
        )
        for language in ("en", "zh")
    }
    write_json(
        folder / "result.json",
        {
            "results": [{"benchmark": "embedded", "mode": "chat"}],
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.055,
            "accuracy_high": accuracy + 0.055,
            "pass_at": {str(k): float((1 - (1 - chances) ** k).mean()) for k in KS},
            "maj_at": {str(k): float(chances.mean() + (accuracy - chances.mean()) * np.log2(k) / 4) for k in KS},
            "no_answer": 0.02,
            "truncated": 0.013,
            "questions": QUESTIONS,
            "samples": SAMPLES,
            "by_language": {
                language: {"accuracy": float(rights.mean()), "questions": len(rights)}
                for language, rights in by_language.items()
            },
            "seconds": 33.3 * speed,
        },
    )


def write_chain(folder: pathlib.Path, speed: float = 1.0, code: str = "0.1.0+abc1234") -> pathlib.Path:
    """A chain's folder as a run of the demo leaves it; `speed` and `code` are what differs between machines."""
    rng = np.random.default_rng(0)
    write_mine(folder, rng)
    write_json(
        folder / "tokenizer" / "result.json", {"vocab_size": 2048, "characters_per_token": 3.41, "seconds": speed}
    )
    write_training(folder, rng, speed)
    write_evaluation(folder / "evaluate_sft", 0.40, 1.6, speed)
    write_evaluation(folder / "evaluate_rl", 0.58, 0.9, speed)
    figures = {
        "mine": {"pages": 4000},
        "pretrain": {"tokens": 1_638_400},
        "sft": {"examples": 9000},
        "rl": {"samples": 40_960},
    }
    for stage, result in figures.items():
        write_json(folder / stage / "result.json", {**result, "pages_per_second": speed, "seconds": 95.5 * speed})
    parent = None
    for stage in report.STAGES:
        config = {"stage": stage, "seed": 0, "problems": "embedded", "model": {"layers": 4, "width": 128}}
        write_json(folder / stage / "config.json", config)
        parents = {}
        if parent:
            lineage = fingerprint(folder / parent / "lineage.json")
            parents = {"init_from": {"workdir": str(folder / parent), "lineage": lineage}}
        files = 5 if stage == "pretrain" else 1
        data = {str(folder / "mine" / "corpus" / f"part-{i}.parquet"): f"{i:016x}" for i in range(files)}
        write_json(folder / stage / "lineage.json", {"parents": parents, "data": data, "code": code})
        if not stage.startswith("evaluate"):
            parent = stage
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> pathlib.Path:
    """A finished chain with its report."""
    folder = write_chain(tmp_path_factory.mktemp("runs") / "demo")
    report.write_report(folder)
    return folder


@pytest.fixture
def copy(chain, tmp_path) -> pathlib.Path:
    """The chain's files, to be damaged."""
    return pathlib.Path(shutil.copytree(chain, tmp_path / "demo"))


def page(folder: pathlib.Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def summary(folder: pathlib.Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


class Elements(html.parser.HTMLParser):
    """Every element's attributes, and the texts of the elements."""

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_summary_has_the_chain_s_numbers(chain):
    numbers = summary(chain)
    evaluated = json.loads((chain / "evaluate_rl" / "result.json").read_text())
    mined = json.loads((chain / "mine" / "report.json").read_text())
    last = json.loads((chain / "pretrain" / "metrics.jsonl").read_text().splitlines()[-1])
    rewarded = json.loads((chain / "rl" / "metrics.jsonl").read_text().splitlines()[-1])
    assert numbers["mine"]["pages"] == mined["pages"]
    assert numbers["mine"]["collected"] == mined["collected"]
    assert numbers["mine"]["rounds"] == 3
    assert numbers["mine"]["skipped"] == mined["skipped"]
    assert numbers["tokenizer"] == {"vocab_size": 2048, "characters_per_token": 3.41}
    assert numbers["pretrain"]["loss"] == last["loss"]
    assert numbers["pretrain"]["result"]["tokens"] == 1_638_400
    assert {"loss", "accuracy", "pass_at_16", "maj_at_16", "pass_at", "maj_at"} <= numbers["sft"].keys()
    assert numbers["rl"]["accuracy"] == evaluated["accuracy"]
    assert numbers["rl"]["pass_at_16"] == evaluated["pass_at"]["16"]
    assert numbers["rl"]["maj_at_16"] == evaluated["maj_at"]["16"]
    assert numbers["rl"]["maj_at"] == evaluated["maj_at"]
    assert numbers["rl"]["reward"] == rewarded["reward"]
    assert numbers["seconds"].keys() == {*report.STAGES, "total"}
    total = sum(seconds for stage, seconds in numbers["seconds"].items() if stage != "total")
    assert numbers["seconds"]["total"] == pytest.approx(total)
    assert list(numbers) == sorted(numbers)


def test_summary_differs_between_machines_in_seconds_alone(chain, tmp_path):
    slow = write_chain(tmp_path / "elsewhere", speed=3.0, code="0.2.0+other")
    report.write_report(slow)
    one, other = summary(chain), summary(slow)
    assert one.pop("seconds") != other.pop("seconds")
    assert one == other


def test_page_says_why_the_rounds_of_mining_ended(chain, tmp_path):
    assert "collected almost nothing that the round before had not" in page(chain)
    bounded = write_chain(tmp_path / "bounded")
    record = json.loads((bounded / "mine" / "report.json").read_text())
    write_json(bounded / "mine" / "report.json", record | {"ended": "max_rounds"})
    report.write_report(bounded)
    assert "ended at the most that the config allows" in page(bounded)


def test_report_is_the_same_when_written_again(chain):
    before = page(chain), (chain / "summary.json").read_bytes()
    report.write_report(chain)
    assert (page(chain), (chain / "summary.json").read_bytes()) == before


def test_page_is_one_balanced_document_that_fetches_nothing(chain):
    parsed = Elements(page(chain))
    assert parsed.open == []
    assert "default-src 'none'" in page(chain)
    tags = {tag for tag, _ in parsed.elements}
    assert {"svg", "math", "table", "figure"} <= tags
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in parsed.elements:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")}
        assert (attributes.get("href") or "#").startswith("#")
    identifiers = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r"url\(#([^)]+)\)", page(chain))) <= set(identifiers)


def test_markup_in_untrusted_texts_is_escaped(copy):
    path = copy / "evaluate_rl" / "verdicts" / "embedded-chat-greedy.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    attacks = [
        ATTACK,
        f"\\boxed{{\\text{{{ATTACK}}}}}",
        "$\\href{javascript:alert(1)}{x}$",
        f"${ATTACK}$",
        '"><img src=x>',
    ]
    for i, row in enumerate(rows):
        row["completion"], row["answer"], row["gold"] = attacks[i % 5], ATTACK, ATTACK
        row["language"] = '"><script>alert(2)</script>'
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    report.write_report(copy)
    parsed = Elements(page(copy))
    assert not {tag for tag, _ in parsed.elements} & {"script", "img"}
    assert not [attributes for _, attributes in parsed.elements if "javascript" in (attributes.get("href") or "")]
    assert ATTACK in "".join(parsed.texts)
    assert "&lt;script&gt;alert(1)" in page(copy)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "<mfrac>"),
        ("$x^2$", "<msup>"),
        ("\\(\\sqrt{2}\\)", "<msqrt>"),
        ("it costs $5 and $6, a<b", "it costs $5 and $6, a&lt;b"),
        ("$\\frac{1$", "$\\frac{1$"),
        ("$\\nosuchcommand{1}$", "$\\nosuchcommand{1}$"),
        ("$\\text{<b>x</b>}$", "$\\text{&lt;b&gt;x&lt;/b&gt;}$"),
        ("$\\style{position:fixed}{x}$", "$\\style{position:fixed}{x}$"),
    ],
)
def test_formulas_are_typeset_where_they_parse(text, shown):
    assert shown in formulas.typeset(text)


def test_long_texts_are_cut():
    assert formulas.typeset("a" * 1000, limit=10) == "aaaaaaaaaa …"


@pytest.mark.parametrize("stage", report.STAGES)
def test_missing_stage_reads_not_run(chain, copy, stage):
    assert "not run" not in page(chain)
    shutil.rmtree(copy / stage)
    report.write_report(copy)
    parsed = Elements(page(copy))
    assert parsed.open == []
    assert "not run" in "".join(parsed.texts)
    numbers = summary(copy)
    assert stage not in numbers["seconds"]
    assert stage not in numbers or stage in ("sft", "rl")
    lost = {"evaluate_rl": ("rl", "accuracy"), "evaluate_sft": ("sft", "accuracy"), "sft": ("sft", "loss")}
    if stage in lost:
        section, key = lost[stage]
        assert key not in numbers[section]


def test_a_run_without_a_reference_has_no_kl(copy, tmp_path):
    path = copy / "rl" / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in one.items() if k != "kl"}) + "\n" for one in records))
    report.write_report(copy)
    report.write_curves_png(copy, tmp_path / "curves.png")
    assert "Distance from the reference" not in page(copy)
    assert "Entropy of the policy" in page(copy)


def test_running_stage_shows_its_records(copy):
    (copy / "rl" / "result.json").unlink()
    path = copy / "rl" / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])  # a kill in the middle of a line
    report.write_report(copy)
    assert "Not finished" in page(copy)
    assert summary(copy)["rl"]["last"]["step"] == 395


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_line(path: pathlib.Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "{{", *lines[4:]]) + "\n")


def drop_reward(path: pathlib.Path) -> None:
    path.write_text(path.read_text().replace('"reward"', '"prize"'))


def drop_accuracy(path: pathlib.Path) -> None:
    path.write_text(path.read_text().replace('"accuracy"', '"correctness"'))


def drop_column(path: pathlib.Path) -> None:
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop(["correct"]), path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("mine/report.json", cut, "report.json: not JSON"),
        ("sft/metrics.jsonl", damage_line, "metrics.jsonl:4: not JSON"),
        ("sft/metrics.jsonl", cut, "metrics.jsonl:"),
        ("rl/metrics.jsonl", drop_reward, "metrics.jsonl:1: field 'reward'"),
        ("evaluate_sft/result.json", drop_accuracy, "result.json: field 'accuracy'"),
        ("evaluate_rl/verdicts/embedded-chat-greedy.parquet", cut, "greedy.parquet: damaged Parquet"),
        ("evaluate_rl/verdicts/embedded-chat-samples.parquet", drop_column, "samples.parquet: column 'correct'"),
        ("pretrain/lineage.json", cut, "lineage.json: not JSON"),
    ],
)
def test_damaged_file_is_named(copy, name, damage, message):
    damage(copy / name)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        report.write_report(copy)
    assert "\n" not in str(raised.value)
    assert "again" in str(raised.value)


@pytest.mark.parametrize(
    "write", [report.write_report, lambda folder: report.write_curves_png(folder, folder / "x.png")]
)
def test_folder_without_stages_is_refused(tmp_path, write):
    with pytest.raises(InputError, match="name a pipeline's workdir"):
        write(tmp_path / "nowhere")


def test_solutions_of_both_models_stand_side_by_side(chain):
    solutions = report._pick_solutions(report._read_chain(chain).evaluations)
    outcomes = [tuple(row["correct"] for row in rows) for rows in solutions["shown"]]
    assert len([outcome for outcome in outcomes if len(set(outcome)) == 2]) == 8
    assert (True, True) in outcomes and (False, False) in outcomes
    assert all(before["question"] == after["question"] for before, after in solutions["shown"])
    assert sum(solutions["counts"].values()) == QUESTIONS
    text = "".join(Elements(page(chain)).texts)
    assert "✓ right" in text and "✗ wrong" in text


def test_an_evaluations_own_page_is_linked(chain, copy):
    assert "evaluate_rl/report.html" not in page(chain)
    (copy / "evaluate_rl" / "report.html").write_text("<!doctype html>")
    report.write_report(copy)
    links = [attributes["href"] for tag, attributes in Elements(page(copy)).elements if tag == "a"]
    assert "evaluate_rl/report.html" in links
    assert "evaluate_sft/report.html" not in links


def test_changed_parent_is_marked(chain, tmp_path):
    assert "has changed since" not in page(chain)
    assert page(chain).count("✓ unchanged") == len(report.STAGES) - 1
    folder = write_chain(tmp_path / "demo")
    write_json(folder / "sft" / "lineage.json", {"parents": {}, "data": {}, "code": "0.9"})
    report.write_report(folder)
    assert page(folder).count("✗ has changed since") == 2  # evaluate_sft and rl started from it


def test_other_k_than_16(copy):
    for stage in ("evaluate_sft", "evaluate_rl"):
        path = copy / stage / "result.json"
        result = json.loads(path.read_text())
        for name in ("pass_at", "maj_at"):
            result[name] = {"1": 0.3, "4": 0.5}
        write_json(path, result)
    report.write_report(copy)
    assert summary(copy)["rl"]["pass_at_4"] == 0.5
    assert "pass_at_16" not in summary(copy)["rl"]
    assert "maj@4" in page(copy)


def test_clip_fraction_is_drawn_where_it_is_not_zero(chain, copy):
    assert "0 by construction" in page(chain)
    assert "Clipped tokens" not in page(chain)
    path = copy / "rl" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"clip_fraction": 0.0', '"clip_fraction": 0.02'))
    report.write_report(copy)
    assert "Clipped tokens" in page(copy)


def test_curves_png_is_small(chain, tmp_path):
    report.write_curves_png(chain, tmp_path / "curves.png")
    with PIL.Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width >= 1200
        assert len(set(image.convert("RGB").resize((200, 100)).getdata())) > 20  # something is drawn
    assert (tmp_path / "curves.png").stat().st_size <= 120_000


def test_curves_png_draws_what_is_there(copy, tmp_path):
    for stage in ("mine", "rl", "evaluate_sft", "evaluate_rl"):
        shutil.rmtree(copy / stage)
    report.write_curves_png(copy, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_report_loads_no_model():
    code = "import dsmath.evaluation.report, sys; sys.exit(bool({'jax', 'flax', 'daft', 'torch'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":  # a look at the page
    for path in report.write_report(write_chain(pathlib.Path(sys.argv[1]))):
        print(path)
    report.write_curves_png(sys.argv[1], pathlib.Path(sys.argv[1]) / "curves.png")
