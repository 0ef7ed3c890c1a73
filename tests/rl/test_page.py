"""The page of a run's samples: what stands in it, what hostile texts cannot do, and what people do with it."""

import json
import re
import shutil
import sys

import numpy as np
import pyarrow
import pytest

from dsmath.data import problems
from dsmath.data.tokenizer import Tokenizer
from dsmath.rl import advantages, curves
from dsmath.rl import samples as record
from dsmath.rl.page import PAGE, write_page
from dsmath.rollout.samples import Samples
from dsmath.runs.metrics import MetricsWriter

ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
Q, G = 4, 4


def write_run(workdir, steps=3, questions=Q, group=G, process=False):
    """A workdir with metrics and samples: solutions of the embedded problems, some of them spoiled."""
    rng = np.random.default_rng(0)
    records = problems.load("embedded", "train", count=steps * questions, seed=0)
    tokenizer = Tokenizer.train([f"{each.question} {each.solution}" for each in records] * 8, vocab_size=500)
    with MetricsWriter(workdir) as writer:
        for step in range(1, 10 * steps + 1):
            figures = {"reward": 0.3 + 0.02 * step, "accuracy": 0.25 + 0.02 * step, "kl": 0.001 * step}
            figures |= {"entropy": 1 / step, "length": 1000.0 + 20 * step, "clip_fraction": 0, "surprise": 1.0}
            writer.write(step, figures)
            counts = [0, *rng.integers(10, 90, 10), 0]
            writer.write_histogram(step, "gradient_coefficient", counts, np.linspace(-3, 3, 13))
    for step in range(1, steps + 1):
        chosen = records[(step - 1) * questions : step * questions]
        texts, right = [], rng.random((questions, group)) < 0.6
        right[0] = True  # a group that teaches nothing
        for question, sample in np.ndindex(questions, group):
            solution = chosen[question].solution
            spoiled = re.sub(r"\d+(?=\}|\D*$)", lambda found: str(int(found[0]) + 1), solution)
            texts.append(solution if right[question, sample] else spoiled)
        texts[-2] = f"{ATTACK}\r\n\x00 魑 and $x<y$"
        write_step(workdir, step, chosen, texts, right, tokenizer, process)


