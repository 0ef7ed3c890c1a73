"""Tokens for the classifier, and the characters of which they are made."""

import re
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsmath.web import characters, tokens


@given(st.text(st.sampled_from("abZ\\\\ 1_{}\n\t$é中ſİK\u2028.,-𝔸\ud800"), max_size=60))
def test_tokens_are_those_of_the_expression(text):
    assert tokens.line(text) == " ".join(tokens.TOKEN.findall(text.lower()))


@given(st.text(max_size=60))
def test_a_text_is_the_text_of_its_codes(text):
    code_L = characters.codes(text)
    assert code_L.tolist() == list(map(ord, text)) and characters.to_text(code_L) == text


def test_characters_are_what_they_are_to_regular_expressions():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    for expression, is_one in (
        (r"[^\W_]", characters.are_alphanumeric()),
        (r"\d", characters.are_digits()),
        ("[a-fα-ω𝔸-𝔻]", characters.are_within("a-fα-ω𝔸-𝔻")),
    ):
        expected = np.zeros(len(every), bool)
        expected[[found.start() for found in re.finditer(expression, every)]] = True
        np.testing.assert_array_equal(is_one, expected)
