"""Mining a tiny crawl from end to end: what is collected, what stands on disk, kills, bad input."""

import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from absl import flags
from fastwarc.stream_io import GzipWriter
from fastwarc.warc import WarcRecord, WarcRecordType
from ml_collections import config_flags

from configs.mine import PRESETS, get_config
from dsmath.runs import driver
from dsmath.runs.errors import InputError, Paused
from dsmath.web import crawl, library_docs, mine, seed, validation
from dsmath.web.engine import Engine
from dsmath.web.language import detect_language
from dsmath.web.paths import read_marked_paths
from experiments.mine import FREE, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ["the", "of", "and", "with", "from", "that", "which", "where", "here", "there", "page", "text", "over"]
ANALYSIS = ["integral", "derivative", "limit", "function", "continuous", "series", "theorem", "proof", "bounded"]
ALGEBRA = ["group", "ring", "ideal", "module", "homomorphism", "kernel", "quotient", "lattice", "functor", "morphism"]
NEWS = ["minister", "election", "market", "football", "weather", "police", "concert", "harbour", "budget", "village"]
QUESTION = "A farmer sells eleven baskets of plums at four coins each and buys two hens how many coins remain"


def _text(rng: random.Random, words: list[str]) -> str:
    return " ".join(rng.choices(words + SHARED, k=80))


def _crawl() -> list[tuple[str, str]]:
    """Pages: analysis is near the seed, algebra is not but shares its host and is marked, news is neither."""
    rng = random.Random(0)
    pages = [(f"https://math.example.org/analysis/{n}", _text(rng, ANALYSIS)) for n in range(25)]
    pages += [(f"https://math.example.org/algebra/{n}", _text(rng, ALGEBRA)) for n in range(20)]
    pages += [(f"https://news.example.co.uk/{n}", _text(rng, NEWS)) for n in range(75)]
    first, near = pages[0][1], pages[1][1]
    pages += [
        ("http://math.example.org:80/analysis/0#top", first),
        ("https://mirror.example.net/a-copy-of-the-first-page", first),
        ("https://mirror.example.net/nearly-the-second-page", near.rsplit(" ", 1)[0] + " changed"),
        (
            "https://math.example.org/analysis/question",
            f"{_text(rng, ANALYSIS)}\n\n{QUESTION}\n\n{_text(rng, ANALYSIS)}",
        ),
        ("https://news.example.co.uk/short", "too short"),
    ]
    return pages


