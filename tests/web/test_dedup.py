"""What tells pages apart: addresses, exact texts, near duplicates against exact Jaccard similarities."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmath.web import clusters, dedup

WORDS = [f"word{number}" for number in range(3000)]


def _text(rng: random.Random, length: int = 400) -> list[str]:
    return [rng.choice(WORDS) for _ in range(length)]


def _jaccard(first: str, second: str) -> float:
    shingles = []
    for text in (first, second):
        words = dedup._WORD.findall(text.lower())
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
    assert dedup.host("http://[half/x") == "http:"
    assert len(dedup.url_key("http://a.org/\ud800")) == 16


def test_host_is_that_of_the_normalised_address():
    assert dedup.host("HTTPS://user@Example.org.:443/a") == dedup.host("http://example.org?x=1") == "example.org"
    assert dedup.host("https://example.org:8080/") == "example.org:8080"


def test_text_key_forgets_white_space_alone():
    keys = [dedup.text_key(text) for text in ("a b\nc", "\ta  b c\r\n", "a\u00a0b c", "a b C", "a b c.")]
    assert len(set(keys[:3])) == 1 and len(set(keys)) == 3


@given(st.text(max_size=200))
@settings(max_examples=100)
def test_signature_is_that_of_the_words(text):
    words = dedup._WORD.findall(text.lower())
    first, second = dedup.page_signatures([text, " ".join(words)])
    np.testing.assert_array_equal(first, second)
    assert first.any() == bool(words)
    assert dedup.has_words(text.lower(), len(words)) and not dedup.has_words(text.lower(), len(words) + 1)


def test_signature_does_not_depend_on_where_a_long_text_is_cut():
    words = _text(random.Random(5), 20_000)
    first, second = dedup.page_signatures([" ".join(words), "  .  ".join(words)])
    np.testing.assert_array_equal(first, second)


def test_equal_values_estimate_the_similarity():
    rng = random.Random(6)
    errors = []
    for _ in range(40):
        words = _text(rng)
        changed = list(words)
        for place in rng.sample(range(len(words)), rng.randrange(40)):
            changed[place] = "changed"
        texts = [" ".join(words), " ".join(changed)]
        first, second = dedup.page_signatures(texts)
        share = (first == second).mean()
        errors.append((share - 1 / 256) / (1 - 1 / 256) - _jaccard(*texts))
    assert abs(np.mean(errors)) < 0.015 and np.std(errors) < 0.05


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


def test_texts_may_come_from_an_iterator():
    texts = ["one text of some few words", "another text of other words", "one text of some few words"]
    assert dedup.near_duplicates(iter(texts)).tolist() == [0, 1, 0]
    assert dedup.near_duplicates([]).tolist() == []


def test_clusters_do_not_depend_on_the_order_of_texts():
    rng = random.Random(3)
    texts = []
    for _ in range(40):
        words = _text(rng, 100)
        for _ in range(3):
            words = list(words)
            words[rng.randrange(100)] = "changed"
            texts.append(" ".join(words))
    order = rng.sample(range(len(texts)), len(texts))
    plain, shuffled = dedup.near_duplicates(texts), dedup.near_duplicates([texts[place] for place in order])
    together = plain[:, None] == plain
    np.testing.assert_array_equal(together[np.ix_(order, order)], shuffled[:, None] == shuffled)
    assert (together.sum(axis=1) == 3).mean() > 0.5  # the test says something


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.9])
def test_pairs_are_found_at_other_thresholds(threshold):
    rng = random.Random(4)
    similarities, texts = [], []
    for _ in range(200):
        words = _text(rng, 200)
        cut = 200 - round(rng.uniform(0.0, 0.7) * 196)
        texts += [" ".join(words), " ".join(words[:cut])]
        similarities.append(_jaccard(*texts[-2:]))
    cluster = dedup.near_duplicates(texts, threshold=threshold)
    found, similarity = cluster[0::2] == cluster[1::2], np.array(similarities)
    assert found[similarity >= threshold + 0.05].mean() > 0.95
    assert found[similarity < threshold - 0.05].mean() < 0.05


@pytest.mark.parametrize("threshold", [0.49, 1.01])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(ValueError, match="outside"):
        dedup.near_duplicates([], threshold=threshold)


def test_boilerplate_is_not_compared_in_pairs():
    """Two templates of thousands of pages that share buckets: comparing all pairs would take minutes."""
    rng = random.Random(7)
    head = _text(rng, 170)
    templates = [head + _text(rng, 30) for _ in range(2)]
    texts = [" ".join([*templates[number % 2], f"page{number}"]) for number in range(8_000)]
    assert dedup.near_duplicates(texts).tolist() == [0, 1] * 4_000


def test_long_chains_join():
    order = np.random.default_rng(0).permutation(9_999)
    link_N = np.zeros(10_001, np.int64)
    clusters.join(link_N, order, order + 1)
    assert (clusters.find_roots(link_N, np.arange(10_000)) == 0).all()
    assert link_N[10_000] == 0
