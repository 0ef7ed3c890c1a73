"""How the released evaluation finds the answers in a solution, benchmark by benchmark.

Source: deepseek-ai/DeepSeek-Math, `evaluation/data_processing/answer_extraction.py` and `evaluation/configs/`, written
anew. Kept with its defects: in few-shot GSM8K "1,234" is 234, in few-shot CMATH "1/2" is 2.
"""

import re

from dsmath.reward.paper.cleaning import clean

_NUMBER = re.compile(r"-?\d+\.?\d*")
_LAST_NUMBER = re.compile(r"-?\d*\.?\d+")
_NEXT_PROBLEM = {  # what opens the next problem where a base model goes on after its answer
    "gsm8k": "Q: ",
    "math": "Problem:",
    "ocw": "Problem:",
    "sat": "Problem:",
    "mmlu_stem": "Problem:",
    "cmath": "问题：",
    "gaokao_mathcloze": "问题 ",
    "gaokao_mathqa": "问题 ",
}


def extract(solution: str, benchmark: str, *, few_shot: bool, question: str = "") -> list[str]:
    """The answers of a solution, in its order.

    Args:
      solution: what the model wrote.
      benchmark: a name such as "gsm8k".
      few_shot: whether the base model's few-shot prompt asked, else the chat's zero-shot one.
      question: of MATH, where "separated by commas" in it makes several answers of one.
    Returns:
      Usually one answer, several for MATH; none where none was found.
    """
    if few_shot and benchmark in _NEXT_PROBLEM:
        solution = solution.split(_NEXT_PROBLEM[benchmark], 1)[0]
    if benchmark == "math":
        return _math_answers(solution, question)
    if benchmark in ("sat", "mmlu_stem"):
        found = re.search(r"the final answer is \(?([abcd])\)?", solution.lower())
        return [found[1].upper()] if found else []
    if benchmark == "ocw":
        found = re.search(r"final answer is (.*)\. I hope it is correct.", solution)
        return [found[1]] if found else []
    if benchmark in ("gaokao_mathcloze", "gaokao_mathqa"):
        _, mark, rest = solution.partition("答案是")
        line = rest.strip().split("\n")[0].strip()
        return [line.strip("$") if benchmark == "gaokao_mathcloze" else line] if mark else []
    if benchmark == "cmath" and few_shot and "答案是" in solution:
        numbers = _NUMBER.findall(solution.split("答案是", 1)[1].strip().split("\n")[0])
        return numbers[-1:]
    if benchmark == "gsm8k" and few_shot:
        return _NUMBER.findall(solution)[-1:]
    return [answer for answer in _answers(solution)[-1:] if answer]


def _answers(solution: str) -> list[str]:
    """All boxes; else what follows "the answer is"; else the last program's output; else the last number."""
    if "final answer is $" in solution and "$. I hope" in solution:
        found = [solution.split("final answer is $", 1)[1].split("$. I hope", 1)[0]]
    elif "boxed" in solution:
        found = _boxes(solution)
    elif "he answer is" in solution:
        found = [solution.split("he answer is")[-1]]
    else:
        output = solution.split("```output")[-1].split("```")[0].strip() if "```output" in solution else ""
        found = [output] if output else _LAST_NUMBER.findall(solution.replace(",", ""))[-1:]
    return [clean(text.strip().split("\n")[0].lstrip(":").rstrip(".").rstrip("/")) for text in found]


def _boxes(solution: str) -> list[str]:
    boxes = []
    for piece in solution.split("boxed{")[1:]:
        depth = 1
        for found in re.finditer(r"[{}]", piece):
            depth += 1 if found[0] == "{" else -1
            if not depth:  # "%" behind a box keeps its brace
                boxes.append(piece[: found.end() if piece[found.end() :].startswith("%") else found.start()])
                break
    return boxes


def _math_answers(solution: str, question: str) -> list[str]:
    answers: list[str] = []
    for answer in _answers(solution):
        if "separated by commas" in question and not re.search(r"[()\[\]]", answer):
            answers += answer.split(",")
        else:
            answers += re.split(r"\\text\{\s*and\s*\}", answer)
    return [answer.strip() for answer in answers]
