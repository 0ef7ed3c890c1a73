"""Patterns of marked paths."""

import pytest

from dsmath.runs.errors import InputError
from dsmath.web.paths import MarkedPaths, read_marked_paths


@pytest.mark.parametrize(
    ("pattern", "url", "expected"),
    [
        ("mathoverflow.net/questions", "https://mathoverflow.net/questions/123/title", True),
        ("mathoverflow.net/questions", "http://MathOverflow.net/questions?page=2", True),
        ("mathoverflow.net/questions", "https://mathoverflow.net/questions", True),
        ("mathoverflow.net/questions", "https://mathoverflow.net/questionsandmore", False),
        ("mathoverflow.net/questions", "https://meta.mathoverflow.net/questions/1", False),
        ("mathoverflow.net/questions", "https://other.net/mathoverflow.net/questions/1", False),
        ("mathoverflow.net", "https://mathoverflow.net", True),
        ("mathoverflow.net", "https://mathoverflow.net/users", True),
        ("mathoverflow.net/questions/", "https://mathoverflow.net/questions/1", True),
        ("*.example.org/tag/*algebra", "https://a.example.org/tag/linear-algebra/page", True),
        ("*.example.org/tag/*algebra", "https://a.example.org/tag/music", False),
        ("example.org/a.b", "https://example.org/aXb", False),
        ("example.org/a", "http://[half", False),
    ],
)
def test_pattern_matches(pattern, url, expected):
    assert MarkedPaths([pattern]).matches(url) is expected


def test_no_pattern_matches_nothing():
    assert not MarkedPaths([]).matches("https://mathoverflow.net/")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "must be a JSON list of patterns"),
        ('["https://mathoverflow.net/questions"]', "has a scheme"),
        ('["mathoverflow.net/a b"]', "is not a host and a path"),
        ('["/questions"]', "is not a host and a path"),
        ('["*/questions"]', "names no host"),
        ("[", "not JSON"),
    ],
)
def test_bad_file_is_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "marked.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_marked_paths(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file of marked paths"):
        read_marked_paths(tmp_path / "absent.json")
