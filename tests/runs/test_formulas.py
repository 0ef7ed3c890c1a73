"""Formulas in texts of models and web pages are found in a time that grows as the text does."""

import time

import pytest

from dsmath.runs.formulas import split


@pytest.mark.parametrize("opening", [r"\[ ", r"\( ", "$$ ", "$a ", r"\boxed{", r"\frac{a}{"])
def test_openings_without_an_end_cost_no_more_than_their_number(opening):
    text = opening * (100_000 // len(opening))
    began = time.process_time()
    assert "".join(part for part, _ in split(text)) == text
    assert time.process_time() - began < 15  # about 1 s; 47 s where each looks to the end of the text


def test_a_long_formula_is_one():
    formula = " + ".join(f"x_{{{number}}}" for number in range(150))
    (_, before), (found, element), (_, after) = split(rf"so \[{formula}\] is")
    assert found == rf"\[{formula}\]" and element is not None and before is after is None
