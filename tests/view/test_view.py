"""The page over a folder of runs without a browser: what is found, drawn, compared, and refused."""

import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import pyarrow.parquet
import pytest
from starlette.testclient import TestClient

from dsmath.runs.workdir import lock_workdir, write_json
from dsmath.view import samples
from dsmath.view.app import make_app
from dsmath.view.comparison import compare
from dsmath.view.curves import Table, Tables, smooth, thin
from dsmath.view.files import Broken, Folder
from dsmath.view.lineage import draw
from dsmath.view.runs import Runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRPO = "sweep/grpo-0"


def _read(root):
    return Runs(Folder(root)).read()[0]


@pytest.fixture
def client(root):
    with TestClient(make_app(Folder(root)), base_url="http://127.0.0.1:8081") as client:
        yield client


# ---------------------------------------------------------------------------------------------------- runs


def test_runs_are_found_with_what_they_are(root):
    runs = _read(root)
    assert list(runs) == sorted([
        "mine", "pretrain", "sft", "tokenizer", GRPO, "sweep/grpo-1", *(f"sweep/evaluated-{n}" for n in (10, 15, 20)),
    ])  # fmt: skip
    run = runs[GRPO]
    assert (run.stage, run.status, run.has_metrics, run.has_samples) == ("rl", "finished", True, True)
    assert run.reports == ("samples.html", "metrics.md")
    assert _read(root / "sft").keys() == {"."}


def _hours_ago(folder, hours):
    for file in folder.iterdir():
        if file.is_file():
            os.utime(file, (time.time() - 3600 * hours,) * 2)


def test_status_tells_the_living_from_the_dead(make_run):
    beats = {"step": 5}
    running = make_run("running", "rl", heartbeat=beats, num_steps=10)
    stalled = make_run("stalled", "rl", heartbeat=beats | {"time": time.time() - 4000}, guards={"hang_seconds": 3600})
    slow = make_run("slow", "rl", heartbeat=beats | {"time": time.time() - 2000}, guards={"hang_seconds": 3600})
    silent = make_run("silent", "mine")
    make_run("far", "rl", heartbeat=beats | {"host": "another"})
    make_run("far-silent", "rl", heartbeat={"step": 5, "host": "another", "time": time.time() - 9000})
    make_run("killed", "rl", heartbeat=beats)
    failed = make_run("failed", "sft", heartbeat=beats)
    (failed / "log.txt").write_text("$ python -m experiments.sft\nsft: 3/10 step\nerror: config.length: too short\n")
    paused = make_run("paused", "sft", heartbeat=beats)
    (paused / "log.txt").write_text("sft: paused at step 5; the same line resumes\n")
    for folder in running.parent.iterdir():
        (folder / ".lock").touch()
        _hours_ago(folder, 5)
    with lock_workdir(running), lock_workdir(stalled), lock_workdir(slow), lock_workdir(silent):
        runs = _read(running.parent)
    assert {name: run.status for name, run in runs.items()} == {
        "running": "running", "stalled": "stalled", "slow": "running", "silent": "running", "far": "running",
        "far-silent": "stalled", "killed": "stopped", "failed": "failed", "paused": "stopped",
    }  # fmt: skip
    assert runs["failed"].detail == "error: config.length: too short"
    assert (runs["running"].step, runs["running"].num_steps) == (5, 10)


def test_looking_never_takes_the_lock_of_a_run(make_run):
    folder = make_run("run", "rl")
    (folder / ".lock").touch()
    runs = Runs(Folder(folder.parent))
    runs.read()
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_broken_files_are_named_and_not_fatal(root):
    (root / "sft" / "result.json").write_text('{"loss": 0.')
    (root / "sft" / "lineage.json").write_bytes(b"\xff\xfe{}")
    (root / "pretrain" / "config.json").write_text("[1, 2]")
    (root / "mine" / "config.json").write_text("[" * 100_000)
    (root / "tokenizer" / "config.json").write_bytes(b" " * (5 * 2**20))
    (root / GRPO / "heartbeat.json").write_text('{"step": "many", "time": 1e400, "host": 5}')
    runs = _read(root)
    assert len(runs["sft"].problems) == 2 and "sft/result.json: not JSON" in str(runs["sft"].problems)
    assert runs["pretrain"].problems == ("pretrain/config.json: not a JSON object",)
    assert "mine/config.json: not JSON" in runs["mine"].problems[0]
    assert "larger than 4 MiB" in runs["tokenizer"].problems[0]
    assert runs[GRPO].step is None
    draw(runs)


