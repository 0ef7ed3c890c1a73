"""Decontamination: 10-grams, short texts, Chinese, and what does not count."""

import itertools
import json
import pickle
import random

import pytest

from dsmath.runs.errors import InputError
from dsmath.web.decontaminate import Decontaminator, read_benchmarks

_QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
_CHINESE = "小明有三十二个苹果，比小红多八个，小红有多少个苹果？"


def test_a_line_with_ten_grams_is_removed_and_the_rest_stays():
    decontaminator = Decontaminator({"gsm8k": [_QUESTION]})
    page = f"Before.\nWe ask: {_QUESTION} Good luck.\nAfter.\n"
    text, (segment,) = decontaminator.clean(page)
    assert text == "Before.\nAfter.\n"
    assert page[segment.start : segment.end] == f"We ask: {_QUESTION} Good luck.\n"
    assert segment.benchmark == "gsm8k"
    assert segment.ngram == "natalia sold clips to 48 of her friends in april"


def test_nine_grams_of_a_long_text_are_no_match():
    decontaminator = Decontaminator([_QUESTION])
    words = _QUESTION.split()
    assert decontaminator.contaminated_segments(" ".join(words[3:12])) == []
    assert len(decontaminator.contaminated_segments(" ".join(words[3:13]))) == 1
    assert decontaminator.contaminated_segments(" ".join([*words[3:8], "other", *words[8:13]])) == []


@pytest.mark.parametrize(
    "changed",
    [
        _QUESTION.upper(),
        _QUESTION.replace(" ", "\n\t "),
        _QUESTION.replace(",", " -- ").replace(" half", " *half*"),
        _QUESTION.replace("48", "４８"),
    ],
)
def test_case_space_punctuation_and_width_do_not_count(changed):
    segments = Decontaminator([_QUESTION]).contaminated_segments(f"Intro\n{changed}\nOutro")
    assert segments
    assert segments[0].start == len("Intro\n")


def test_a_short_text_removes_the_whole_page_only_where_it_stands_whole():
    decontaminator = Decontaminator({"short": ["What is two plus two?"], "tiny": ["Find x", r"\frac{1}{2}"]})
    assert decontaminator.clean("A page.\n\nSo, what is two plus\ntwo? Four.")[0] == ""
    assert decontaminator.clean("A page.\nwhat is two plus three")[1] == []
    assert decontaminator.clean(r"Find x such that $x = \frac{1}{2}$")[1] == []


def test_chinese_is_compared_by_characters():
    decontaminator = Decontaminator({"cmath": [_CHINESE]})
    spaced = "　".join(_CHINESE.replace("，", ""))
    text, (segment,) = decontaminator.clean(f"前言。\n{spaced}\n后记。")
    assert text == "前言。\n后记。"
    assert segment.ngram == "小明有三十二个苹果比"[:10]
    assert decontaminator.contaminated_segments("小明有三十二个苹，果很好吃，大家都喜欢。") == []


def test_segments_do_not_overlap_and_match_a_plain_search():
    rng = random.Random(0)
    vocabulary = [f"w{n}" for n in range(12)]
    benchmark = [" ".join(rng.choices(vocabulary, k=rng.randint(10, 40))) for _ in range(300)]
    grams = {tuple(text.split()[i : i + 10]) for text in benchmark for i in range(len(text.split()) - 9)}
    decontaminator = pickle.loads(pickle.dumps(Decontaminator(benchmark)))
    for _ in range(200):
        words = rng.choices([*vocabulary, "unknown"], k=30)
        if rng.random() < 0.5:
            words[8:8] = rng.choice(benchmark).split()[:10]
        page = " ".join(words)
        segments = decontaminator.contaminated_segments(page)
        expected = any(tuple(words[i : i + 10]) in grams for i in range(len(words) - 9))
        assert bool(segments) == expected
    lines = "\n".join([_QUESTION, "clean line", _QUESTION, _QUESTION])
    segments = Decontaminator([_QUESTION]).contaminated_segments(lines)
    assert all(first.end <= second.start for first, second in itertools.pairwise(segments))
    assert Decontaminator([_QUESTION]).clean(lines)[0] == "clean line\n"


def test_benchmarks_are_read_from_folders_and_globs(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    record = {"question": _QUESTION, "answer": "72", "level": 3, "solution": None}
    (tmp_path / "gsm8k" / "test.jsonl").write_text(json.dumps(record) + "\n\n", encoding="utf-8")
    expected = {"gsm8k/test": [_QUESTION, "72"]}
    assert read_benchmarks(str(tmp_path)) == expected
    assert read_benchmarks(f"{tmp_path}/*/test.jsonl") == expected
    assert read_benchmarks("") == {}
    with pytest.raises(InputError, match="matches no file"):
        read_benchmarks(f"{tmp_path}/nothing*.jsonl")
    (tmp_path / "bad.jsonl").write_text("[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.jsonl:1"):
        read_benchmarks(f"{tmp_path}/bad.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"other": "x"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="no record has a text"):
        read_benchmarks(f"{tmp_path}/bad.jsonl")


def test_real_questions_are_found_in_pages_that_quote_them(shared_data):
    benchmarks = read_benchmarks(f"{shared_data}/benchmarks/cmath/test.jsonl,{shared_data}/benchmarks/gsm8k/test.jsonl")
    decontaminator = Decontaminator(benchmarks)
    for name, texts in benchmarks.items():
        for text in [text for text in texts if len(text) > 80][:50]:
            cleaned, segments = decontaminator.clean(f"A page.\n{text}\nIts end.")
            assert cleaned == "A page.\nIts end."
            assert {segment.benchmark for segment in segments} <= set(benchmarks), name
    assert decontaminator.contaminated_segments("The derivative of a sum is the sum of the derivatives. " * 3) == []
