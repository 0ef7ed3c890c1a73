"""The form of tool-integrated solutions: what the model writes and what the interpreter answers, in turns.

    We compute it.
    ```python
    print(6 * 7)
    ```
    ```output
    42
    ```
    The answer is \\boxed{42}.

Training data and the sampler read and write it by the same functions, so that both make the same tokens of it.

Source: DeepSeekMath's released evaluation (tool-integrated reasoning); ToRA (arXiv 2309.17452).
"""

import re
from typing import NamedTuple

# A block of Python whose closing fence and its line end are there; Markdown allows three spaces before a fence.
BLOCK = re.compile(r"^ {0,3}```python[^\n]*\n(.*?)^ {0,3}```[ \t]*\n", re.DOTALL | re.MULTILINE)
_OUTPUT = re.compile(r"\s*?^ {0,3}```output[^\n]*\n(.*?)^ {0,3}```[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


class Turn(NamedTuple):
    """A piece of a solution, and whether the interpreter wrote it."""

    text: str
    is_output: bool


def write_block(program: str) -> str:
    """A program as it stands in a solution."""
    return f"```python\n{program.rstrip()}\n```\n"


def write_output(output: str) -> str:
    """A program's output as it stands in a solution."""
    return f"```output\n{output.strip()}\n```\n"


def split_turns(solution: str) -> list[Turn]:
    """The turns of a solution: an output is one that follows a block of Python, blank lines aside.

    Returns:
      turns, the last of them the model's; outputs as `write_output` writes them, whatever blanks stand around them.
    """
    turns, start = [], 0
    block = BLOCK.search(solution)
    while block:
        end = block.end()
        if output := _OUTPUT.match(solution, end):
            turns += [Turn(solution[start:end], False), Turn(write_output(output[1]), True)]
            start = end = output.end()
        block = BLOCK.search(solution, end)
    return [*turns, Turn(solution[start:], False)]