def test_a_record_is_read_again_when_it_changes(root, monkeypatch):
    runs = Runs(Folder(root))
    monkeypatch.setattr("dsmath.view.runs._KEPT_SECONDS", -1.0)
    assert runs.get("sft").result == {"loss": 0.5}
    write_json(root / "sft" / "result.json", {"loss": 0.25})
    assert runs.get("sft").result == {"loss": 0.25}


# ---------------------------------------------------------------------------------------------------- lineage


def _edges(graph):
    return {(edge["from"], edge["to"]) for edge in graph["edges"]}


def test_lineage_leads_from_the_corpus_to_the_evaluations(root):
    graph = draw(_read(root))
    assert {("mine", "tokenizer"), ("mine", "pretrain"), ("pretrain", "sft"), ("sft", GRPO)} <= _edges(graph)
    assert next(edge for edge in graph["edges"] if edge["to"] == "sft") == {
        "from": "pretrain", "to": "sft", "roles": ["init_from"], "step": 80,
    }  # fmt: skip
    columns = {node["id"]: node["column"] for node in graph["nodes"]}
    assert [columns[name] for name in ("mine", "tokenizer", "pretrain", "sft", GRPO)] == [0, 1, 2, 3, 4]
    folded = next(node for node in graph["nodes"] if len(node["runs"]) > 1)
    assert folded["runs"] == ["sweep/evaluated-10", "sweep/evaluated-15", "sweep/evaluated-20"]
    assert folded["column"] == 5
    assert len({(node["column"], node["row"]) for node in graph["nodes"]}) == len(graph["nodes"])


def test_runs_of_equal_records_are_told_apart_by_their_paths(root):
    records = [(root / f"sweep/grpo-{seed}" / "lineage.json").read_bytes() for seed in (0, 1)]
    assert records[0] == records[1]
    assert (GRPO, "sweep/evaluated-10") in _edges(draw(_read(root)))


def test_a_parent_elsewhere_and_a_circle_are_drawn(root):
    elsewhere = {"workdir": "gs://bucket/<b>base</b>", "lineage": "0" * 16, "step": 7}
    lineage = {"parents": {"init_from": {"workdir": "runs/sft", "lineage": None, "step": 1}, "x": elsewhere, "y": 3}}
    write_json(root / "mine" / "lineage.json", lineage)  # sft is its grandchild
    graph = draw(_read(root))
    outside = next(node for node in graph["nodes"] if not node["runs"])
    assert (outside["id"], "mine") in _edges(graph) and "gs://bucket" in outside["id"]
    write_json(root / "sft" / "lineage.json", {"parents": ["no", "mapping"]})
    draw(_read(root))


# ---------------------------------------------------------------------------------------------------- curves


def _table(root, name=GRPO):
    table = Table(Folder(root), f"{name}/metrics.jsonl")
    table.refresh()
    return table


def test_a_curve_stands_by_step_tokens_or_time(root):
    table = _table(root)
    assert table.names() == ["kl", "reward", "seconds", "tokens_per_second"]
    ends = {axis: table.curve("reward", axis, 0.0)["x"][-1] for axis in ("step", "tokens", "time")}
    assert ends == {"step": 20, "tokens": pytest.approx(20 * 360), "time": pytest.approx(20 * 36 / 3600)}
    table = _table(root, "pretrain")
    assert table.curve("loss", "tokens", 0.0)["x"][-1] == 800
    assert table.curve("loss", "time", 0.0)["x"][-1] == pytest.approx(16 / 3600)
    assert table.curve("absent", "step", 0.0) is None


def test_a_growing_file_is_read_on_and_a_half_written_line_waits(root, append):
    table = _table(root)
    append(root / GRPO, '{"step": 21, "rew')
    table.refresh()
    assert table.curve("reward", "step", 0.0)["number"] == 20 and table.broken == 0
    append(root / GRPO, 'ard": 7.0}\n')
    table.refresh()
    assert table.curve("reward", "step", 0.0)["last"] == 7.0


