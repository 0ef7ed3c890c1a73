"""Decontamination: 10-grams, short texts, how texts are re-typeset, what is removed, and what does not count."""

import html
import itertools
import pickle
import random
import re
import textwrap
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from dsmath.runs.errors import InputError
from dsmath.web.benchmark_texts import BenchmarkText, read_benchmarks
from dsmath.web.decontaminate import CONTAMINATED_SCHEMA, Decontaminator, audit_table
from dsmath.web.grams import gram_value, is_word, join_grams

_QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
_CHINESE = "小明有三十二个苹果，比小红多八个，小红有多少个苹果？"
_OTHER = "The river under the lonely bridge was painted by masters who never asked for money or fame. "


def test_a_line_with_ten_grams_is_removed_and_the_rest_stays():
    page = f"{_OTHER}\nWe ask: {_QUESTION} Good luck.\n{_OTHER}\n"
    text, (segment,) = Decontaminator({"gsm8k": ["72", _QUESTION]}).clean(page)
    assert text == f"{_OTHER}\n{_OTHER}\n"
    assert segment.text == page[segment.start : segment.end] == f"We ask: {_QUESTION} Good luck.\n"
    assert (segment.benchmark, segment.item, segment.dropped) == ("gsm8k", "2", False)
    assert segment.ngram == "natalia sold clips to 48 of her friends in april"


def test_nine_grams_of_a_long_text_are_no_match():
    decontaminator = Decontaminator([_QUESTION])
    words = _QUESTION.split()
    assert decontaminator.contaminated_segments(" ".join(words[3:12])) == []
    assert len(decontaminator.contaminated_segments(" ".join(words[3:13]))) == 1
    assert decontaminator.contaminated_segments(" ".join([*words[3:8], "other", *words[8:13]])) == []
    assert decontaminator.contaminated_segments("") == []


def test_runs_of_numbers_and_letters_do_not_count_unless_a_text_has_no_others():
    sequence = "1 2 3 4 5 6 7 8 9 10 11 12"
    decontaminator = Decontaminator([f"List the numbers {sequence} in a row, please, from the left to the right."])
    assert decontaminator.contaminated_segments(sequence) == []
    assert decontaminator.contaminated_segments(f"numbers {sequence} in a row") != []
    assert Decontaminator(["$(9-4i)-(-3-4i)=9-4i+3+4i=12$"]).contaminated_segments("(9-4i)-(-3-4i) = 9-4i+3+4i")
    assert Decontaminator(["x x x x x x y y y y y y y"]).contaminated_segments("x x x x x x y y y y y y y") == []


def test_a_short_question_removes_the_whole_page_only_where_it_stands_whole():
    decontaminator = Decontaminator({"short": ["What is two plus two?"], "tiny": ["Find x", r"8^2 - 2^8"]})
    text, (segment,) = decontaminator.clean("A page.\n\nSo, what is two plus\ntwo? Four.")
    assert (text, segment.benchmark, segment.ngram) == ("", "short", "what is two plus two")
    assert segment.dropped
    assert decontaminator.clean("A page.\nwhat is two plus three").segments == []
    assert decontaminator.clean("Find x such that 8^2 - 2^8 = y").segments == []


def test_short_answers_and_options_do_not_count():
    answer = BenchmarkText("7", "none of these", is_question=False)
    assert Decontaminator({"mmlu": [answer]}).contaminated_segments("It is none of these.") == []
    assert Decontaminator({"mmlu": [answer._replace(is_question=True)]}).contaminated_segments("It is none of these.")


def test_chinese_is_compared_by_characters():
    decontaminator = Decontaminator({"cmath": [_CHINESE]})
    spaced = "　".join(_CHINESE.replace("，", ""))
    text, (segment,) = decontaminator.clean(
        f"前言在此，与题目毫无关系，只是为了让页面更长一些。\n{spaced}\n后记。",
    )
    assert text == ""  # most of the page
    assert segment.ngram == "小明有三十二个苹果比"
    assert decontaminator.contaminated_segments("小明有三十二个苹，果很好吃，大家都喜欢。") == []


