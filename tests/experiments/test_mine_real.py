"""Mining real archives: kills at random moments, and a person at the page. Minutes each: pytest -m slow."""

import csv
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
CHAINS, KILLS = 4, 5  # kills of each chain


def _command(shared_data: pathlib.Path, workdir: pathlib.Path, *overrides: str) -> list[str]:
    web = shared_data / "web"
    return [
        sys.executable, "-m", "experiments.mine", "--config=configs/mine.py:nano", f"--workdir={workdir}",
        f"--config.input={web}/dev-*.warc.gz", f"--config.labels={web}/labels.tsv", "--config.max_rounds=2", *overrides,
    ]  # fmt: skip


def _corpus(workdir: pathlib.Path) -> dict[str, bytes]:
    files = [*workdir.glob("corpus/*"), *workdir.glob("scores/*"), *workdir.glob("*.parquet"), workdir / "report.json"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def test_run_that_is_killed_at_random_moments_ends_as_the_unbroken_one(shared_data, tmp_path):
    marks = ("--config.annotation=auto",)
    started = time.monotonic()
    subprocess.run(_command(shared_data, tmp_path / "whole", *marks), cwd=ROOT, check=True, capture_output=True)
    seconds = time.monotonic() - started
    rng = random.Random(0)
    for chain in range(CHAINS):
        workdir = tmp_path / f"chain-{chain}"
        for _ in range(KILLS):
            command = _command(shared_data, workdir, *marks)
            process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(2, 2 + seconds / KILLS))
            if process.poll() is not None:
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(_command(shared_data, workdir, *marks), cwd=ROOT, check=True, capture_output=True)
        assert _corpus(workdir) == _corpus(tmp_path / "whole"), chain
        assert not list(workdir.rglob(".*.tmp"))


def test_two_rounds_with_marks_made_in_the_page_raise_recall(shared_data, tmp_path):
    """The person is a browser that marks those offered hosts whose labelled pages are mathematics by nine in ten."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    command = _command(shared_data, tmp_path, "--config.annotation=people")
    stopped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert stopped.returncode == 3 and "experiments.annotate" in stopped.stderr
    with open(shared_data / "web" / "labels.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels: dict[str, list[bool]] = {}
    for row in rows:
        if row["is_math"] in ("0", "1"):
            labels.setdefault(row["host"], []).append(row["is_math"] == "1")
    mathematical = {host for host, found in labels.items() if sum(found) >= 0.9 * len(found)}
    annotate = [sys.executable, "-m", "experiments.annotate", f"--workdir={tmp_path}", "--port=0", "--user=ann"]
    server = subprocess.Popen(annotate, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[1]
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(url)
            for domain in page.locator("#domains [role=option]").all():
                name = domain.get_attribute("data-domain")
                domain.click()
                sync_api.expect(page.locator("#tree-title")).to_have_text(name)
                sync_api.expect(page.locator("#rows [data-row]").first).to_be_visible()
                hosts = {host for host in mathematical if host == name or host.endswith(f".{name}")}
                for host in hosts:
                    row = page.locator(f'#rows [data-row="{host}"]')
                    if row.count():
                        row.locator(".path").click()
                        page.keyboard.press("m")
                        sync_api.expect(row).to_contain_text("✓ math")
            page.get_by_role("button", name="Export").click()
            sync_api.expect(page.locator("#export-command")).to_contain_text("experiments.mine")
            browser.close()
    finally:
        server.terminate()
        server.wait()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    first, second = (found["labelled"] for found in json.loads((tmp_path / "report.json").read_text())["rounds"])
    print("\nrecall", first, second)
    assert second["recall"] > first["recall"] + 0.05 and second["f1"] > first["f1"]
