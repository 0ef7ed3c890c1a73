"""The prompt of miniF2F."""

from dsmath.data.benchmarks.item import Item
from dsmath.evaluation.isabelle import STOP, make_prompt


def _make_item(name):
    extra = {"formal_statement": f'theorem {name}:\n  shows "x = x"\n', "header": ""}
    return Item("minif2f", "1", "Show that $x = x$.", "", "It is {clear}.", extra=extra)


def test_number_theory_has_seven_examples_and_all_else_six():
    assert make_prompt(_make_item("mathd_numbertheory_1")).count("Informal:\n") == 8
    assert make_prompt(_make_item("algebra_x")).count("Informal:\n") == 7


def test_the_prompt_ends_after_the_formal_statement_and_the_next_example_stops_it():
    prompt = make_prompt(_make_item("algebra_x"))
    assert prompt.endswith(
        "\n\n\n\nInformal:\n(*### Problem\n\nShow that $x = x$.\n\n### Solution\n\nIt is {clear}.*)\n\n"
        'Formal:\ntheorem algebra_x:\n  shows "x = x"'
    )
    assert STOP[0] in prompt
    assert "qed\n\n\n\nInformal:" in prompt
