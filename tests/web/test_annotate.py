"""The page for people without a browser: the tree of paths, the store of marks, the application, the command."""

import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import httpx
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from dsmath.runs.errors import InputError
from dsmath.web.annotate.annotation import MOST_CHARACTERS, Annotation
from dsmath.web.annotate.app import make_app
from dsmath.web.annotate.marks import Marks
from dsmath.web.annotate.offers import Offers, newest_round
from dsmath.web.paths import read_marked_paths

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERFLOW, FORUM = "mathoverflow.example", "forum.example"


@pytest.fixture
def workdir(tmp_path, make_mining_workdir, math_pages):
    return make_mining_workdir(tmp_path / "mine", math_pages)


@pytest.fixture
def annotation(workdir):
    return Annotation(workdir, suggest_score=0.3, suggest_pages=5)


@pytest.fixture
def client(annotation):
    with TestClient(make_app(annotation), base_url="http://127.0.0.1:8080") as client:
        yield client


def _mark(annotation, domain, pattern, verdict, user="ann", **more):
    return annotation.mark(domain, pattern, verdict, user, more.pop("note", ""), suggested=False, round_number=1)


# ---------------------------------------------------------------------------------------------------- tree


def test_tree_counts_and_orders_by_gain(annotation):
    rows = annotation.rows(OVERFLOW, {"mathoverflow.example": 50})["rows"]
    shown = [(row["label"], row["level"], row["pages"], row["uncollected"]) for row in rows]
    assert shown == [
        ("mathoverflow.example", 1, 56, 36),
        ("questions", 2, 46, 26),
        ("users", 2, 10, 10),
        ("meta.mathoverflow.example", 1, 1, 1),
    ]
    assert rows[1]["gain"] == pytest.approx(20 * 0.4 + 6 * 0.1)
    assert rows[1]["score"] == pytest.approx(rows[1]["gain"] / 26)


def test_queries_are_grouped_by_field(annotation):
    opened = {"www.forum.example": 9, "www.forum.example/view.php": 9, "www.forum.example/view.php?f=*": 9}
    rows = annotation.rows(FORUM, opened)["rows"]
    assert [row["address"] for row in rows if "?" in row["address"]] == [
        "www.forum.example/view.php?f=*",
        "www.forum.example/view.php?f=algebra",
        "www.forum.example/view.php?f=offtopic",
    ]


def test_long_lists_are_cut_and_a_path_can_be_revealed(annotation):
    parent = "mathoverflow.example/questions"
    rows = annotation.rows(OVERFLOW, {"mathoverflow.example": 50, parent: 10})["rows"]
    assert [row for row in rows if "more" in row] == [{"more": 31, "parent": parent, "level": 3, "shown": 10}]
    answer = annotation.rows(OVERFLOW, {}, reveal="mathoverflow.example/questions/tagged/career")
    assert "mathoverflow.example/questions/tagged/career" in [row.get("address") for row in answer["rows"]]
    assert answer["opened"].keys() == {"", "mathoverflow.example", parent, f"{parent}/tagged"}


def test_path_far_down_a_long_list_is_not_revealed(tmp_path, make_mining_workdir):
    pages = [("a.org", f"http://a.org/{n}", 0.4 if n < 3000 else 0.01, "text") for n in range(3001)]
    annotation = Annotation(make_mining_workdir(tmp_path, pages), suggest_score=0.3, suggest_pages=5)
    assert len(annotation.rows("a.org", {}, reveal="a.org/3000")["rows"]) < 60


def test_suggestions_are_the_broadest_even_paths(annotation):
    assert annotation.rows(FORUM, {})["suggestions"] == ["www.forum.example/view.php?f=algebra"]
    assert annotation.marks.standing() == []
    _mark(annotation, FORUM, "www.forum.example/view.php", "not math")
    assert annotation.rows(FORUM, {})["suggestions"] == []


# ---------------------------------------------------------------------------------------------------- what marks do


def test_mark_shows_what_it_adds_and_an_exclusion_below_takes_away(annotation):
    questions = "mathoverflow.example/questions"
    assert annotation.describe(OVERFLOW, questions)["changes"]["math"]["pages"] == 26
    _mark(annotation, OVERFLOW, questions, "math")
    assert annotation.describe(OVERFLOW, f"{questions}/tagged")["changes"]["not math"]["pages"] == -6
    _mark(annotation, OVERFLOW, f"{questions}/tagged", "unsure")
    rows = annotation.rows(OVERFLOW, {"mathoverflow.example": 50})["rows"]
    row = next(row for row in rows if row["label"] == "questions")
    assert (row["added"], row["verdict"], row["user"]) == (20, "math", "ann")
    decided = annotation.overview()["domains"][0]["decided"]
    assert decided["math"] == {"pages": 20, "gain": pytest.approx(8.0)} and decided["unsure"]["pages"] == 6
    inherited = annotation.describe(OVERFLOW, f"{questions}/1")["inherited"]
    assert inherited == {"verdict": "math", "address": questions}