def test_a_resumed_run_that_went_back_is_read_anew(root, append):
    table = _table(root)
    kept = (root / GRPO / "metrics.jsonl").read_text().splitlines()[:10]
    new = root / GRPO / "new"
    new.write_text("\n".join(kept) + "\n")
    new.replace(root / GRPO / "metrics.jsonl")
    for step in range(11, 41):  # it is longer than it was
        append(root / GRPO, {"step": step, "reward": 3.0})
    table.refresh()
    curve = table.curve("reward", "step", 0.0)
    assert curve["x"] == [*range(1, 41)] and curve["last"] == 3.0


def test_broken_lines_and_odd_numbers_are_counted_and_left_out(root, append):
    for line in ('{"step": 21, "reward": }\n', "[1]\n", '{"step": -1}\n', '{"reward": 1}\n', "\xff\x00\n", "\n"):
        append(root / GRPO, line)
    append(root / GRPO, f'{{"step": 22, "reward": NaN, "kl": Infinity, "big": 1{"0" * 400}, "text": "x"}}\n')
    table = _table(root)
    assert table.broken == 5
    curve = table.curve("reward", "step", 0.0)
    assert (curve["number"], curve["not_finite"], curve["last"]) == (20, 1, None)
    assert table.curve("kl", "step", 0.5)["not_finite"] == 1 and "text" not in table.names()


def test_an_endless_line_is_left_out_once(root, append):
    append(root / GRPO, '{"step": 21, "text": "' + "x" * 9 * 2**20)
    table = _table(root)
    append(root / GRPO, '"}\n{"step": 22, "reward": 3.0}\n')
    table.refresh()
    table.refresh()
    assert 1 <= table.broken <= 3 and table.curve("reward", "step", 0.0)["x"][-1] == 22


def test_smoothing_keeps_a_constant_and_follows_a_mean():
    assert smooth(np.full(50, 3.0), 0.9) == pytest.approx(3.0)
    noisy = np.random.default_rng(0).normal(2.0, 1.0, 2000)
    assert smooth(noisy, 0.99)[-500:].std() < 0.15 < noisy.std()


def test_thinning_keeps_spikes_and_both_ends():
    y = np.zeros(500_000)
    y[123_456], y[400_001] = 9.0, -9.0
    x, thinned = thin(np.arange(500_000.0), y, 1000)
    assert len(thinned) <= 1000 and thinned.max() == 9 and thinned.min() == -9
    assert (x[0], x[-1]) == (0, 499_999) and (np.diff(x) > 0).all()


def test_many_steps_are_read_in_seconds_and_read_on_at_once(root):
    record = json.dumps(dict.fromkeys(("loss", "grad_norm", "kl", "reward", "seconds"), 0.5))[1:]
    (root / "sft" / "metrics.jsonl").write_text("".join(f'{{"step": {n}, {record}\n' for n in range(100_000)))
    tables, runs = Tables(Folder(root)), _read(root)
    started = time.process_time()
    tables.get(runs["sft"])
    assert time.process_time() - started < 10
    started = time.process_time()
    curve = tables.get(runs["sft"]).curve("loss", "time", 0.9)
    assert time.process_time() - started < 2
    assert curve["number"] == 100_000 and len(curve["x"]) <= 1000


# ---------------------------------------------------------------------------------------------------- configs, samples


def test_only_differing_fields_are_compared(root):
    write_json(
        root / "sweep/grpo-1/config.json", {"stage": "rl", "num_steps": 20, "beta": 0.0, "seed": 1, "optimizer": {}}
    )
    answer = compare({name: run for name, run in _read(root).items() if "grpo" in name})
    assert answer["rows"] == [
        {"field": "beta", "values": ["0.04", "0.0"]}, {"field": "optimizer", "values": [None, "{}"]},
        {"field": "optimizer.b1", "values": ["0.9", None]}, {"field": "seed", "values": ["0", "1"]},
    ]  # fmt: skip
    assert answer["same"] == 2
    assert len(compare({GRPO: _read(root)[GRPO]})["rows"]) == 5


