"""An evaluation's page: what stands in it, what hostile texts cannot do, and what people do with it."""

import json
import re
import shutil

import pyarrow
import pyarrow.parquet
import pytest

from dsmath.evaluation import page
from dsmath.evaluation.page_texts import Texts
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import fingerprint

COUNT, RESULTS = 40, 5


@pytest.fixture(scope="module")
def text(evaluation):
    return page.write(evaluation).read_text(encoding="utf-8")


@pytest.fixture
def copy(evaluation, tmp_path):
    return shutil.copytree(evaluation, tmp_path / "evaluate")


def _data(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def _rewrite(copy, **changes):
    whole = json.loads((copy / "result.json").read_text(encoding="utf-8"))
    for record in whole["results"]:
        record |= changes
    (copy / "result.json").write_text(json.dumps(whole), encoding="utf-8")


def _table(text, title):
    section = text[text.index(title) :]
    rows = re.findall(r"<tr.*?</tr>", section[: section.index("</table>")], re.S)
    return [
        [re.sub(r"<[^>]+>|\s+", " ", cell).split() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows
    ]


def test_our_scores_stand_beside_the_quoted_ones_each_with_what_it_was_measured_on(text, evaluation):
    table = _table(text, "Tuned models: chain of thought")
    result = json.loads((evaluation / "result.json").read_text(encoding="utf-8"))["results"][1]
    assert table[0] == [["Model"], ["GSM8K"], ["MATH"], ["MGSM-zh"], ["CMATH"]]
    quoted = {" ".join(row[0]): row[1:] for row in table[1:]}
    assert quoted["DeepSeekMath-RL 7B quoted"] == [["88.2"], ["51.7"], ["79.6"], ["88.8"]]
    assert quoted["GPT-4 quoted"] == [["92.0"], ["52.9"], ["–"], ["86.0"]]
    ours = next(cells for name, cells in quoted.items() if "rl, step 50 ours" in name)
    assert ours[1][0] == f"{100 * result['accuracy']:.1f}"
    assert ours[1][2:5] == ["40", "of", "5,000"]
    assert ours[1][5] == f"{100 * result['difference']:+.1f}".replace("-", "−")
    assert ours[2] == ["–"]
    assert text.count("40 of 5,000") >= 2 * (1 + 1 + 2)  # both modes: in the list, in the paper's table, in both groups


def test_the_papers_grader_stands_there_where_it_differs(text, copy):
    assert "by the paper’s grader" in text
    _rewrite(copy, paper_accuracy=None)
    assert "paper’s grader</th>" not in (without := page.write(copy).read_text(encoding="utf-8")).lower()
    assert "by the paper’s grader" not in without


def test_every_question_is_there_with_its_verdicts(text):
    data = _data(text)
    assert len(data["questions"]) == COUNT * RESULTS
    math = [each for each in data["questions"] if (each["benchmark"], each["mode"]) == ("math", "chat")]
    assert {len(each["solutions"]) for each in math} == {4}  # the greedy one and three samples
    assert all(each["samples"] == 8 and each["solutions"][0]["sample"] is None for each in math)
    assert all(sum(count for _, count, _ in each["votes"]) + each["silent"] == 8 for each in math)
    assert "graders_differ" in math[2]["marks"]
    assert {"right", "wrong", "no_answer", "timeout"} <= {mark for each in math for mark in each["marks"]}


def test_a_page_is_bounded_and_says_what_it_left_out(evaluation, copy):
    bounded = page.write(copy, most_characters=20_000).read_text(encoding="utf-8")
    data = _data(bounded)
    shown = len(data["questions"])
    assert 10 < shown < 100
    assert f"<b>{shown} of {COUNT * RESULTS}</b> questions" in bounded
    assert sum(len(str(each)) for each in data["questions"]) < 200_000
    marks = {(each["benchmark"], each["mode"], each["solutions"][0]["reason"]) for each in data["questions"]}
    assert {"right", "wrong", "no_answer", "timeout"} <= {reason for *_, reason in marks}  # rare ones too
    assert {benchmark for benchmark, *_ in marks} == {"gsm8k", "math", "cmath", "humaneval"}
    assert page.write(copy, most_characters=20_000).read_text(encoding="utf-8") == bounded  # always the same


def test_no_text_of_a_model_is_markup_and_the_policy_names_what_may_run(text):
    assert "onerror=" in text
    assert "<img" not in text
    assert text.count("<script") == 2 == text.count("</script>")
    assert "default-src 'none'; style-src 'sha256-" in text
    assert "unsafe" not in text
    assert ' style="' not in text  # the policy would refuse it
    assert not re.search(r'src="|href="(?!#)', text)


def test_texts_are_cut_into_plain_parts_code_and_formulas():
    texts = Texts()
    parts = texts.cut("So $x^2$.\n```python\nprint('$x^2$')\n```\n```output\n4\n```\nAgain $x^2$, $\\frac{1$.")
    assert parts == [
        "So ", 0, ".\n", {"code": "print('$x^2$')", "language": "python"}, "\n", {"code": "4", "language": "output"},
        "\nAgain ", 0, ", $\\frac{1$.",
    ]  # fmt: skip
    assert [source for source, _ in texts.formulas] == ["$x^2$"]
    assert texts.formulas[0][1][0] == "math"
    assert texts.cut("    return 1", code=True) == [{"code": "    return 1", "language": ""}]
    assert texts.cut("```python\nx = 1") == [{"code": "x = 1", "language": "python"}]  # cut at the limit
    assert texts.cut_answer("\\frac{1}{2}") == [1]
    assert texts.cut_answer("1,234") == ["1,234"]
    assert texts.cut_answer("\\frac{1") == ["\\frac{1"]
    assert texts.cut("x" * 9000)[0].endswith("… 3,000 characters more")


def test_the_lineage_is_followed_and_a_changed_parent_is_marked(copy):
    lineage = json.loads((copy / "lineage.json").read_text(encoding="utf-8"))
    for name, parents in (("sft", {}), ("rl", {"init_from": "sft"})):
        folder = copy.parent / name
        folder.mkdir()
        record = {role: {"workdir": str(copy.parent / of), "lineage": fingerprint(copy.parent / of / "lineage.json"),
                         "step": 7} for role, of in parents.items()}  # fmt: skip
        (folder / "lineage.json").write_text(json.dumps({"parents": record, "data": {}, "code": "0.1.0+a"}))
    lineage["parents"]["init_from"]["workdir"] = str(copy.parent / "rl")
    (copy / "lineage.json").write_text(json.dumps(lineage))

    found = page.trace(copy)

    assert [(each["depth"], each["name"].split("/")[-1], each["state"]) for each in found] == [
        (0, "rl", "has changed since"),
        (1, "sft", "unchanged"),
    ]
    assert "✗ has changed since" in page.write(copy).read_text(encoding="utf-8")


def test_an_evaluation_without_samples_levels_or_paper_has_a_page(copy):
    whole = json.loads((copy / "result.json").read_text(encoding="utf-8"))
    plain = whole["results"][0] | {"benchmark": "embedded", "title": "Embedded problems", "upstream": None}
    plain |= {"samples": 0, "pass_at": {}, "maj_at": {}, "by_level": {}, "by_subject": {}, "published": None}
    for name in ("lineage.json", "config.json"):
        (copy / name).unlink()
    text = page.write(copy, {"results": [plain | {"coverage": "all 40"}]}).read_text(encoding="utf-8")
    assert "no verdicts" in text
    assert "Beside the paper" not in text
    assert "Some files hold only part" not in text


def test_a_page_of_new_verdicts_tells_how_their_generations_were_made(copy):
    target = copy / "rescored" / "1"
    shutil.copytree(copy / "verdicts", target / "verdicts")
    result = json.loads((copy / "result.json").read_text(encoding="utf-8"))
    text = page.write(target, result, most_characters=5_000).read_text(encoding="utf-8")
    assert "evaluation <code>evaluate, rescored 1</code>" in text
    assert "rl, step 50 solves" in text
    assert "--workdir=evaluate\n" in text


def test_damaged_files_are_named(copy):
    greedy = copy / "verdicts" / "math-chat-greedy.parquet"
    table = pyarrow.parquet.read_table(greedy)
    pyarrow.parquet.write_table(table.drop_columns(["reason"]), greedy)
    with pytest.raises(InputError, match=r"math-chat-greedy.parquet: column 'reason' is missing"):
        page.write(copy)
    greedy.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"math-chat-greedy.parquet: damaged Parquet"):
        page.write(copy)
    _rewrite(copy, accuracy="much")
    with pytest.raises(InputError, match=r"result.json: field 'results.0.accuracy'"):
        page.write(copy)
    (copy / "result.json").write_text("{}")
    with pytest.raises(InputError, match="field 'results': Field required"):
        page.write(copy)


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def open_page(browser, evaluation, text):
    """(options) -> the page in a browser; what is refused, thrown or asked of the network fails the test."""
    wrong, opened = [], []

    def open_page(**options):
        opened.append(browser.new_page(**options))
        tab = opened[-1]
        tab.set_default_timeout(15_000)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
        tab.goto(f"file://{evaluation / page.PAGE}")
        return tab

    yield open_page
    for tab in opened:
        tab.close()
    assert wrong == []


@pytest.fixture(scope="module")
def wide(open_page):
    return open_page(viewport={"width": 1280, "height": 900})


@pytest.fixture
def tab(wide):
    """The page as it is when it opens."""
    wide.reload()
    return wide


def test_questions_are_filtered_searched_and_shown_in_pages(tab):
    shown, count = tab.locator(".question"), tab.locator("#count")
    assert shown.count() == 25
    assert count.inner_text() == "200 of 200 questions"
    tab.locator("#benchmark").select_option("math")
    tab.locator("#mode").select_option("chat_tool")
    assert count.inner_text() == "40 of 200 questions"
    assert tab.locator("#place").inner_text() == "1–25 of 40"
    tab.get_by_role("button", name="Later").click()
    assert shown.count() == 15
    assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"
    tab.locator("#mark").select_option("right")
    assert set(shown.locator(".outcome").all_inner_texts()) == {"✓ right"}
    tab.get_by_label("Search").fill("frac{2}{3}")
    assert 0 < shown.count() < 10
    tab.get_by_label("Search").fill("nothing is like this")
    assert shown.count() == 0
    assert "widen the search" in count.inner_text()


def test_a_question_opens_by_key_to_its_solutions_with_verdicts_formulas_and_code(tab):
    tab.locator("#benchmark").select_option("math")
    tab.locator("#mode").select_option("chat_tool")
    tab.locator(".question > summary").first.focus()
    tab.keyboard.press("Enter")
    opened = tab.locator(".question[open]")
    opened.locator("article").first.wait_for()  # a browser tells late that a question opened; then they are made
    assert opened.locator("article").count() == 1
    code = opened.locator("pre").first
    assert code.get_attribute("data-language") == "python"
    assert code.inner_text().startswith("from sympy import Rational\n\nx = ")
    assert opened.locator("math mfrac").count() > 0
    boxes = opened.locator("math").evaluate_all("all => all.map(each => each.getBoundingClientRect().height)")
    assert all(height > 5 for height in boxes)
    tab.locator("#mode").select_option("chat")
    tab.locator("#mark").select_option("graders_differ")
    tab.locator(".question > summary").first.click()
    assert "paper’s grader: ✗ not right, answer 2" in tab.locator("article h4").first.inner_text()
    assert re.search(r"\d of 8 right", tab.locator("dl").inner_text())


def test_a_program_is_shown_as_code_without_an_answer(tab):
    tab.locator("#benchmark").select_option("humaneval")
    tab.locator("#mark").select_option("right")
    tab.locator(".question > summary").first.click()
    opened = tab.locator(".question[open]")
    assert opened.locator("summary .answer").count() == 0
    assert "answer" not in opened.locator("h4, dt").all_inner_texts()[0]
    assert opened.locator("article pre").first.inner_text().startswith("    total = a + b\n")


def test_a_hostile_completion_is_text(tab, attack):
    tab.get_by_label("Search").fill("onerror")
    assert tab.locator(".question").count() == 1
    tab.locator(".question > summary").click()
    solution = tab.locator("article").first
    assert solution.locator(".text").inner_text().startswith(attack)
    assert "$\\frac{1$ and" in solution.inner_text()
    assert solution.locator(".detail").inner_text() == attack
    assert tab.locator("#list").locator("img, script").count() == 0
    tab.wait_for_timeout(200)
    assert tab.title() == "dsmath: evaluation evaluate"


def test_the_page_fits_a_phone_and_the_dark(open_page):
    phone = open_page(viewport={"width": 360, "height": 800}, color_scheme="dark")
    phone.locator(".question > summary").first.click()
    assert phone.evaluate("document.documentElement.scrollWidth") == 360
    assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    for region in phone.locator(".scroll").all():
        assert region.get_attribute("tabindex") == "0"  # what scrolls sideways does so by keys too


def test_without_a_script_tables_and_figures_are_there(open_page):
    quiet = open_page(java_script_enabled=False)
    assert "51.7" in quiet.locator("#paper").inner_text()
    assert quiet.locator("#samples-at-k svg").count() == 3
    assert "needs JavaScript" in quiet.locator("#solutions").inner_text()
    assert "pass@k" in quiet.locator("#samples-at-k svg").first.get_attribute("aria-label")