def test_free_pattern_counts_at_once_and_a_broken_one_says_why(annotation):
    assert annotation.describe(OVERFLOW, "mathoverflow.example/*/title-1*")["pages"] == 11
    assert annotation.describe(OVERFLOW, "*.mathoverflow.example")["pages"] == 1
    for pattern, message in [
        ("https://mathoverflow.example", "has a scheme"),
        ("mathoverflow.example/a b", "is not a host and a path"),
        ("forum.example/wiki", "outside of mathoverflow.example"),
        ("*mathoverflow.example/x", "outside of mathoverflow.example"),
        ("!mathoverflow.example", "not math"),
    ]:
        with pytest.raises(ValueError, match=message):
            annotation.describe(OVERFLOW, pattern)


def test_export_matches_the_pages_that_the_page_counts(annotation, workdir, math_pages):
    _mark(annotation, OVERFLOW, "MathOverflow.example/questions/", "math")
    _mark(annotation, OVERFLOW, "mathoverflow.example/questions/tagged", "not math")
    _mark(annotation, FORUM, "www.forum.example/view.php?f=algebra", "math")
    assert annotation.overview()["exported"] == "no"
    exported = annotation.export(1)
    assert annotation.overview()["exported"] == "yes"
    assert (exported["including"], exported["excluding"]) == (2, 1)
    assert exported["command"].endswith(f"--workdir={workdir}")
    for name in ("marked_paths-1.json", "marked_paths.json"):
        marked = read_marked_paths(workdir / name)
    assert "!mathoverflow.example/questions/tagged" in marked.patterns
    matched = sum(marked.matches(url) for _, url, score, _ in math_pages if score < 0.5)
    overview = annotation.overview()
    assert matched == sum(domain["decided"]["math"]["pages"] for domain in overview["domains"]) == 28
    annotation.undo("ann", None, 1)
    assert annotation.overview()["exported"] == "outdated"
    assert not [path for path in workdir.iterdir() if path.name.endswith(".tmp")]


def test_samples_spread_over_the_scores_and_show_what_the_mark_decides(annotation):
    _mark(annotation, OVERFLOW, "mathoverflow.example/questions/tagged", "not math")
    seen, offset = [], 0
    while True:
        answer = annotation.samples(OVERFLOW, "mathoverflow.example", offset)
        seen += answer["samples"]
        offset = answer["next"]
        if not answer["left"]:
            break
    assert [sample["rank"] for sample in seen[:3]] == [1, 15, 30]
    assert sorted(sample["rank"] for sample in seen) == list(range(1, 31))
    assert not [sample for sample in seen if sample["collected"] or "/tagged/" in sample["url"]]
    assert "<math" in seen[0]["html"] and "<mfrac>" in seen[0]["html"]


def test_sample_texts_are_escaped_cut_and_survive_a_lost_file(annotation, workdir, make_mining_workdir):
    hostile = "<img src=x onerror=alert(1)>\n\n$\\text{<script>alert(1)</script>}$ " + "$" + "{" * 3000 + "$"
    make_mining_workdir(workdir, [("a.org", "http://a.org/1", 0.4, hostile + " \\[" * 5000 + "z" * 5_000_000)])
    other = Annotation(workdir, suggest_score=0.3, suggest_pages=5)
    for sample in (other.samples("a.org", "a.org", 0)["samples"][0], other.text("a.org", 0)):
        assert "<img" not in sample["html"] and "<script" not in sample["html"]
        assert sample["cut"] and len(sample["html"]) < 20 * MOST_CHARACTERS
    (workdir / "pages" / "crawl-00000.parquet").unlink()
    assert "cannot be read" in other.text("a.org", 0)["problem"]


def test_spaces_of_a_sample_are_read_once(tmp_path, make_mining_workdir):
    text = "a  \n \nb\n" + " " * (MOST_CHARACTERS - 20)
    make_mining_workdir(tmp_path, [("a.org", f"http://a.org/{number}", 0.4, text + "c") for number in range(3)])
    annotation = Annotation(tmp_path, suggest_score=0.3, suggest_pages=5)
    begun = time.process_time()
    assert [annotation.text("a.org", number)["html"][:15] for number in range(3)] == ["<p>a</p><p>b\n  "] * 3
    assert time.process_time() - begun < 1  # it took seconds each to begin at every space


# ---------------------------------------------------------------------------------------------------- store


@pytest.fixture
def marks(tmp_path):
    return Marks(tmp_path / "marks.sqlite")


