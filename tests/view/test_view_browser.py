"""The page over a folder of runs in a real browser: choosing, drawing, going live, hostile files."""

import contextlib
import re
import socket
import threading

import pyarrow
import pyarrow.parquet
import pytest
import uvicorn

from dsmath.runs.workdir import write_json
from dsmath.view.app import make_app
from dsmath.view.files import Folder

playwright_sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_sync.expect

GRPO = "sweep/grpo-0"
# Plotly brings styles for maps, which are not drawn here; the policy refuses them as it should.
_REFUSED_STYLE = "Applying inline style violates"


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def serve(root):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = uvicorn.Server(uvicorn.Config(make_app(Folder(root)), log_level="error"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            return f"http://127.0.0.1:{listener.getsockname()[1]}/"

        yield serve


@pytest.fixture
def open_page(browser):
    """(url) -> a page in a context of its own, its runs there; what goes wrong in it fails the test."""
    with contextlib.ExitStack() as stack:
        problems, refused = [], re.compile("refused to|violates|policy|uncaught|error", re.IGNORECASE)

        def watch(page, url):
            page.on("pageerror", lambda error: problems.append(f"error: {error}"))
            page.on(
                "console",
                lambda message: (
                    refused.search(message.text)
                    and not message.text.startswith(_REFUSED_STYLE)
                    and problems.append(f"console: {message.text}")
                ),
            )
            page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.on("request", lambda request: request.url.startswith(url) or problems.append(f"asked: {request.url}"))

        def open_page(url, address="", **options):
            context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
            stack.callback(context.close)
            context.on("page", lambda page: watch(page, url))
            page = context.new_page()
            page.goto(f"{url}{address}")
            expect(page.locator("#runs > li").first).to_be_attached()
            return page

        yield open_page
    assert problems == []


def _choose(page, *names):
    for name in names:
        page.locator(f'#runs [data-run="{name}"]').check()


def _plot(page, metric):
    """The values that are drawn, by run."""
    drawn = "plot => plot.data.map(trace => [trace.name, trace.y.length, trace.y.at(-1)])"
    return page.locator(f'[data-metric="{metric}"] .plot').evaluate(drawn)


def test_lineage_is_drawn_and_what_is_chosen_in_it_lights_up(root, serve, open_page):
    page = open_page(serve(root))
    nodes = page.locator("#lineage .node")
    expect(nodes).to_have_count(7)  # the three evaluations are one
    expect(page.locator("#lineage path")).to_have_count(7)
    expect(page.locator("#totals")).to_have_text("9 finished")
    page.get_by_role("button", name="grpo-1").click()
    expect(page.locator('[data-node="sweep/grpo-1"]')).to_have_attribute("aria-pressed", "true")
    far = page.locator("#lineage .node.far").evaluate_all("nodes => nodes.map(node => node.dataset.node)")
    assert sorted(far) == ["sweep/evaluated-10", GRPO]
    page.get_by_role("button", name="3 evaluations").press("Enter")
    expect(page.locator("#chosen-count")).to_have_text("4 chosen")
    expect(page.locator("#runs input:checked")).to_have_count(4)
    expect(page.get_by_role("button", name="3 evaluations")).to_be_focused()


def test_curves_of_runs_lie_over_each_other_and_the_address_keeps_them(root, serve, open_page):
    page = open_page(serve(root))
    _choose(page, GRPO, "sweep/grpo-1")
    page.get_by_role("tab", name="Curves").click()
    expect(page.locator("#plots svg.main-svg").first).to_be_visible()
    assert _plot(page, "reward") == [["grpo-0", 20, 1], ["grpo-1", 20, 1]]
    page.locator("#metrics-fold summary").click()
    page.locator('#metrics [data-metric="seconds"]').uncheck()
    page.get_by_label("By").select_option("tokens")
    page.get_by_label("Smoothing").fill("0.5")
    page.get_by_label("logarithmic").check()
    expect(page.locator("#plots figure")).to_have_count(3)
    expect(page.locator("#plots .xtitle").first).to_have_text("tokens")
    assert _plot(page, "reward")[0][2] == pytest.approx(0.95, abs=0.001)  # half a step behind by each half
    page.reload()
    expect(page.locator("#plots .xtitle").first).to_have_text("tokens")
    expect(page.locator("#plots figure")).to_have_count(3)
    expect(page.get_by_label("Smoothing")).to_have_value("0.5")
    colours = page.locator("#chosen li").evaluate_all(
        "all => all.map(one => one.style.getPropertyValue('--ink-of-run'))"
    )
    assert len(set(colours)) == 2
    page.get_by_role("button", name="Leave out sweep/grpo-1").click()
    expect(page.locator("#chosen li")).to_have_count(1)


def test_a_run_that_goes_on_is_followed(make_run, serve, open_page, append):
    folder = make_run(
        "live", "rl", metrics=[{"step": 1, "loss": 4.0}], heartbeat={"step": 1, "host": "another"}, num_steps=3
    )
    page = open_page(serve(folder.parent), "#tab=curves&run=live")
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#plots svg.main-svg").first).to_be_visible()
    row = page.locator("#runs > li").first
    expect(row).to_contain_text("rl · running · step 1 of 3")
    append(folder, {"step": 2, "loss": 3.0})
    write_json(folder / "heartbeat.json", {"step": 2, "time": 4e9, "host": "another"})
    expect(row).to_contain_text("step 2 of 3")
    page.wait_for_function("document.querySelector('.plot').data[0].y.length === 2")
    make_run("new", "sft", {"init_from": ("live", 2)})
    expect(page.locator("#runs > li")).to_have_count(2)
    write_json(folder / "result.json", {"loss": 3.0})
    expect(row).to_contain_text("finished · loss 3")


def test_configs_samples_and_reports(root, serve, open_page):
    page = open_page(serve(root))
    _choose(page, GRPO, "sweep/grpo-1")
    page.get_by_role("tab", name="Configs").click()
    expect(page.locator("#configs tbody tr")).to_have_text(["seed01"])
    page.get_by_role("tab", name="Configs").press("ArrowRight")
    expect(page.locator(".sample")).to_have_count(20)
    expect(page.locator("#samples-place")).to_have_text("1–20 of 50")
    page.get_by_role("button", name="Next page").click()
    expect(page.locator("#samples-place")).to_have_text("21–40 of 50")
    page.get_by_label("Show").select_option("right")
    expect(page.locator(".sample")).to_have_count(1)
    expect(page.locator(".sample")).to_contain_text("✓ right")
    page.get_by_label("File").select_option("samples/000010.parquet")
    page.get_by_label("Show").select_option("all")
    expect(page.locator(".sample")).to_have_count(8)
    page.get_by_role("tab", name="Reports").click()
    expect(page.locator(".report").first.locator("dd")).to_have_text(["0.75", "–"])
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="samples.html").first.click()
    expect(opened.value.get_by_role("heading")).to_have_text("Samples")


HOSTILE = "<img src=x onerror=alert(1)><script>pwned=1</script><a href='javascript:alert(1)'>&lt;b&gt;%{x}"


def test_hostile_files_never_run(root, make_run, serve, open_page):
    name = "<img src=x onerror=alert(1)>"
    run = make_run(
        name, f"rl{HOSTILE}", metrics=[{"step": n, HOSTILE: 1.0 / n, "loss": 1.0} for n in (1, 2, 3)],
        result={HOSTILE: 5}, **{HOSTILE: HOSTILE, "seed": HOSTILE * 300},
    )  # fmt: skip
    (run / "heartbeat.json").write_text(HOSTILE)
    parents = {HOSTILE: {"workdir": f"/{HOSTILE}", "lineage": HOSTILE, "step": HOSTILE}}
    write_json(run / "lineage.json", {"parents": parents, "code": HOSTILE})
    (run / "samples").mkdir()
    row = {
        "question": [HOSTILE],
        "completion": [HOSTILE + "\u202e" + "x" * 50_000],
        HOSTILE: [HOSTILE],
        "correct": [True],
    }
    pyarrow.parquet.write_table(pyarrow.table(row), run / "samples" / "1.parquet")
    script = "<script>document.title = 'pwned'; fetch('/api/runs'); location = '/pwned'</script>"
    (run / "report.html").write_text(
        f"<!doctype html><title>report</title><p>read me{script}<img src=x onerror='pwned=1'>"
    )
    page = open_page(serve(root))
    expect(page.locator("#lineage .elsewhere")).to_have_count(1)
    page.locator("#runs > li").filter(has_text="onerror").first.locator("input").check()
    for tab, seen in [
        ("Curves", "#plots svg.main-svg"),
        ("Configs", "#configs tr"),
        ("Samples", ".sample"),
        ("Reports", ".report"),
    ]:
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(seen).first).to_be_visible()
        if tab == "Curves":
            page.locator(".plot").first.hover()
        page.screenshot()
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main :is(img, script, iframe, style, object)").count() == 0
    assert page.locator("a:not([href^='/files/'])").count() == 0
    context = page.context.browser.new_context()  # not by open_page: the refusals are errors in the console
    report = context.new_page()
    report.goto(page.get_by_role("link", name="report.html").evaluate("link => link.href"))
    expect(report.locator("p")).to_contain_text("read me")
    assert report.title() == "report" and report.evaluate("window.origin") == "null"
    assert report.evaluate("window.pwned") is None
    context.close()


def test_our_own_samples_page_runs_its_script_in_the_sandbox(root, serve, browser):
    from dsmath.rl import page as samples_page

    script = (samples_page._FOLDER / "page.js").read_text(encoding="utf-8")
    (root / GRPO / "samples.html").write_text(f"<!doctype html><p>text<script>{script}</script>")
    context = browser.new_context()
    page, refused = context.new_page(), []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(f"{serve(root)}files/{GRPO}/samples.html")
    context.close()
    assert not [text for text in refused if "inline script" in text]


def test_page_is_narrow_on_a_phone_dark_where_asked_and_named(root, serve, open_page):
    phone = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark", "is_mobile": True}
    page = open_page(serve(root), f"#tab=curves&run={GRPO}", **phone)
    expect(page.locator("#plots svg.main-svg").first).to_be_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 64
    page.locator("#runs-fold summary").click()
    _choose(page, "sft")
    for tab in ("Lineage", "Curves", "Configs", "Samples", "Reports"):
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tabpanel", name=tab)).to_be_visible()
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), tab
    unnamed = "button => !button.textContent.trim() && !button.ariaLabel"
    assert page.locator("button").evaluate_all(f"buttons => buttons.filter({unnamed}).length") == 0
