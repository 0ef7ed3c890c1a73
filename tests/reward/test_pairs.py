"""Several hundred pairs of answers, each judged both ways."""

import pathlib
import re

import pytest

from dsmath.reward.answers import is_equivalent


def _read_pairs() -> dict[str, list[tuple[str, bool, str]]]:
    groups: dict[str, list[tuple[str, bool, str]]] = {}
    text = pathlib.Path(__file__).with_name("pairs.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        heading = re.fullmatch(r"\[(\w+)\]", line)
        pair = re.fullmatch(r"(.*?)  (≡|≢)  (.*)", line)
        if heading:
            groups[heading[1]] = []
        elif pair:
            groups[next(reversed(groups))].append((pair[1], pair[2] == "≡", pair[3]))
        else:
            assert not line or line.startswith("#"), line
    return groups


_PAIRS = _read_pairs()


@pytest.mark.parametrize("group", _PAIRS)
def test_pairs_are_judged_as_mathematics_has_them(group):
    pairs = _PAIRS[group]
    assert len(pairs) > 3
    wrong = [
        (gold, prediction)
        for gold, same, prediction in pairs
        if not is_equivalent(prediction, gold) == is_equivalent(gold, prediction) == same
    ]
    assert wrong == []