def _add(marks, verdict, user="ann", pattern="a.org/x", **more):
    return marks.add(domain="a.org", pattern=pattern, verdict=verdict, user=user, round_number=1, **more)


def test_undo_brings_the_mark_before_back_and_history_keeps_everything(marks):
    _add(marks, "math", note="lecture notes", suggested=True)
    second = _add(marks, "not math", user="bob")
    marks.undo(second, "ann", 1)
    (standing,) = marks.standing("a.org")
    assert (standing.event.verdict, standing.event.user, standing.event.note) == ("math", "ann", "lecture notes")
    assert standing.event.suggested
    history = marks.history("a.org", "a.org/x")
    assert [(event.user, event.verdict, event.undone_by) for event in history] == [
        ("ann", "undo", None),
        ("bob", "not math", "ann"),
        ("ann", "math", None),
    ]
    with pytest.raises(LookupError, match="undone already"):
        marks.undo(second, "bob", 1)
    with pytest.raises(LookupError, match="no mark 99"):
        marks.undo(99, "bob", 1)


def test_undo_of_the_own_last_mark_goes_back_step_by_step(annotation):
    _mark(annotation, OVERFLOW, "mathoverflow.example/a", "math")
    _mark(annotation, OVERFLOW, "mathoverflow.example/b", "math")
    _mark(annotation, OVERFLOW, "mathoverflow.example/c", "math", user="bob")
    assert annotation.undo("ann", None, 1)["pattern"] == "mathoverflow.example/b"
    assert annotation.undo("ann", None, 1)["pattern"] == "mathoverflow.example/a"
    with pytest.raises(LookupError, match="ann has no mark"):
        annotation.undo("ann", None, 1)
    assert [mark.event.user for mark in annotation.marks.standing()] == ["bob"]


def test_same_mark_again_changes_nothing_but_a_note_is_kept(annotation):
    for note in ("", "", "why", "why"):
        _mark(annotation, OVERFLOW, "mathoverflow.example/a", "math", note=note)
    assert [event.note for event in annotation.marks.since(0)] == ["", "why"]


def test_conflict_shows_both_until_they_agree(marks):
    _add(marks, "math")
    _add(marks, "not math", user="bob")
    (standing,) = marks.standing()
    assert standing.event.user == "bob"
    assert [(other.user, other.verdict) for other in standing.others] == [("ann", "math")]
    _add(marks, "not math")
    assert marks.standing()[0].others == ()


def test_two_processes_see_each_other_and_nothing_is_lost_between_threads(marks, tmp_path):
    other = Marks(tmp_path / "marks.sqlite")

    def add(store, name):
        for number in range(20):
            _add(store, "math", pattern=f"a.org/{name}/{number}")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(add, [marks, marks, other, other], "abcd"))
    assert len(marks.standing()) == len(other.standing()) == 80
    assert len(other.since(75)) == 5 and marks.last_id() == 80


def test_file_that_is_no_store_is_named(tmp_path):
    path = tmp_path / "marks.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match="no store of marks") as caught:
        Marks(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE others (x)")
    with pytest.raises(InputError, match="a store of version 0"):
        Marks(path)


# ---------------------------------------------------------------------------------------------------- application


def test_answers_carry_a_strict_policy(client):
    for path in ("/", "/page.js", "/parts.js", "/page.css", "/api/overview", "/api/absent", "/api/node"):
        headers = client.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'" and "unsafe" not in str(policy)
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_page_holds_no_inline_script_style_or_foreign_address(client):
    page = client.get("/").text
    assert not re.search(r"<style|<img|\s(style|on\w+)=|https?:", page)
    assert page.count("<script") == page.count('<script src="/page.js"') == 1


BODY = {"domain": OVERFLOW, "pattern": "mathoverflow.example/questions", "verdict": "math", "user": "eve", "round": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 400),
        ({"host": "evil.example:8080"}, 400),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_other_pages_of_the_browser_cannot_mark(client, annotation, headers, status):
    content = json.dumps(BODY)
    headers = {"content-type": "application/json"} | headers
    assert client.post("/api/mark", content=content, headers=headers).status_code == status
    assert annotation.marks.last_id() == 0
    own = {"content-type": "application/json", "origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin"}
    assert client.post("/api/mark", content=content, headers=own).status_code == 200


def test_other_pages_cannot_rebind_the_host_to_read(client):
    assert client.get("/api/overview", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/api/overview", headers={"host": "localhost:8080"}).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"user": " "}, 400, "user"),
        ({"user": "x" * 61}, 400, "user"),
        ({"verdict": "maybe"}, 400, "verdict"),
        ({"domain": "absent.example"}, 404, "no domain 'absent.example' in round 1"),
        ({"domain": "news.example"}, 404, "no domain"),
        ({"pattern": "https://a.b/c"}, 400, "has a scheme"),
        ({"note": "x" * 3000}, 400, "note"),
        ({"round": 7}, 400, "reload"),
    ],
)
def test_bad_marks_are_refused_in_words(client, annotation, change, status, message):
    answer = client.post("/api/mark", json=BODY | change)
    assert answer.status_code == status and message in answer.json()["error"]
    assert annotation.marks.last_id() == 0


