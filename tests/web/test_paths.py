"""Patterns of marked paths."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmath.runs.errors import InputError
from dsmath.web.paths import MarkedPaths, normalise_address, parse_pattern, read_marked_paths


@pytest.mark.parametrize(
    ("pattern", "url", "expected"),
    [
        ("mathoverflow.net/questions", "https://mathoverflow.net/questions/123/title", True),
        ("mathoverflow.net/questions", "http://MathOverflow.net/questions?page=2", True),
        ("mathoverflow.net/questions", "https://mathoverflow.net/questions", True),
        ("mathoverflow.net/questions", "https://mathoverflow.net/questions#top", True),
        ("mathoverflow.net/questions", "https://mathoverflow.net/questionsandmore", False),
        ("mathoverflow.net/questions", "https://meta.mathoverflow.net/questions/1", False),
        ("mathoverflow.net/questions", "https://other.net/mathoverflow.net/questions/1", False),
        ("mathoverflow.net", "https://mathoverflow.net", True),
        ("mathoverflow.net", "https://mathoverflow.net/users", True),
        ("mathoverflow.net", "https://mathoverflow.net?tab=new", True),
        ("MathOverflow.NET/questions/", "https://mathoverflow.net/questions/1", True),
        ("mathoverflow.net/questions/", "https://mathoverflow.net/questions", True),
        ("mathoverflow.net:443/questions", "https://user@mathoverflow.net.:443/questions", True),
        ("mathoverflow.net/questions", "https://mathoverflow.net:8080/questions", False),
        ("*.example.org/tag/*algebra", "https://a.example.org/tag/linear-algebra/page", True),
        ("*.example.org/tag/*algebra", "https://a.example.org/tag/music", False),
        ("*.example.org/tag/*algebra", "https://a.example.org/tag/linear-algebraic", False),
        ("example.org/*", "https://example.org/", True),
        ("example.org/a/*/b", "https://example.org/a/x/y/b?c=d", True),
        ("example.org/a*b*b", "https://example.org/a-b", False),
        ("example.org/a.b", "https://example.org/aXb", False),
        ("example.org/a", "http://[half", False),
        ("example.org/a", "not an address", False),
        ("example.org/view?f=1", "https://example.org/view?f=1&t=2", True),
        ("example.org/view?f=1", "https://example.org/view?f=12", False),
        ("example.org/view?f=*", "https://example.org/view?f=12", True),
        ("example.org/view?*f=1", "https://example.org/view?t=2&f=1", True),
        ("example.org/%7euser", "https://example.org/~user/page", True),
        ("example.org/数学", "https://example.org/%e6%95%b0%E5%AD%A6/1", True),
        ("example.org/a%2fb", "https://example.org/a%2Fb", True),
        ("example.org/a%2fb", "https://example.org/a/b", False),
        ("bücher.example/a", "https://xn--bcher-kva.example/a", True),
    ],
)
def test_pattern_matches(pattern, url, expected):
    assert MarkedPaths([pattern]).matches(url) is expected


def test_no_pattern_matches_nothing():
    assert not MarkedPaths([]).matches("https://mathoverflow.net/")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://m.net/questions/1", True),
        ("https://m.net/questions/tagged/career", False),
        ("https://m.net/questions/tagged/topology/page", True),
        ("https://m.net/users", False),
        ("https://m.net/questions/x/career", False),
    ],
)
def test_most_specific_pattern_decides_whatever_the_order(url, expected):
    patterns = ["m.net/questions", "!m.net/questions/tagged", "m.net/questions/tagged/topology", "!m.net/*/x/career"]
    assert MarkedPaths(patterns).matches(url) is expected
    assert MarkedPaths(patterns[::-1]).matches(url) is expected


def test_exclusion_wins_over_the_same_pattern_and_duplicates_are_dropped():
    marked = MarkedPaths(["m.net/a", "M.net/a/", "!m.net/a", "m.net/b"])
    assert marked.patterns == ["m.net/a", "!m.net/a", "m.net/b"]
    assert not marked.matches("https://m.net/a/1") and marked.matches("https://m.net/b")


_part = st.sampled_from(["a", "b", "ab", "", "%7e", "*", "a*", "?", "?a=1", "&b=*", "ü"])
_address = st.builds(lambda host, parts: host + "/" + "/".join(parts), st.sampled_from(["m.net", "a.m.net", "*.m.net"]),
                     st.lists(_part, max_size=4))  # fmt: skip


@given(st.lists(st.tuples(st.booleans(), _address), max_size=6), _address)
def test_index_by_host_finds_what_a_search_of_all_patterns_finds(patterns, address):
    texts = [f"{'!' * excludes}{pattern}" for excludes, pattern in patterns]
    url = f"https://{address}".replace("*", "z")
    matching = [one for one in map(parse_pattern, texts) if one.compile().fullmatch(normalise_address(url))]
    best = max(matching, key=lambda one: (one.specificity, one.excludes), default=None)
    assert MarkedPaths(texts).matches(url) is (best is not None and not best.excludes)


def test_stars_do_not_make_matching_slow():
    pattern = parse_pattern("m.net/" + "*a" * 30 + "*b").compile()
    assert pattern.fullmatch("m.net/" + "a" * 5000) is None  # minutes or more, were every way tried


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "must be a JSON list of patterns"),
        ("[1]", "must be a JSON list of patterns"),
        ('["https://mathoverflow.net/questions"]', "has a scheme"),
        ('["!https://mathoverflow.net/questions"]', "has a scheme"),
        ('["mathoverflow.net/a b"]', "is not a host and a path"),
        ('["mathoverflow.net/a#b"]', "is not a host and a path"),
        ('["/questions"]', "is not a host and a path"),
        ('["!"]', "is not a host and a path"),
        ('["!!mathoverflow.net"]', "is not a host and a path"),
        ('[""]', "is not a host and a path"),
        ('["*/questions"]', "names no host"),
        ('["!*.*"]', "names no host"),
        ("[", "not JSON"),
    ],
)
def test_bad_file_is_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "marked.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_marked_paths(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_error_names_the_broken_pattern_among_good_ones(tmp_path):
    path = tmp_path / "marked.json"
    path.write_text(json.dumps(["m.net/a", "!m.net/b", "m.net/c d"]))
    with pytest.raises(InputError, match=re.escape("'m.net/c d'")):
        read_marked_paths(path)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file of marked paths"):
        read_marked_paths(tmp_path / "absent.json")
