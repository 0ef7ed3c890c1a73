"""Deduplication: addresses, exact texts, near duplicates against exact Jaccard similarities."""

import random

import numpy as np
import pytest

from dsmath.web import dedup

WORDS = [f"word{number}" for number in range(3000)]


def _text(rng: random.Random, length: int = 400) -> list[str]:
    return [rng.choice(WORDS) for _ in range(length)]


def _jaccard(first: str, second: str) -> float:
    shingles = []
    for text in (first, second):
        words = dedup.words(text)
        shingles.append({tuple(words[place : place + 5]) for place in range(max(len(words) - 4, 1))})
    return len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])


@pytest.mark.parametrize(
    "other",
    [
        "http://example.org/a?x=1&y=2",
        "https://EXAMPLE.org:443/a?y=2&x=1",
        "https://example.org/a/?x=1&y=2#part",
        "https://example.org/%61?x=1&y=2&utm_source=mail",
        "https://user@example.org/a;jsessionid=5F?x=1&y=2",
    ],
)
def test_spellings_of_one_address_have_one_key(other):
    assert dedup.normalise_url(other) == dedup.normalise_url("https://example.org/a?x=1&y=2")


@pytest.mark.parametrize("other", ["https://example.org/A", "https://example.org/a?x=1", "https://w.example.org/a"])
def test_other_pages_have_other_keys(other):
    assert dedup.normalise_url(other) != dedup.normalise_url("https://example.org/a")


def test_escaped_slash_stays_escaped():
    assert dedup.normalise_url("https://example.org/a%2fb") == "example.org/a%2Fb"


def test_malformed_addresses_do_not_raise():
    assert dedup.normalise_url("http://[half") == "http://[half"


def test_near_duplicates_agree_with_exact_jaccard():
    rng = random.Random(0)
    texts, expected = [], []
    for number in range(60):
        words = _text(rng)
        changed = list(words)
        for place in rng.sample(range(len(words)), 3 if number % 2 else 30):
            changed[place] = "changed"
        texts += [" ".join(words), " ".join(changed)]
        expected.append(_jaccard(*texts[-2:]))
    cluster = dedup.near_duplicates(texts)
    found = cluster[0::2] == cluster[1::2]
    assert min(expected[1::2]) > 0.9 and max(expected[0::2]) < 0.7  # the test says something
    np.testing.assert_array_equal(found, np.array(expected) >= 0.8)
    assert len(set(cluster.tolist())) == 60 + 30


def test_clusters_join_transitively_and_are_named_by_their_first_member():
    rng = random.Random(1)
    chain = [_text(rng)]
    for step in range(4):  # each step changes 6 words: neighbours are near, the ends are not
        chain.append(list(chain[-1]))
        for place in range(80 * step, 80 * step + 78, 13):
            chain[-1][place] = f"step{step}"
    texts = ["alone in the world of texts today", *(" ".join(words) for words in chain)]
    assert _jaccard(texts[1], texts[2]) > 0.85 > 0.75 > _jaccard(texts[1], texts[5])
    assert dedup.near_duplicates(texts).tolist() == [0, 1, 1, 1, 1, 1]


def test_texts_without_words_are_no_duplicates_of_each_other():
    assert dedup.near_duplicates(["", "…", "?!", "a b", "a b"]).tolist() == [0, 1, 2, 3, 3]


def test_chinese_counts_characters():
    text = "设函数在区间上连续且可导则存在一点使得导数等于零这就是罗尔定理的内容与证明方法"
    assert dedup.near_duplicates([text + "完", text + "毕", "今天天气很好我们去公园散步看花吃饭喝茶"]).tolist() == [
        0,
        0,
        2,
    ]


def test_kept_page_is_the_survivor_of_the_whole_chain():
    near = " ".join(_text(random.Random(2)))
    texts = [near + " end", near + " end", near, "something else altogether for sure"]
    urls = ["http://b.org/x", "http://b.org/long", "http://a.org/y", "http://c.org/z", "https://b.org/x/"]
    kept, kind = dedup.find_duplicates(
        urls,
        [dedup.normalise_url(url) for url in urls],
        [dedup.text_key(text) for text in [*texts, "changed since"]],
        dedup.signatures([*texts, "changed since"]),
    )
    assert kept.tolist() == [2, 2, 2, 3, 2]
    assert kind.tolist() == ["near", "exact", "", "", "url"]


def test_bands_must_divide_the_hashes():
    with pytest.raises(ValueError, match="do not divide"):
        dedup.cluster_signatures(np.zeros((2, 10), np.uint32), num_bands=3)