def test_samples_come_in_pages_right_or_wrong(root):
    folder, run = Folder(root), _read(root)[GRPO]
    assert samples.list_files(folder, run) == ["samples/000020.parquet", "samples/000010.parquet"]
    page = samples.read_page(folder, run, "samples/000020.parquet", which="all", offset=40)
    assert (len(page["rows"]), page["number"], page["of"]) == (10, 50, 50)
    assert page["rows"][0]["texts"]["question"] == "How much is 10 + 1?"
    right = samples.read_page(folder, run, "samples/000020.parquet", which="right", offset=0)
    assert right["number"] == 1 and right["rows"][0]["facts"] == {"step": 20, "correct": True, "reward": "0.25"}
    assert samples.read_page(folder, run, "samples/000020.parquet", which="wrong", offset=0)["number"] == 49


def test_a_broken_samples_file_is_named(root):
    path = root / GRPO / "samples" / "000030.parquet"
    whole = (root / GRPO / "samples" / "000020.parquet").read_bytes()
    folder, run = Folder(root), _read(root)[GRPO]
    for content in (b"", whole[: len(whole) // 2], whole[:4] + b"\xff" * 200 + whole[204:]):
        path.write_bytes(content)
        with pytest.raises(Broken, match=r"000030\.parquet: cannot be read"):
            samples.read_page(folder, run, "samples/000030.parquet", which="wrong", offset=0)
    with pytest.raises(LookupError, match="no samples"):
        samples.read_page(folder, run, "../../secret.txt", which="all", offset=0)


def test_long_texts_are_cut(root):
    path = root / GRPO / "samples" / "000030.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["q" * 10**6], "completion": ["é" * 10**6]}), path)
    row = samples.read_page(Folder(root), _read(root)[GRPO], "samples/000030.parquet", which="right", offset=0)
    assert all(len(text) < 13_000 for text in row["rows"][0]["texts"].values())


# ---------------------------------------------------------------------------------------------------- files


def test_nothing_outside_of_the_folder_is_opened(root):
    folder = Folder(root)
    (root / "sft" / "report.html").symlink_to(root.parent / "secret.txt")
    (root / "outside").symlink_to(root.parent)
    os.mkfifo(root / "sft" / "metrics.md")
    for name in (
        "../secret.txt", "sft/../../secret.txt", str(root.parent / "secret.txt"), "sft/report.html",
        "outside/secret.txt",
        "sft//config.json", "./sft/config.json", "sft", "sft/metrics.md", "", "sft/config.json\0", "sft/config.json/",
    ):  # fmt: skip
        with pytest.raises(LookupError):
            folder.open(name)
    folder.open("sft/config.json").close()
    runs, problems = Runs(folder).read()
    assert runs["sft"].reports == () and problems == ["./outside: a link to a folder, not followed"]


@pytest.mark.parametrize(
    "path",
    [
        "/files/../secret.txt", "/files/%2e%2e/secret.txt", "/files/sft/%2e%2e/%2e%2e/secret.txt", "/files//etc/passwd",
        "/files/sft/config.json", "/files/sft/report.html", "/files/absent/report.html", "/files/sft%2Freport.html",
        "/files/outside/secret.txt", "/files/samples.html",
    ],
)  # fmt: skip
def test_only_reports_of_runs_are_served(root, client, path):
    (root / "sft" / "report.html").symlink_to(root.parent / "secret.txt")
    (root / "outside").symlink_to(root.parent)
    answer = client.get(path)
    assert answer.status_code == 404 and "secret" not in answer.text.replace("secret.txt", "")


def test_reports_are_shown_in_a_sandbox_without_scripts_but_our_own(root, client):
    (root / GRPO / "figure.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    for name, kind in (("samples.html", "text/html"), ("metrics.md", "text/plain"), ("figure.svg", "image/svg+xml")):
        time.sleep(1.1 if name == "figure.svg" else 0)  # a look at the folder is kept for a second
        answer = client.get(f"/files/{GRPO}/{name}")
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        assert policy.startswith("sandbox") and "default-src 'none'" in policy and "same-origin" not in policy
        script = re.search(r"script-src ([^;]*)", policy)
        assert (script is not None) == (kind == "text/html")
        if script:
            assert re.fullmatch(r"('sha256-[\w+/=]+' ?)+", script[1])


# ---------------------------------------------------------------------------------------------------- application


def test_answers_carry_a_strict_policy(client):
    paths = ("/", "/page.js", "/page.css", "/plotly.js", "/api/runs", "/api/absent", "/api/curves?axis=x", "/files/x")
    for path in paths:
        headers = client.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'" and "unsafe" not in str(policy)
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_page_holds_no_inline_script_style_or_foreign_address(client):
    page = client.get("/").text
    assert not re.search(r"<style|<img|\s(style|on\w+)=|https?:", page)
    assert page.count("<script") == page.count('<script src="/') == 1


def test_the_overview_is_sent_again_only_when_it_has_changed(root, client):
    answer = client.get("/api/runs").json()
    assert len(answer["runs"]) == 9 and answer["graph"]["edges"]
    grpo = next(run for run in answer["runs"] if run["name"] == GRPO)
    assert grpo["result"] == [["reward", 0.75], ["accuracy", None]]  # JSON has no NaN
    assert ["GSM8K, chat", 0.25] in next(run for run in answer["runs"] if run["name"] == "sweep/evaluated-10")["result"]
    assert client.get("/api/runs", params={"stamp": answer["stamp"]}).json() == {"stamp": answer["stamp"]}
    write_json(root / "sft" / "result.json", {"loss": 0.1})
    time.sleep(1.1)
    assert client.get("/api/runs", params={"stamp": answer["stamp"]}).json()["stamp"] != answer["stamp"]


def test_curves_of_several_runs_come_with_what_is_wrong_in_words(root, client, append):
    append(root / "sft", "no json\n")
    query = {"run": [GRPO, "sft", "mine"], "metric": ["loss", "reward"], "axis": "tokens", "smoothing": "0.5"}
    answer = client.get("/api/curves", params=query).json()
    assert [(curve["run"], curve["metric"]) for curve in answer["curves"]] == [(GRPO, "reward"), ("sft", "loss")]
    assert answer["notes"] == ["sft: 1 broken line of metrics.jsonl left out"]
    assert {"loss", "reward", "kl"} <= set(answer["names"])


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("curves?run=absent", 404, "no run 'absent'"), ("curves?axis=height", 400, "axis"),
        ("curves?smoothing=1", 400, "smoothing"), ("curves?smoothing=nan", 400, "smoothing"),
        ("curves?" + "&".join(f"run={n}" for n in range(25)), 400, "at most 24"),
        ("samples?run=sft&file=config.json", 404, "no samples"), ("samples?run=sft", 400, "'file' is missing"),
        (f"samples?run={GRPO}&file=x&which=odd", 400, "which"), ("samples?run=sft&file=x&offset=-1", 400, "offset"),
        ("comparison?run=..", 404, "no run '..'"), ("absent", 404, "Not Found"),
    ],
)  # fmt: skip
def test_bad_questions_are_refused_in_words(client, path, status, message):
    answer = client.get(f"/api/{path}")
    assert answer.status_code == status and message in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 400), ({"host": "evil.example:8081"}, 400), ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403), ({"sec-fetch-site": "same-origin"}, 200), ({}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
    ],
)  # fmt: skip
def test_other_pages_of_the_browser_cannot_ask(client, headers, status):
    assert client.get("/api/runs", headers=headers).status_code == status
    assert client.post("/api/runs").status_code == 405


# ---------------------------------------------------------------------------------------------------- command


def test_the_command_serves_at_this_machine_alone_and_writes_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    command = [sys.executable, "-m", "experiments.view", f"--workdir={root}", "--port=0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        assert len(httpx.get(f"{url}api/runs").json()["runs"]) == 9
        server.send_signal(signal.SIGINT)
        assert server.wait(120) == 0
    finally:
        server.kill()
        server.wait()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_missing_folder_is_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.view", f"--workdir={tmp_path / 'absent'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2 and done.stderr.startswith("error: --workdir") and done.stderr.count("\n") == 1
