"""Tool-integrated solutions in turns: which text is the interpreter's."""

from dsmath.data.turns import split_turns, write_block, write_output

SOLUTION = (
    " We start.\n```python\nx = 6 * 7\nprint(x)\n```\n```output\n42\n```\nWe go on.\n"
    "```python\nprint(x / 0)\n```\n```output\nZeroDivisionError: division by zero\n```\nThe answer is \\boxed{42}."
)


def _outputs(solution):
    return [text for text, is_output in split_turns(solution) if is_output]


def test_the_turns_alternate_and_are_the_solution():
    turns = split_turns(SOLUTION)
    assert [turn.is_output for turn in turns] == [False, True, False, True, False]
    assert "".join(turn.text for turn in turns) == SOLUTION
    assert turns[0].text.endswith(write_block("x = 6 * 7\nprint(x)"))
    assert turns[1].text == write_output("42\n") == "```output\n42\n```\n"
    assert turns[4].text == "The answer is \\boxed{42}."


def test_a_solution_may_begin_with_a_program_and_end_with_an_output():
    turns = split_turns(" ```python\n1\n```\n```output\n1\n```")
    assert turns == [(" ```python\n1\n```\n", False), ("```output\n1\n```\n", True), ("", False)]


def test_outputs_come_as_the_interpreter_writes_them():
    assert _outputs("```python\n1\n```\n\n  \n```output\n\n 1 \n\n```\nSo.") == ["```output\n1\n```\n"]
    assert _outputs("```python\n1\n```\n```output\n```\nSo.") == ["```output\n\n```\n"]


def test_only_what_follows_a_closed_block_of_python_is_an_output():
    for text in (
        "```output\n1\n```\n",
        "```python\n1\n```output\n1\n```\n",
        "```text\n1\n```\n```output\n1\n```\n",
        "```python\n1\n```\nIt says\n```output\n1\n```\n",
        "```python\n1\n```\n```output\n1\n",
    ):
        assert split_turns(text) == [(text, False)]


def test_a_block_without_an_output_hides_no_later_one():
    assert _outputs(f"```python\n1\n```\nNow again.\n{SOLUTION}") == _outputs(SOLUTION)
