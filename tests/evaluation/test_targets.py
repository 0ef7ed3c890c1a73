"""Letters of options and the targets of BBH."""

import pytest

from dsmath.evaluation.targets import agree, find_brackets, read_letters, read_small_letters


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        *[
            ("B", "B"),
            ("(B)", "B"),
            ("B.", "B"),
            ("B)", "B"),
            ("\\text{B}", "B"),
            ("$\\textbf{(B)}$", "B"),
            ("**B**", "B"),
        ],
        *[
            ("(B) 5", "B"),
            ("B. five", "B"),
            ("B: 5", "B"),
            ("(B)\\ 5", "B"),
            ("\\text{(B) } 5", "B"),
            ("option B", "B"),
        ],
        *[("选项B", "B"), ("答案：B", "B"), ("Answer: (B)", "B"), ("B：五", "B"), ("B。", "B")],
        *[("ACD", "ACD"), ("D, A", "AD"), ("A、C", "AC"), ("A and C", "AC"), ("(A)(C)", "AC"), ("A B D", "ABD")],
        *[("5", None), ("DNA", None), ("E", None), ("A group", None), ("b", None), ("", None), ("Because", None)],
    ],
)
def test_letters_are_read_in_the_spellings_of_models(answer, letters):
    assert read_letters(answer, 4) == letters


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        *[("b", "B"), ("(b)", "B"), ("b.", "B"), ("\\text{(b)}", "B"), ("option b", "B"), ("d, a", "AD")],
        *[("acd", "ACD"), ("a, c and d", "ACD"), ("(a)(c)", "AC")],
        *[("bad", None), ("and", None), ("add", None), ("e", None), ("a b+1", None), ("B", None), ("b) 5", None)],
        *[("", None), ("a group", None), ("2a", None)],
    ],
)
def test_small_letters_are_read_where_nothing_else_stands(answer, letters):
    assert read_small_letters(answer, 4) == letters


def test_an_option_beyond_the_last_is_no_letter():
    assert read_letters("(K)", 11) == "K" and read_letters("(L)", 11) is None


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        *[("True", "True"), ("true.", "True"), ("\\text{No}", "No"), ("No, she lies", "No"), ('"valid"', "valid")],
        *[("8", "8"), ("8.0", "8"), ("\\frac{16}{2}", "8"), ("-11", "-11")],
        *[("barn damp", "barn damp"), ("Barn, damp", "barn damp"), ("\\text{barn damp}", "barn damp")],
        *[("it\\&t prod", "it&t prod"), ("dearth, wind, & fire", "dearth, wind, & fire")],
        *[("> }", "> }"), (">}", "> }"), ("> \\}", "> }"), ("] ] .", "] ]")],
    ],
)
def test_a_target_is_met_in_other_spellings(answer, gold):
    assert agree(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        *[("False", "True"), ("Yes or no", "Yes"), ("invalid", "valid"), ("not valid", "valid"), ("", "Yes")],
        *[("9", "8"), ("damp barn", "barn damp"), ("barn", "barn damp"), ("barndamp", "barn damp")],
        *[("} >", "> }"), (">", "> }"), ("", ")"), ("{ < > }", "> }")],
    ],
)
def test_another_target_is_not_met(answer, gold):
    assert not agree(answer, gold)


@pytest.mark.parametrize("box", ["] }", "] \\}", "\\text{] }}"])
def test_a_box_may_hold_open_brackets(box):
    assert agree(find_brackets(f"So it is $\\boxed{{{box}}}$.", "] }"), "] }")
    assert find_brackets(f"$\\boxed{{{box}}}$", "Yes") is None