def test_bad_requests_are_refused_in_words(client):
    json_type = {"content-type": "application/json"}
    assert client.post("/api/mark", content=b"{", headers=json_type).status_code == 400
    assert client.post("/api/mark", content=b"1" * 300_000, headers=json_type).status_code == 413
    assert "since" in client.get("/api/changes?since=x").json()["error"]
    assert "missing" in client.get("/api/node?domain=a").json()["error"]
    assert client.get(f"/api/text?domain={OVERFLOW}&place=9999").status_code == 404
    assert client.get("/api/mark").status_code == 405


def test_changes_tell_what_others_did_and_of_a_new_round(client, annotation, workdir, make_mining_workdir, math_pages):
    assert client.get("/api/changes?since=0").json() == {"round": 1, "last": 0, "events": []}
    _mark(annotation, OVERFLOW, "mathoverflow.example/questions", "math", user="bob", note="proofs")
    changes = client.get("/api/changes?since=0").json()
    assert changes["last"] == 1 and changes["events"][0]["user"] == "bob"
    make_mining_workdir(workdir, math_pages, round_number=2)
    assert client.get("/api/changes?since=1").json()["round"] == 2
    assert "reload" in client.post("/api/mark", json=BODY).json()["error"]
    overview = client.get("/api/overview").json()  # the marks of round 1 stay
    assert overview["round"] == 2 and overview["domains"][0]["decided"]["math"]["pages"] == 26


# ---------------------------------------------------------------------------------------------------- command


def _command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.annotate", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_nothing_is_lost_on_a_kill_right_after_the_answer(workdir):
    command = [sys.executable, "-m", "experiments.annotate", f"--workdir={workdir}", "--port=0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[1]
        for number in range(3):
            body = BODY | {"pattern": f"mathoverflow.example/{number}"}
            assert httpx.post(f"{url}api/mark", json=body).status_code == 200
        os.kill(server.pid, signal.SIGKILL)
    finally:
        server.kill()
        server.wait()
    patterns = [mark.event.pattern for mark in Marks(workdir / "marks.sqlite").standing()]
    assert patterns == [f"mathoverflow.example/{number}" for number in range(3)]


def test_export_works_without_serving(annotation, workdir):
    _mark(annotation, OVERFLOW, "mathoverflow.example/questions", "math")
    done = _command(f"--workdir={workdir}", "--export")
    assert done.returncode == 0 and str(workdir / "marked_paths-1.json") in done.stdout, done.stderr
    assert read_marked_paths(workdir / "marked_paths-1.json").patterns == ["mathoverflow.example/questions"]


def test_bad_input_is_one_line(workdir, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _command(f"--workdir={workdir}", f"--port={port}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"--port={port}: address already in use" in done.stderr
    done = _command("--workdir=absent", "--port=99999")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "port" in done.stderr


def test_workdirs_that_offer_nothing_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        newest_round(tmp_path / "absent")
    with pytest.raises(InputError, match="no workdir of mining"):
        newest_round(tmp_path)
    (tmp_path / "config.json").write_text('{"stage": "mine"}')
    with pytest.raises(InputError, match="annotation=people"):
        newest_round(tmp_path)
    (tmp_path / "config.json").write_text('{"stage": "sft"}')
    with pytest.raises(InputError, match="holds the stage 'sft'"):
        newest_round(tmp_path)


def test_newest_complete_round_is_shown_and_a_damaged_one_named(workdir):
    (workdir / "offers" / "round-10.parquet").write_bytes(b"")
    assert newest_round(workdir) == 1  # its domains are not there yet
    (workdir / "domains" / "round-10.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"round-10\.parquet: cannot be read"):
        Offers(workdir, newest_round(workdir))


def test_reading_a_domain_touches_its_row_groups_alone(tmp_path, make_mining_workdir):
    pages = [(f"d{n:02}.org", f"http://d{n:02}.org/{i}", 0.4, "text") for n in range(10) for i in range(1000)]
    folder = make_mining_workdir(tmp_path, pages)
    assert pq.read_metadata(folder / "offers" / "round-1.parquet").num_row_groups == 10
    table = Offers(folder, 1).read_pages("d03.org")
    assert table.num_rows == 1000 and table.nbytes < 200_000