@pytest.mark.parametrize(
    ("benchmark", "page"),
    [
        (r"$\frac{1}{2}$", r"\dfrac{1}{2}"),
        (r"$\frac{1}{2}$", "½"),
        (r"$4x+6$", r"\(4 x + 6\)"),
        (r"$\left(x_{1}\right)^2$", "(x_1)²"),
        (r"$x \text{ if } y$", r"x~\mathrm{if}\;y"),
        (r"$\sin \alpha \le 2\pi$", "sin α ≤ 2π"),
        (r"$\varphi\quad\Delta$", "φ Δ"),
        (r"\begin{array}{cl} a & b \\ c & d \end{array}", r"\begin{matrix}a&b\\c&d\end{matrix}"),
        (r"\mathbb{R}", "ℝ"),
        ("80,000 or 1{,}234,567", "80000 or 1 234 567"),
        ("48/2 = <<48/2=24>>24", "48/2 = 24"),
        ("48/2 = <<48/2=24>>24", html.escape("48/2 = <<48/2=24>>24")),
        ("Janet's don't", "janet’s DON&#39;T"),
        ("first office", "ﬁrst oﬃce"),
        ("mathematics", "mathe-\nmatics"),
        ("mathematics", "mathe\u00admat\u200bics"),
        ("three-digit", "three-\ndigit"),
        ("a café", "a cafe\u0301"),
        ("a café", "a caf&eacute;"),
        ("ABC 48", "ＡＢＣ　４８"),
        ("a < b > c", "<b>a</b> &lt; <i class='x'>b</i> &gt;<br/>c"),
        ("snake_case", "snake case"),
        ("豈", "\uf900"),
    ],
)
def test_what_does_not_count(benchmark, page):
    frame = "he asks her friend {} which of these many books was written long ago"
    decontaminator = Decontaminator([frame.format(benchmark)])
    grams = decontaminator._cutter.grams
    assert grams(benchmark)[0] == grams(page)[0]
    (segment,) = decontaminator.contaminated_segments(frame.format(page))
    assert segment.ngram.startswith("he asks her friend")


def test_the_quick_way_cuts_the_same_grams_as_the_slow_one(shared_data):
    benchmarks = read_benchmarks(f"{shared_data}/benchmarks/*/test.jsonl")
    cutter = Decontaminator(["mathematics of the other word"])._cutter
    for text in random.Random(0).sample([text.text for texts in benchmarks.values() for text in texts], 500):
        assert list(map(gram_value, cutter.grams(text)[0])) == cutter.values(text).tolist()


def test_spaces_in_a_tag_are_read_once():
    begun = time.process_time()
    grams, _, _ = Decontaminator(["a b c"])._cutter.grams("<p a=" + " " * 500_000 + "b")
    assert time.process_time() - begun < 2  # 300 times took four seconds
    assert grams == ["p", "a", "b"]


@hypothesis.given(
    st.text(st.sampled_from("aZ09 \n-.$\\'’&;<>_你𠀀豈é½²α\u200b\xad\xa0ﬁ４—ー한\ud800\x1f\u0301①") | st.characters())
)
@hypothesis.example("水䷀a\u4dff水\u4dbf\u4e00")  # symbols among the Chinese characters
def test_any_text_is_cut_the_same_way_twice(text):
    cutter = Decontaminator(["a9 Z0 aZ"])._cutter
    grams, starts, ends = cutter.grams(text)
    assert list(map(gram_value, grams)) == cutter.values(text).tolist()
    assert starts == sorted(starts)
    assert all(0 <= start < end <= len(text) for start, end in zip(starts, ends, strict=True))


_WORDS = [f"w{chr(97 + number)}" for number in range(12)] + ["数", "学", "7", "12,345"]


@hypothesis.given(
    st.lists(st.lists(st.sampled_from(_WORDS), min_size=10, max_size=30), min_size=1, max_size=4),
    st.lists(st.sampled_from([*_WORDS, "unknown", ".\n", "\n"]), max_size=60),
    st.data(),
)
def test_segments_are_those_of_a_plain_search(benchmark, page, data):
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(page)))
        page[place:place] = data.draw(st.sampled_from(benchmark))
    text = " ".join(page)
    decontaminator = Decontaminator([" ".join(words) for words in benchmark])
    cut = decontaminator._cutter.grams
    known = set()
    for words in benchmark:
        grams = cut(" ".join(words))[0]
        runs = [tuple(grams[start : start + 10]) for start in range(len(grams) - 9)]
        runs = [run for run in runs if len(set(run)) >= 4]
        telling = [run for run in runs if sum(is_word(gram) for gram in run) >= 2]
        known.update(telling or runs)
    grams, starts, ends = cut(text)
    found = [start for start in range(len(grams) - 9) if tuple(grams[start : start + 10]) in known]
    segments = decontaminator.contaminated_segments(text)
    assert bool(segments) == bool(found)
    assert all(before.end <= after.start for before, after in itertools.pairwise(segments))
    for start in found:
        assert any(one.start <= starts[start] and ends[start + 9] <= one.end for one in segments)
    for segment in segments:
        inside = cut(text[segment.start : segment.end])[0]
        assert segment.ngram in join_grams(inside)
    cleaned = decontaminator.clean(text)
    assert decontaminator.clean(cleaned.text) == (cleaned.text, [])
    assert not decontaminator.contaminated_segments(cleaned.text)


