"""Each upstream format with its traps, in small records of our own."""

import gzip
import json

import pytest

from dsmath.data.benchmarks import catalog
from dsmath.data.benchmarks.hendrycks_math import gold_answer
from dsmath.runs.errors import InputError


@pytest.fixture
def read(tmp_path):
    """(name, file, records or content, split) -> the items."""

    def write_and_read(name, file, content, split="test"):
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, str | bytes):
            content = "".join(json.dumps(record) + "\n" for record in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return catalog.read(name, tmp_path, split)

    return write_and_read


MATH = {"problem": "Add 1 and 1.", "level": "Level 3", "type": "Algebra", "solution": "It is $\\boxed{\\frac{4}{2}}$."}


def test_the_formats_of_math_give_the_same_item(tmp_path, read):
    (line,) = read("math", "test.jsonl", [MATH])
    (tmp_path / "math" / "test.jsonl").unlink()
    (file,) = read("math", "test/algebra/7.json", json.dumps(MATH))
    record = {**MATH, "answer": "\\frac{4}{2}", "subject": "Algebra", "level": 3, "unique_id": "test/algebra/7.json"}
    del record["type"]
    (listed,) = read("math", "math500_test.json", json.dumps([record]), "math500")
    assert line == file == listed
    assert (line.answer, line.level, line.subject) == ("\\frac{4}{2}", "3", "Algebra")
    (unknown,) = read("math", "train.jsonl", [{**MATH, "level": "Level ?"}], "train")
    assert unknown.level == ""


def test_the_folder_layout_of_math_is_read(tmp_path, shared_data):
    (tmp_path / "math").mkdir()
    (tmp_path / "math" / "train").symlink_to(shared_data / "benchmarks" / "math" / "original_layout" / "train")
    items = catalog.read("math", tmp_path, "train")
    assert len(items) == 21
    by_id = {item.id: item for item in catalog.read("math", shared_data / "benchmarks", "train")}
    assert all(by_id[item.id] == item for item in items)


@pytest.mark.parametrize(
    ("question", "solution", "answer"),
    [
        ("How many?", "First \\boxed{144}, so \\boxed{12}.", "12"),
        ("Find all solutions.", "They are $\\boxed{-2}$ and $\\boxed{1}$.", "-2, 1"),
        ("Enter both, separated by commas.", "$\\boxed{\\tfrac12}$, or $\\boxed{\\frac12}$.", "\\frac12"),
        ("Enter both, separated by commas.", "With $\\boxed{3}$ they are $\\boxed{1, 2}$.", "1, 2"),
        ("Find all points.", "$\\boxed{(1,2)}$ and $\\boxed{(3,4)}$.", "(1,2), (3,4)"),
        ("Find it.", "\\boxed {\\left\\{ x : \\sqrt{x} \\right.} it is", "\\left\\{ x : \\sqrt{x} \\right."),
        ("Find it.", "None.", None),
    ],
)
def test_the_last_box_is_gold_unless_several_are_asked_for(question, solution, answer):
    assert gold_answer(question, solution) == answer


def test_math_without_a_box_is_named(read):
    with pytest.raises(InputError, match=r"test\.jsonl:1: field 'solution' has no answer within"):
        read("math", "test.jsonl", [{**MATH, "solution": "2"}])


@pytest.mark.parametrize(
    "options",
    ["A) $x$ of set B B) 2 C) .5 D) data set A", "A. $x$ of set B B. 2 C. .5 D. data set A"],
)
def test_the_options_of_sat_are_parted(read, options):
    (item,) = read("sat", "test.jsonl", [{"id": "4", "question": "Which?", "options": options, "Answer": "C"}])
    assert (item.id, item.choices, item.answer) == ("4", ("$x$ of set B", "2", ".5", "data set A"), "C")


def test_options_that_are_no_options_are_named(read):
    with pytest.raises(InputError, match=r"test\.jsonl:1: field 'options' has not four options"):
        read("sat", "test.jsonl", [{"id": "4", "question": "?", "options": "A) 1 B) 2 C) 3", "Answer": "A"}])
    with pytest.raises(InputError, match=r"test\.jsonl:1: field 'Answer' is 'AB', no letter from A to D"):
        read("sat", "test.jsonl", [{"id": "4", "question": "?", "options": "A) 1 B) 2 C) 3 D) 4", "Answer": "AB"}])


def test_options_that_are_numbers_become_texts(read):
    options = [float("nan"), 0.5, 3, "two"]
    record = {"question": "?", "options": options, "answer": "D", "topic": "astronomy", "id": 7}
    (item,) = read("mmlu_stem", "test.jsonl", [record])
    assert (item.choices, item.id, item.subject) == (("None", "0.5", "3", "two"), "7", "astronomy")
    (whole,) = read("mmlu", "test.jsonl", [record])
    assert (whole.benchmark, whole.choices) == ("mmlu", item.choices)


def test_the_csv_files_of_mmlu_are_read(tmp_path, read):
    rows = 'Which?,1,"2, or 3",None,"a ""b""",B\n"Two\nlines?",1,2,3,4,A\n'
    first, second = read("mmlu", "test/college_physics_test.csv", rows)
    assert (first.choices, first.answer, first.subject) == (("1", "2, or 3", "None", 'a "b"'), "B", "college_physics")
    assert second.question == "Two\nlines?" and first.id.startswith("college_physics/")
    assert len(read("mmlu", "test/virology_test.csv", "What?,1,2,3,4,C\n")) == 3
    with pytest.raises(InputError, match=r"anatomy_test\.csv:1: has 3 columns, not 6 \(question, A, B, C, D, answer\)"):
        read("mmlu", "test/anatomy_test.csv", "What?,1,C\n")


GAOKAO = {
    "passage": None,
    "question": "则 $a=$ ($\\quad$)\\\\\n",
    "options": ["(A)1", "(B) $2$", "(C)3", "(D)4"],
    "label": "A B D",
    "answer": None,
    "other": {"source": "2021年浙江卷—数学"},
}


def test_gaokao_labels_of_several_letters_are_spelt_alike(read):
    several, one = read("gaokao_mathqa", "gaokao-mathqa.jsonl", [GAOKAO, {**GAOKAO, "question": "求", "label": "C"}])
    assert (several.answer, one.answer) == ("ABD", "C")
    assert several.question == "则 $a=$ ($\\quad$)" and several.choices == ("1", "$2$", "3", "4")
    with pytest.raises(InputError, match="field 'label' is 'E', no letter from A to D"):
        read("gaokao_mathqa", "gaokao-mathqa.jsonl", [{**GAOKAO, "label": "E"}])


def test_blanks_stay_joined(read):
    record = {**GAOKAO, "options": None, "label": None, "answer": "$5$;$10$"}
    (item,) = read("gaokao_mathcloze", "gaokao-mathcloze.jsonl", [record])
    assert (item.answer, item.choices, item.language) == ("$5$;$10$", (), "zh")


def test_ocw_tells_the_form_of_its_answers(read):
    answers = ("4.5e33", "-1./3", "y=2x", "I(0) e^{-t}\n")
    records = [{"problem": "?", "solution": "", "answer": a, "id": str(n)} for n, a in enumerate(answers)]
    items = read("ocw", "test.jsonl", records)
    assert [item.subject for item in items] == ["numeric", "expression", "equation", "expression"]
    assert items[3].answer == "I(0) e^{-t}"


def test_chinese_problems_are_read(read):
    messages = [{"role": "user", "content": "几个？"}, {"role": "assistant", "content": ""}]
    (chat,) = read("mgsm_zh", "mgsm_zh.jsonl", [{"id": "3", "messages": messages, "answer": "1,200"}])
    assert (chat.question, chat.answer, chat.id) == ("几个？", "1200", "3")
    (school,) = read("cmath", "test.jsonl", [{"grade": 3, "question": "几分之几？", "golden": "4/6"}])
    assert (school.answer, school.level) == ("4/6", "3")
    with pytest.raises(InputError, match="field 'messages' does not begin with what the user says"):
        read("mgsm_zh", "mgsm_zh.jsonl", [{"id": "3", "messages": messages[1:], "answer": "1"}])


def _bbh(*examples):
    return json.dumps(
        {"canary": "keep", "examples": [dict(zip(("input", "target"), e, strict=True)) for e in examples]}
    )


def test_tasks_of_bbh_are_choices_or_targets(read):
    content = _bbh(
        ("Which?\nOptions:\n(A) one\n(B) two, three", "(B)"), ("True?\nOptions:\n- Yes\n- No", "No"), ("a b", ") ]")
    )
    choice, yes_no, brackets = read("bbh", "navigate.json", content)
    assert (choice.question, choice.choices, choice.answer) == ("Which?", ("one", "two, three"), "B")
    assert (yes_no.question, yes_no.choices, yes_no.answer) == ("True?\nOptions:\n- Yes\n- No", (), "No")
    assert (brackets.answer, brackets.subject) == (") ]", "navigate")
    # Two of upstream's questions have options that do not hold the target.
    (damaged,) = read("bbh", "navigate.json", _bbh(("Which?\nOptions:\n(A) dearth\n(B) wind", "dearth, wind")))
    assert (damaged.choices, damaged.answer) == ((), "dearth, wind")
    with pytest.raises(InputError, match=r"navigate\.json: record 1: field 'input' has damaged options"):
        read("bbh", "navigate.json", _bbh(("Which?\nOptions:\n(A) one\n(C) two", "(A)")))


def test_programs_are_read(read):
    record = {
        "task_id": "HumanEval/0",
        "prompt": "def f():\n",
        "canonical_solution": "    return 1\n",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
        "entry_point": "f",
    }
    (item,) = read("humaneval", "HumanEval.jsonl.gz", gzip.compress(json.dumps(record).encode()))
    program = f"{item.question}{item.solution}{item.extra['tests']}check({item.extra['entry_point']})"
    exec(program, {})
    record = {
        "text": "Add.\r\n",
        "code": "def add(a, b):\r\n  return a + b",
        "task_id": 11,
        "test_setup_code": "x = 1\r\ny = 2",
        "test_list": ["assert add(x, y) == 3", "assert add(1, 1) == 2"],
        "challenge_test_list": [],
    }
    (item,) = read("mbpp", "mbpp.jsonl", [record])
    assert item.question == "Add." and item.solution == "def add(a, b):\n  return a + b"
    assert item.extra["setup"] == "x = 1\ny = 2" and item.extra["tests"].count("\n") == 1
    with pytest.raises(InputError, match=r"HumanEval\.jsonl\.gz: the gzip file is damaged"):
        read("humaneval", "HumanEval.jsonl.gz", gzip.compress(b"{}" * 99)[:-9])


def test_statements_of_minif2f_are_read(read):
    record = {
        "problem_name": "amc12a_2002_p6",
        "formal_statement": 'theorem amc12a_2002_p6:\n  shows "1 = 1"',
        "informal_statement": "Show it.",
        "informal_proof": "Clear.",
        "header": "theory amc12a_2002_p6 imports Main\nbegin\n\n",
        "id": "validation-3",
    }
    (item,) = read("minif2f", "validation.jsonl", [record], "validation")
    assert (item.id, item.subject, item.question, item.answer) == ("validation-3", "amc", "Show it.", "")
    assert item.extra["header"].endswith("begin")


def test_a_file_that_is_no_text_is_named(read):
    with pytest.raises(InputError, match=r"test\.jsonl: not UTF-8 \(.* at byte 0\); convert the file"):
        read("cmath", "test.jsonl", b"\xff\xfe1")
    with pytest.raises(InputError, match=r"navigate\.json: holds no list in field 'examples'"):
        read("bbh", "navigate.json", "{}")