def _write_warc(path: pathlib.Path, pages: list[tuple[str, str]]) -> None:
    content = io.BytesIO()
    for url, text in pages:
        record = WarcRecord()
        record.init_headers(record_type=WarcRecordType.response)
        record.headers["WARC-Target-URI"] = url
        record.headers["Content-Type"] = "application/http; msgtype=response"
        body = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
        html = f"<html><body>{body}</body></html>".encode()
        record.set_bytes_content(b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html)
        writer = GzipWriter(content)  # a new one for each record
        record.write(writer)
        writer.close()
    path.write_bytes(content.getvalue())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> pathlib.Path:
    """A folder with a crawl, a seed, marks and a benchmark."""
    folder = tmp_path_factory.mktemp("inputs")
    pages = _crawl()
    for number in range(3):
        _write_warc(folder / f"crawl-{number}.warc.gz", pages[number::3])
    rng = random.Random(2)
    (folder / "seed.jsonl").write_text("".join(json.dumps({"text": _text(rng, ANALYSIS)}) + "\n" for _ in range(40)))
    (folder / "marks.json").write_text('["math.example.org/algebra"]')
    (folder / "bench.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "42"}) + "\n")
    return folder


def _config(inputs: pathlib.Path):
    config = get_config("nano")
    config.input = f"{inputs}/crawl-*.warc.gz"
    config.seed_texts = f"{inputs}/seed.jsonl"
    config.marked_paths = f"{inputs}/marks.json"
    config.benchmarks = f"{inputs}/bench.jsonl"
    config.negatives, config.embedded_negatives = 60, False
    config.min_score, config.max_share = 0.05, 0.5
    config.classifier.epochs = 40
    config.validation_folds = 0
    config.workers = 1
    return config


def _arguments(config, workdir: pathlib.Path) -> list[str]:
    """The command line of a run with this config."""
    fields = (
        "input", "seed_texts", "marked_paths", "benchmarks", "negatives", "embedded_negatives", "min_score",
        "max_share", "validation_folds", "workers", "engine", "annotation", "classifier_file",
    )  # fmt: skip
    overrides = [f"--config.{name}={config[name]}" for name in fields]
    return [
        sys.executable, "-m", "experiments.mine", "--config=configs/mine.py:nano", f"--workdir={workdir}", *overrides,
        f"--config.classifier.epochs={config.classifier.epochs}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory) -> pathlib.Path:
    """The workdir of an unbroken run."""
    workdir = tmp_path_factory.mktemp("mine") / "run"
    driver.run_stage("mine", run, _config(inputs), str(workdir))
    return workdir


def _outputs(workdir: pathlib.Path) -> dict[str, bytes]:
    folders = (
        "corpus", "domains", "marks", "offers", "pages", "positives", "scores", "selection", "signatures", "unique",
    )  # fmt: skip
    files = [path for folder in folders for path in workdir.glob(f"{folder}/*")]
    files += [*workdir.glob("*.parquet"), *workdir.glob("marked_paths.json"), workdir / "report.json"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def test_marks_grow_the_collection(finished):
    rounds = json.loads((finished / "report.json").read_text())["rounds"]
    assert len(rounds) >= 2 and rounds[0]["already_collected"] is None
    assert rounds[0]["new_positives"] > 0 and rounds[1]["positives"] == 40 + rounds[0]["new_positives"]
    assert rounds[1]["collected"] > rounds[0]["collected"] and rounds[0]["math_domains"] == 1
    corpus = ds.dataset(finished / "corpus").to_table().to_pylist()
    hosts = [page["host"] for page in corpus]
    assert hosts.count("math.example.org") >= 40 and hosts.count("news.example.co.uk") <= 4
    assert {page["round"] for page in corpus} >= {1, 2}


def test_files_have_the_formats_of_the_design(finished):
    tables = {name: ds.dataset(finished / name).to_table() for name in ("corpus", "scores", "offers")}
    tables |= {name: pq.read_table(finished / f"{name}.parquet") for name in ("duplicates", "contaminated", "domains")}
    assert {name: table.column_names for name, table in tables.items()} == {
        "corpus": ["url", "host", "text", "score", "language", "round"],
        "scores": ["url", "host", "score", "round"],
        "duplicates": ["url", "kept_url", "kind"],
        "contaminated": ["url", "benchmark", "item", "ngram", "start", "end", "text", "dropped"],
        "domains": ["domain", "pages", "collected", "share", "is_math", "gain"],
        "offers": ["domain", "url", "host", "score", "collected", "file", "row"],
    }
    report = json.loads((finished / "report.json").read_text())
    assert tables["scores"].num_rows == report["unique"] * len(report["rounds"])
    assert report["collected"] == tables["corpus"].num_rows
    assert report["corpus_characters"] == sum(map(len, tables["corpus"]["text"].to_pylist()))
    assert report["pages"] == report["unique"] + sum(report["duplicates"].values())
    assert len(report["examples"]) == 10 and report["skipped"] == {"short": 1}
    assert sum(host["pages"] for host in report["hosts"]) == report["unique"]
    assert json.loads((finished / "marked_paths.json").read_text()) == ["math.example.org/algebra"]
    assert sorted(path.name for path in finished.glob("classifier-*.bin"))[0] == "classifier-1.bin"
    assert not list(finished.rglob("*.tmp"))


def test_duplicates_name_the_page_that_stayed(finished):
    duplicates = {row["url"]: row for row in pq.read_table(finished / "duplicates.parquet").to_pylist()}
    kept = {url: (row["kept_url"], row["kind"]) for url, row in duplicates.items()}
    assert kept["https://mirror.example.net/a-copy-of-the-first-page"][1] == "exact"
    second = ("https://math.example.org/analysis/1", "near")
    assert kept["https://mirror.example.net/nearly-the-second-page"] == second
    assert sorted(kind for _, kind in kept.values()) == ["exact", "near", "url"]
    scored = set(ds.dataset(finished / "scores").to_table()["url"].to_pylist())
    assert not scored & set(kept) and {url for url, _ in kept.values()} <= scored


def test_benchmark_text_leaves_the_corpus_and_is_recorded(finished):
    pages = {page["url"]: page["text"] for page in ds.dataset(finished / "corpus").to_table().to_pylist()}
    page = pages["https://math.example.org/analysis/question"]
    assert "baskets of plums" not in page and "integral" in page
    found = pq.read_table(finished / "contaminated.parquet").to_pylist()
    assert {row["url"] for row in found} == {"https://math.example.org/analysis/question"}
    assert json.loads((finished / "report.json").read_text())["contaminated"] == 1


def test_finished_run_is_not_run_again(finished, inputs, capsys):
    before = _outputs(finished)
    driver.run_stage("mine", run, _config(inputs), str(finished))
    assert "nothing to do" in capsys.readouterr().err
    assert _outputs(finished) == before


def test_killed_run_ends_as_the_unbroken_one(finished, inputs, tmp_path):
    command = _arguments(_config(inputs), tmp_path / "run")
    for landmark in ("pages/*.parquet", "classifier-1.bin", "scores/round-2-*.parquet"):
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list((tmp_path / "run").glob(landmark)):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "run" / "result.json").exists(), "killed too late to tell anything"
        (tmp_path / "run" / "scores").mkdir(exist_ok=True)
        (tmp_path / "run" / "scores" / ".round-2-crawl-0.parquet.0.tmp").write_bytes(b"half a file")
        (tmp_path / "run" / ".classifier-1.bin.0.tmp").write_bytes(b"half a model")
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert _outputs(tmp_path / "run").keys() == _outputs(finished).keys()
    for name, content in _outputs(finished).items():
        assert _outputs(tmp_path / "run")[name] == content, name
    assert not list((tmp_path / "run").rglob(".*.tmp"))


@pytest.mark.slow
def test_ray_gives_what_this_machine_gives(finished, inputs, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    config = _config(inputs)
    config.engine, config.workers = "ray", 2
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": "/tmp"}
    subprocess.run(_arguments(config, tmp_path / "run"), cwd=ROOT, check=True, capture_output=True, env=environment)
    assert _outputs(tmp_path / "run") == _outputs(finished)


def test_people_are_waited_for_and_then_the_run_goes_on(finished, inputs, tmp_path):
    config = _config(inputs)
    config.annotation, config.marked_paths = "people", ""
    for round_number in (1, 2):
        with pytest.raises(Paused, match=rf"round {round_number} waits for marks[^$]*experiments\.annotate --workdir="):
            driver.run_stage("mine", run, config, str(tmp_path / "run"))
        (tmp_path / "run" / f"marked_paths-{round_number}.json").write_text('["math.example.org/algebra"]\n')
    config.annotation = "none"  # enough of it
    driver.run_stage("mine", run, config, str(tmp_path / "run"), FREE)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["annotation"] == "none"
    pages = pq.read_table(tmp_path / "run" / "offers" / "round-1.parquet").to_pylist()
    assert {page["domain"] for page in pages} == {"example.org"} and {page["collected"] for page in pages} == {
        True,
        False,
    }
    assert [page["url"] for page in pages] == sorted(page["url"] for page in pages)
    scores = {page["url"]: page["score"] for page in ds.dataset(finished / "scores").to_table().to_pylist()[:200]}
    assert all(page["url"] in scores for page in pages)
    assert (
        _outputs(tmp_path / "run")["selection/round-2-crawl-0.parquet"]
        == _outputs(finished)["selection/round-2-crawl-0.parquet"]
    )


def test_paths_that_score_well_are_marked_where_nobody_is_asked(inputs, tmp_path):
    config = _config(inputs)
    config.annotation, config.marked_paths = "auto", ""
    config.auto.min_score, config.auto.min_pages = 0.0, 5
    run(config, tmp_path)
    assert read_marked_paths(tmp_path / "marks" / "round-1.json").matches("https://math.example.org/algebra/1")
    assert json.loads((tmp_path / "report.json").read_text())["rounds"][0]["new_positives"] > 0


def test_nobody_is_asked_and_nothing_is_marked(inputs, tmp_path):
    config = _config(inputs)
    config.annotation, config.max_rounds = "none", 2
    run(config, tmp_path)
    assert json.loads((tmp_path / "marked_paths.json").read_text()) == []
    assert json.loads((tmp_path / "report.json").read_text())["rounds"][0]["new_positives"] == 0


def test_classifier_of_another_run_needs_no_training(finished, inputs, tmp_path):
    config = _config(inputs)
    config.classifier_file = str(finished / "classifier-1.bin")
    run(config, tmp_path)
    assert not list(tmp_path.glob("classifier-*"))
    report = json.loads((tmp_path / "report.json").read_text())
    first = json.loads((finished / "report.json").read_text())["rounds"][0]
    assert len(report["rounds"]) == 1 and report["rounds"][0]["collected"] == first["collected"]
    for part in sorted((tmp_path / "scores").iterdir()):  # which were made while the pages were extracted
        assert pq.read_table(part).equals(pq.read_table(finished / "scores" / part.name))


def test_killed_run_with_a_given_classifier_ends_as_the_unbroken_one(finished, inputs, tmp_path):
    config = _config(inputs)
    config.classifier_file = str(finished / "classifier-1.bin")
    run(config, tmp_path / "unbroken")
    command = _arguments(config, tmp_path / "run")
    for landmark in ("pages/*.parquet", "unique/*.parquet"):
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list((tmp_path / "run").glob(landmark)):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "run" / "result.json").exists(), "killed too late to tell anything"
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert _outputs(tmp_path / "run") == _outputs(tmp_path / "unbroken")


def test_rounds_are_measured_against_labels(inputs, tmp_path):
    config = _config(inputs)
    rows = [f"{url}\t{int('math.example' in url)}" for url, _ in _crawl()] + ["https://nowhere.org/\t1", "x\t-1"]
    (tmp_path / "labels.tsv").write_text("\n".join(["url\tis_math", *rows]))
    config.labels = str(tmp_path / "labels.tsv")
    run(config, tmp_path / "run")
    first, last = (json.loads((tmp_path / "run" / "report.json").read_text())["rounds"][n]["labelled"] for n in (0, -1))
    assert first["recall"] < last["recall"] and 0.5 < last["precision"] <= 1 and last["auc"] > 0.9


def test_pages_of_other_languages_are_left_out(inputs, tmp_path):
    config = _config(inputs)
    config.languages = "de, zh"
    with pytest.raises(InputError, match=r"no readable page .*'language': \d+"):
        run(config, tmp_path)


def test_damaged_file_is_counted_and_the_rest_is_read(inputs, tmp_path, caplog):
    caplog.set_level("WARNING")
    whole = (inputs / "crawl-0.warc.gz").read_bytes()
    (tmp_path / "crawl-0.warc.gz").write_bytes(whole[: len(whole) - 60])
    (tmp_path / "crawl-1.warc.gz").write_bytes(b"no archive at all")
    files = [str(path) for path in sorted(tmp_path.glob("*.gz"))]
    pages = crawl.read(files, tmp_path, Engine(), min_words=20, languages=[], threshold=0.8, pages_per_task=100)
    assert pages.skipped["damaged"] == 2 and pages.num_pages > 30
    assert "crawl-1.warc.gz: 1 damaged records were left out" in caplog.text


def test_report_says_why_the_rounds_ended(finished):
    report = json.loads((finished / "report.json").read_text())
    already = report["rounds"][-1]["already_collected"]
    assert report["ended"] == ("stop_share" if already >= 0.98 else "max_rounds") == "stop_share"


def test_bound_of_the_rounds_is_named_where_it_ended_them(inputs, tmp_path):
    config = _config(inputs)
    config.max_rounds = 1
    run(config, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["ended"] == "max_rounds"


def test_run_that_collects_nothing_is_refused(inputs, tmp_path):
    config = _config(inputs)
    config.min_score = 1.0
    with pytest.raises(InputError, match=r"config\.min_score=1\.0.* nothing was collected.* lower min_score"):
        run(config, tmp_path)
    assert not (tmp_path / "corpus").exists()


def test_first_negatives_are_embedded_and_later_ones_come_from_other_domains(inputs, tmp_path, monkeypatch):
    seen: list[list[str]] = []

    def train(positives, negatives, **settings):
        seen.append(list(negatives))
        return trained(positives, seen[-1], **settings)

    trained = validation.train_validated
    monkeypatch.setattr(validation, "train_validated", train)
    config = _config(inputs)
    config.negatives, config.embedded_negatives, config.max_share = 120, True, 0.2
    run(config, tmp_path)
    embedded = [text for text, _ in library_docs.other_texts(config.seed, 120)]
    assert seen[0] == embedded
    news = [text for text in seen[1] if text not in set(embedded)]
    assert 60 <= len(news) < 120 and seen[1][: 120 - len(news)] == embedded[: 120 - len(news)]
    assert not [text for text in news if set(ANALYSIS + ALGEBRA) & set(text.split())]


def test_crawl_without_a_page_is_refused(tmp_path):
    _write_warc(tmp_path / "crawl.warc.gz", [("https://example.org/", "too short")])
    with pytest.raises(InputError, match="no readable page"):
        crawl.read(
            [str(tmp_path / "crawl.warc.gz")],
            tmp_path,
            Engine(),
            min_words=20,
            languages=[],
            threshold=0.8,
            pages_per_task=100,
        )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("input", "absent/*.warc.gz", "matches no file"),
        ("seed_texts", "absent/*.jsonl", "config.seed_texts"),
        ("marked_paths", "absent.json", "no such file of marked paths"),
        ("benchmarks", "absent/*.jsonl", "benchmarks"),
        ("annotation", "robots", "none, file, auto, people"),
        ("labels", "absent.tsv", "config.labels"),
        ("classifier_file", "absent.bin", "no such classifier"),
        ("classifier_file", __file__, "fastText model"),
        ("engine", "dask", "native, daft, ray"),
        ("max_files", -1, "config.max_files"),
        ("max_rounds", 0, "config.max_rounds"),
        ("max_share", -0.1, "config.max_share"),
        ("max_share", 0.0, r"config\.max_share=0\.0: must be above 0"),
        ("max_share", 50.0, r"config\.max_share=50\.0.* at most 1"),
        ("min_score", 1.5, r"config\.min_score=1\.5.* from 0 to 1"),
        ("min_score", float("nan"), r"config\.min_score=nan"),
        ("math_domain_share", 1.0, r"config\.math_domain_share=1\.0.* below 1"),
        ("math_domain_share", -0.1, r"config\.math_domain_share=-0\.1: must be at least 0"),
        ("stop_share", 98.0, r"config\.stop_share=98\.0.* at most 1"),
        ("stop_share", 0.0, r"config\.stop_share=0\.0: must be above 0"),
        ("auto", {"min_score": 40.0}, r"config\.auto\.min_score=40\.0.* from 0 to 1"),
        ("auto", {"min_pages": 0}, r"config\.auto\.min_pages: 0 must be at least 1"),
        ("languages", "en,chinese", r"config\.languages='en,chinese': 'chinese' is no language.* two-letter codes"),
        ("languages", "EN", r"config\.languages='EN': 'EN'.* en,"),
        ("max_tokens", (), r"config\.max_tokens=\(\): give numbers of tokens.* 40e9,120e9"),
        ("max_tokens", (40e9, -1.0), r"config\.max_tokens=\(40000000000\.0, -1\.0\)"),
        ("max_tokens", (float("inf"),), r"config\.max_tokens=\(inf,\)"),
        ("max_tokens", ("many",), r"config\.max_tokens=\('many',\)"),
        ("validation_folds", 1, "config.validation_folds"),
        ("near_duplicate_threshold", 0.2, "config.near_duplicate_threshold"),
    ],
)
def test_absent_input_is_refused_at_the_start(inputs, tmp_path, field, value, message):
    config = _config(inputs)
    config.update({field: value})
    with pytest.raises(InputError, match=message):
        run(config, tmp_path)
    assert not (tmp_path / "pages").exists()


def test_each_round_has_its_amount(inputs, tmp_path):
    config = _config(inputs)
    config.max_share, config.min_score, config.max_rounds = 1.0, 0.0, 3
    config.max_tokens = (1_000, 4_000)
    driver.run_stage("mine", run, config, str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["max_tokens"] == [1_000, 4_000]
    rounds = json.loads((tmp_path / "report.json").read_text())["rounds"]
    first, *later = (found["collected"] for found in rounds)
    assert 0 < first < 15 and later and all(2 * first < collected < 50 for collected in later)
    (tmp_path / "result.json").unlink()
    driver.run_stage("mine", run, config, str(tmp_path))  # the record's list is the config's tuple
    assert json.loads((tmp_path / "report.json").read_text())["rounds"] == rounds
    config.max_tokens = (1_000, 5_000)
    with pytest.raises(InputError, match="max_tokens"):
        driver.run_stage("mine", run, config, str(tmp_path))


def test_amounts_of_the_rounds():
    amounts = get_config("paper").max_tokens
    assert [mine.round_tokens(amounts, number) for number in (1, 2, 3, 4)] == [40e9, 89e9, 120e9, 120e9]
    assert mine.round_tokens(amounts, 1, "classifier-4.bin") == 120e9
    assert mine.round_tokens(get_config().max_tokens, 5) == 0


@pytest.mark.parametrize(
    ("written", "amounts"), [("5e9", (5e9,)), ("40e9,120e9", (40e9, 120e9)), ("(40e9, 0)", (40e9, 0)), ("0", (0,))]
)
def test_amounts_are_written_with_commas(written, amounts, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine", f"--config.max_tokens={written}"])  # whose fields become flags
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_dict("config", get_config("nano"), flag_values=values)
    values(sys.argv)
    assert config.value.max_tokens == amounts


def test_changed_crawl_is_refused_by_a_resumed_run(inputs, tmp_path):
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes((inputs / "crawl-0.warc.gz").read_bytes())
    mine.record_inputs(tmp_path, [str(path)])
    mine.record_inputs(tmp_path, [str(path)])
    path.write_bytes((inputs / "crawl-1.warc.gz").read_bytes())
    with pytest.raises(InputError, match="has changed since"):
        mine.record_inputs(tmp_path, [str(path)])


def test_seed_is_a_random_choice_of_all_files(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"a{n}"}) + "\n" for n in range(50)))
    (tmp_path / "b.txt").write_text("b")
    texts = seed.FileTexts(f"{tmp_path}/*", count=20, seed=0)
    chosen = list(texts)
    assert len(set(chosen)) == len(texts) == 20 and chosen == list(seed.FileTexts(f"{tmp_path}/*", count=20, seed=0))
    assert {text.text for text in seed.FileTexts(f"{tmp_path}/*", count=100, seed=0)} >= {"b", "a0", "a49"}
    (tmp_path / "d.jsonl").write_text('{"text": "d", "url": "https://EXAMPLE.org/x"}\n')
    assert {text.host for text in seed.FileTexts(f"{tmp_path}/d.*", count=1, seed=0)} == {"example.org"}
    (tmp_path / "c.jsonl").write_text('{"body": 1}\n')
    with pytest.raises(InputError, match=r"c\.jsonl:1"):
        seed.FileTexts(f"{tmp_path}/*", count=20, seed=0)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The limit of the series is the integral of a function in this space.", "en"),
        ("设函数 f 在区间上连续，则 the theorem 成立。", "zh"),
        ("この関数は区間で連続である。", "ja"),
        ("Die Funktion ist stetig und der Grenzwert ist nicht von der Wahl abhängig.", "de"),
    ],
)
def test_language(text, language):
    assert detect_language(text) == language


def test_presets():
    assert [get_config(preset).classifier.dim for preset in PRESETS] == [16, 256]
    with pytest.raises(ValueError, match="nano, paper"):
        get_config("7b")