def write_step(workdir, step, chosen, texts, right, tokenizer, process):
    rng = np.random.default_rng(step)
    encoded = [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    shape, length = right.shape, max(map(len, encoded))
    lengths = np.array([len(tokens) for tokens in encoded], np.int32).reshape(shape)
    tokens = np.full((*shape, length), tokenizer.pad_id, np.int32)
    mask = (np.arange(length) < lengths[..., None]).astype(np.float32)
    for place, each in zip(np.ndindex(shape), encoded, strict=True):
        tokens[place][: len(each)] = each
    mask[1, 0, 3:6] = 0  # a tool spoke
    rewards = right.astype(np.float32)
    by_token, steps = np.asarray(advantages.outcome(rewards)), {}
    if process:
        ends = np.stack([lengths // 2, lengths - 1], axis=-1)
        steps = {"step_ends": ends, "step_rewards": rng.random(ends.shape).astype(np.float32)}
        by_token = np.asarray(advantages.process(steps["step_rewards"], ends, length))
    logprobs = -rng.exponential(0.4, tokens.shape).astype(np.float32) * mask
    ref = logprobs + rng.normal(0, 0.2, tokens.shape).astype(np.float32)
    table = record.make_table(
        step,
        range(len(chosen)),
        chosen,
        [tokenizer.encode(f"User: {each.question}\n\nAssistant:") for each in chosen],
        Samples(tokens, logprobs, mask, lengths, lengths == length),
        tokenizer,
        rewards=rewards,
        advantages=by_token,
        correct=right,
        parts={"rule": rewards, "outcome_model": rewards / 2},
        coefficients=(by_token if process else by_token[..., None]) + 0.04 * (np.exp(ref - logprobs) - 1),
        ref_logprobs=ref,
        **steps,
    )
    record.write(workdir, step, table, keep=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("page") / "rl"
    write_run(workdir)
    return workdir


def _page(workdir, most_tokens=100_000):
    return write_page(workdir, most_tokens).read_text(encoding="utf-8")


def _data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_the_page_shows_the_newest_steps_first_with_every_sample_and_its_numbers(run):
    page = _page(run)
    assert re.findall(r'<details class="question" data-step="(\d)"', page) == ["3"] * Q + ["2"] * Q + ["1"] * Q
    assert page.count("<article>") == 3 * Q * G == len(_data(page))
    assert page.count("zero advantage</em>") >= 3  # the first group of each step
    assert "4 of 4" in page
    assert "rule 1, outcome_model 0.5" in page
    texts = record.read(run, [3])["pieces"].to_pylist()
    assert sorted(len(pieces) for pieces in texts) == sorted(len(each["pieces"]) for each in _data(page)[: Q * G])


def test_the_pieces_cut_the_text_as_a_browser_counts_it(run):
    page = _page(run)
    texts = re.findall(r'<p class="text" data-sample="\d+">(.*?)</p>', page, re.S)
    for text, each in zip(texts, _data(page), strict=True):
        for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&")):
            text = text.replace(entity, character)
        assert len(text.encode("utf-16-le")) // 2 == sum(each["pieces"])


def test_no_text_of_a_model_is_markup_and_the_policy_names_what_may_run(run):
    page = _page(run)
    assert "onerror=&#34;" in page
    assert "<img" not in page
    assert page.count("<script") == 2
    assert "default-src 'none'; style-src 'sha256-" in page
    assert "unsafe" not in page
    assert not re.search(r'(src|href)="', page)


def test_the_curves_and_the_legend_are_those_of_the_metrics(run):
    page = _page(run)
    titles = re.findall(r"<figcaption><span>(.*?)</span> <b>(.*?)</b>", page)
    assert titles == [
        ("reward", "0.9"), ("accuracy", "0.85"), ("KL to the reference", "0.03"), ("entropy", "0.0333"),
        ("length, tokens", "1,600"), ("clipped tokens", "0"),
    ]  # fmt: skip
    assert page.count("<polyline") == 2 * len(titles)
    assert "gradient coefficients, step 30" in page
    assert page.count('<rect class="bin"') == 10  # empty bins at both ends are left out
    assert "0 by construction at mu = 1" in page
    assert "<code>surprise</code>" in page  # without an entry it is shown all the same


def test_a_page_is_bounded_by_whole_groups_of_the_newest_steps(run):
    newest = sum(len(pieces) for pieces in record.read(run, [3])["pieces"].to_pylist())
    page = _page(run, most_tokens=newest)
    assert re.findall(r'<details class="question" data-step="(\d)"', page) == ["3"] * Q
    page = _page(run, most_tokens=newest - 1)
    assert page.count("<article>") == (Q - 1) * G
    assert "1 more questions of these steps" in page
    assert _page(run, most_tokens=1).count("<article>") == G  # one group at least


def test_steps_that_a_reward_model_judged_stand_with_their_rewards(tmp_path):
    write_run(tmp_path, steps=1, process=True)
    page, judged = _page(tmp_path), record.read(tmp_path, [1]).to_pylist()
    shown = {tuple(each["step_rewards"]) for each in _data(page)}
    assert shown == {tuple(round(float(reward), 3) for reward in row["step_rewards"]) for row in judged}
    assert all(each["step_ends"][-1] == len(each["pieces"]) - 1 for each in _data(page))
    assert "mean advantage <b>" in page


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    assert "No samples yet" in _page(tmp_path)


def test_what_is_no_number_is_left_out_of_curves_and_of_the_data(run, tmp_path):
    svg = curves.draw([1, 2, 3, 4], [0.5, float("nan"), None, 0.7])
    assert svg.count("<polyline") == 2
    assert "nan" not in svg
    assert "<polyline" not in curves.draw([1], [float("inf")])
    assert curves.draw([5], [1.0]).count(",") == 4  # one value is a short line
    shutil.copytree(run, tmp_path / "rl")
    table = record.read(run, [3]).to_pylist(maps_as_pydicts="strict")
    table[0]["logprobs"][0] = float("-inf")
    record.write(tmp_path / "rl", 4, pyarrow.Table.from_pylist(table[:G], schema=record.SCHEMA), keep=5)
    first = max(_data(_page(tmp_path / "rl"))[:G], key=lambda each: each["logprobs"].count(None))
    assert first["logprobs"][0] is None


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture
def opened(browser, run):
    """The page in a browser; what is refused, thrown or asked of the network fails the test."""
    wrong = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
    write_page(run, 100_000)
    page.goto(f"file://{run / PAGE}")
    yield page
    page.close()
    assert wrong == []


def test_a_question_opens_by_key_and_its_tokens_are_coloured(opened):
    opened.locator(".question > summary").nth(1).focus()
    opened.keyboard.press("Enter")
    texts = opened.locator(".question[open] .text")
    assert texts.count() == G
    texts.locator(".tool").first.wait_for()  # a browser tells late that a question opened; then it is coloured
    text = next(text for text in texts.all() if text.locator(".tool").count())
    colours = text.locator("span").evaluate_all("all => all.map(each => getComputedStyle(each).backgroundColor)")
    assert len(set(colours)) >= 2  # the tool's output is grey
    signs = {text.locator("span").last.get_attribute("class") for text in texts.all()}
    assert signs == {"up", "down"}  # a group of right and wrong samples
    assert "advantage +" in texts.first.locator("span").last.get_attribute("title")
    texts.first.focus()
    opened.keyboard.press("End")
    assert "“<eos>”: advantage +" in opened.locator("#reading").inner_text()
    opened.locator("#quantity").select_option("coefficients")
    assert "gradient coefficient" in opened.locator("#key").get_attribute("aria-label")


def test_a_hostile_completion_is_text(opened):
    opened.locator("#search").fill("onerror")
    assert opened.locator(".question:visible").count() == 3  # one a step
    opened.locator(".question:visible > summary").first.click()
    text = opened.locator(".question[open] .text").filter(has_text="onerror")
    assert ATTACK in text.inner_text()
    assert "␍" in text.inner_text()
    assert "魑" in text.inner_text()
    assert text.locator("img, script").count() == 0
    opened.wait_for_timeout(200)
    assert opened.title() == "dsmath: samples of rl"


def test_questions_are_sorted_and_filtered(opened):
    opened.get_by_role("button", name="Mean reward").click()
    rewards = opened.locator(".question").evaluate_all("all => all.map(each => Number(each.dataset.reward))")
    assert rewards == sorted(rewards)
    opened.get_by_role("button", name="Mean reward").click()
    rewards = opened.locator(".question").evaluate_all("all => all.map(each => Number(each.dataset.reward))")
    assert rewards == sorted(rewards, reverse=True)
    opened.locator("#kind").select_option("idle")
    shown = opened.locator(".question:visible")
    assert shown.count() == opened.locator("[data-kinds~=idle]").count() >= 3
    assert opened.locator("#count").inner_text() == f"{shown.count()} of {3 * Q} questions"


if __name__ == "__main__":  # a look at the page: python tests/rl/test_page.py FOLDER
    write_run(sys.argv[1], steps=3, questions=16, group=8, process="process" in sys.argv)
    print(write_page(sys.argv[1], 100_000))