def test_near_segments_become_one_named_after_the_item_that_matches_most():
    first, second = (
        "once upon a time there was a very old king",
        "who had seven sons and eleven daughters in his big castle",
    )
    decontaminator = Decontaminator({"tales": [first, f"{second} by the sea"]})
    (segment,) = decontaminator.contaminated_segments(f"Start.\n{first}\nand then\n{second}\nEnd.")
    assert (segment.start, segment.item, segment.ngram[:8]) == (len("Start.\n"), "2", "who had ")
    lines = "\n".join([_QUESTION, _OTHER, _OTHER, _QUESTION, _QUESTION])
    cleaned = Decontaminator([_QUESTION], max_removed=0.9).clean(lines)
    assert cleaned.text == f"{_OTHER}\n{_OTHER}\n"
    assert len(cleaned.segments) == 2


def test_a_page_of_one_long_line_loses_the_sentences_around_the_match_alone():
    decontaminator = Decontaminator([_QUESTION])
    text, (segment,) = decontaminator.clean(50 * _OTHER + f"So: {_QUESTION} " + 50 * _OTHER)
    assert segment.text.strip() == f"So: {_QUESTION}"
    assert text.count(_OTHER.strip()) == 100
    unpunctuated = _OTHER.replace(".", "")
    page = 50 * unpunctuated + _QUESTION.strip(".") + " " + 50 * unpunctuated
    text, (segment,) = decontaminator.clean(page)
    assert segment.end - segment.start <= len(_QUESTION) + 1000
    assert set(text.split()) == set(unpunctuated.split())  # no word is cut
    chinese = Decontaminator([_CHINESE]).clean(3000 * "题" + _CHINESE + 3000 * "解")
    assert 5000 <= len(chinese.text) < 6000


def test_a_page_that_loses_most_of_itself_goes_whole():
    page = f"{_OTHER}\n{_QUESTION}\n{_QUESTION}\n"
    text, (segment,) = Decontaminator([_QUESTION]).clean(page)
    assert text == ""
    assert segment.dropped
    assert page[segment.start : segment.end] == f"{_QUESTION}\n{_QUESTION}\n"
    assert Decontaminator([_QUESTION], max_removed=0.9).clean(page).text == f"{_OTHER}\n"
    assert Decontaminator([_QUESTION], max_removed=1).clean(f"\n{_QUESTION}\n").text == ""
    with pytest.raises(InputError, match="max_removed=50"):
        Decontaminator([_QUESTION], max_removed=50)


def test_text_that_reads_on_when_a_segment_is_gone_goes_too():
    inner = "once upon a time there was a very old king"
    question = _QUESTION.partition(" half")[0]
    head, tail = question.split(" friends ")
    page = f"{3 * _OTHER}\n{head} friends\n{inner}\n{tail}\n{3 * _OTHER}"
    cleaned = Decontaminator([question, inner]).clean(page)
    assert cleaned.text == f"{3 * _OTHER}\n{3 * _OTHER}"
    (segment,) = cleaned.segments
    assert page[segment.start : segment.end] == f"{head} friends\n{inner}\n{tail}\n"
    assert segment.ngram == inner


def test_the_audit_has_a_row_for_each_segment():
    decontaminator = Decontaminator({"gsm8k/test": [BenchmarkText("12 (id-12)", _QUESTION, True)]})
    segments = decontaminator.clean(f"{_QUESTION}{600 * '!'}\n{20 * _OTHER}").segments
    table = audit_table([("https://a.org/", segment) for segment in segments])
    assert table.schema == CONTAMINATED_SCHEMA
    (row,) = table.to_pylist()
    assert (row["url"], row["benchmark"], row["item"]) == ("https://a.org/", "gsm8k/test", "12 (id-12)")
    assert (row["start"], row["dropped"], len(row["text"])) == (0, False, 500)
    assert audit_table([]).num_rows == 0


def test_a_saved_decontaminator_finds_the_same(tmp_path):
    decontaminator = Decontaminator({"a": [_QUESTION, "What is two plus two?"], "b": [_CHINESE]}, max_removed=0.9)
    decontaminator.save(tmp_path / "tables.npz")
    pages = [f"{_QUESTION}\n{_OTHER}", f"what is two plus two {_OTHER}", f"{_OTHER}\n{_CHINESE}\n", _OTHER]
    for copy in (Decontaminator.load(tmp_path / "tables.npz"), pickle.loads(pickle.dumps(decontaminator))):
        assert [copy.clean(page) for page in pages] == [decontaminator.clean(page) for page in pages]
    with pytest.raises(InputError, match="no such file"):
        Decontaminator.load(tmp_path / "absent.npz")
    for content in (b"no tables", (tmp_path / "tables.npz").read_bytes()[:-100]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InputError, match="no saved Decontaminator"):
            Decontaminator.load(tmp_path / "bad.npz")


def test_a_decontaminator_of_nothing_finds_nothing():
    assert Decontaminator({}).clean(_QUESTION) == (_QUESTION, [])
    with pytest.raises(TypeError, match="give a list of texts"):
        Decontaminator({"gsm8k": _QUESTION})


def _in_formulas(change):
    return lambda text: re.sub(r"\$(.+?)\$", lambda match: change(match[1]), text, flags=re.DOTALL)


_RETYPESET = {
    "markdown": lambda text: "> **" + text.replace(". ", ".** _").replace("\n", "\n> ") + "_",
    "other delimiters": _in_formulas(r"\({}\)".format),
    "no delimiters": _in_formulas(str),
    "wrapped": lambda text: textwrap.fill(text, 60, break_long_words=False),
    "spaces in formulas": _in_formulas(lambda formula: "$" + re.sub(r"([{}^_=+*/()-])", r" \1 ", formula) + "$"),
    "thin spaces": _in_formulas(lambda formula: "$" + re.sub(r"([+=<>])", r"\\,\1\\;", formula) + "$"),
    "left and right": lambda text: text.replace("(", r"\left(").replace(r"\frac", r"\dfrac"),
    "mathrm": lambda text: text.replace(r"\text{", r"\mathrm{"),
    "symbols": lambda text: text.replace(r"\pi", "π").replace(r"\times", "×").replace(r"^\circ", "°"),
    "upper case": str.upper,
    "no punctuation": lambda text: re.sub(r"[^\w\s\\^{}$'’<>]", " ", text),
    "commas": lambda text: re.sub(r"(?<![\d.,])\d{4,}(?![\d.])", lambda match: f"{int(match[0]):,}", text),
    "no commas": lambda text: re.sub(r"(?<=\d),(?=\d{3})", "", text),
    "curly quotes": lambda text: text.replace("'", "’").replace('"', "“"),
    "ligatures": lambda text: text.replace("fi", "ﬁ"),
    "spaced Chinese": lambda text: re.sub("([\u4e00-\u9fff])", r"\1 ", text),
    "full-width punctuation": lambda text: text.translate(
        dict(zip(map(ord, ",?!:;()"), "，？！：；（）", strict=True))
    ),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "html": lambda text: "<p>" + html.escape(text).replace("\n", "<br/>\n") + "</p>",
}


@pytest.fixture(scope="module")
def real_items(shared_data):
    """Texts of at least 10 grams from all benchmarks, and what finds them."""
    benchmarks = read_benchmarks(f"{shared_data}/benchmarks,!*train*")
    rng = random.Random(0)
    sample = {name: rng.sample(texts, min(12, len(texts))) for name, texts in benchmarks.items()}
    decontaminator = Decontaminator(sample)
    texts = [text.text for texts in sample.values() for text in texts]
    return [text for text in texts if len(decontaminator._cutter.grams(text)[0]) >= 10], decontaminator


@pytest.mark.parametrize("name", _RETYPESET)
def test_real_items_are_found_when_they_are_typeset_anew(real_items, name):
    texts, decontaminator = real_items
    assert len(texts) > 200
    pages = [f"{_OTHER}{_RETYPESET[name](text)} {_OTHER}" for text in texts]
    found = sum(bool(decontaminator.contaminated_segments(page)) for page in pages)
    assert found >= 0.99 * len(texts)
