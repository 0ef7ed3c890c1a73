"""What is asked in each mode."""

import pytest

from configs.evaluate import GENERAL, MATHEMATICS
from dsmath.data.benchmarks.catalog import BENCHMARKS, read
from dsmath.data.benchmarks.item import Item
from dsmath.data.solutions import chat_prompt
from dsmath.evaluation.prompts import MODES, cut, make_prompt, modes_of, stops, supports
from dsmath.runs.errors import InputError

SUM = Item("gsm8k", "1", "What is 2 + 3?", "5")
CHOICE = Item("mmlu_stem", "1", "What is 2 + 3?", "B", choices=("4", "5", "6", "7"))
EXAM = Item("gaokao_mathqa", "1", "$2+3=$ ($\\quad$)", "B", choices=("$4$", "$5$"), language="zh")
FUNCTION = Item(
    "humaneval", "1", "def two():\n", "", extra={"tests": "def check(f): pass", "setup": "", "entry_point": "two"}
)
TASK = Item("mbpp", "1", "Write two().", "", extra={"tests": "assert two() == 2", "setup": "", "entry_point": ""})


def test_a_base_model_goes_on_where_the_last_example_had_its_solution():
    prompt = make_prompt(SUM, "few_shot")
    assert prompt.shots == 8 and not prompt.tool and not prompt.choices
    assert prompt.text.count("\n\nQuestion: ") == 8 and prompt.text.startswith("Question: ")
    assert prompt.text.count(" The answer is ") == 8
    assert prompt.text.endswith("\n\nQuestion: What is 2 + 3?\nAnswer:")


def test_math_is_asked_in_the_form_of_minerva():
    prompt = make_prompt(Item("math", "1", "What is $2+3$?", "5"), "few_shot")
    assert prompt.shots == 4
    assert prompt.text.endswith(
        "\nFinal Answer: The final answer is $\\frac{3\\sqrt{10}}{5}$. I hope it is correct.\n\n"
        "Problem:\nWhat is $2+3$?\nSolution:"
    )


def test_programs_are_asked_for_in_an_open_block():
    prompt = make_prompt(SUM, "few_shot_pot")
    assert prompt.shots == 8 and prompt.text.count("```python\n") == 8 and prompt.text.endswith("\n```python")


@pytest.mark.parametrize(("mode", "kind"), [("chat", "cot"), ("chat_tool", "tir")])
def test_a_tuned_model_is_asked_as_it_was_trained(mode, kind):
    prompt = make_prompt(SUM, mode)
    assert prompt.text == chat_prompt(SUM.question, "en", kind)
    assert prompt.tool == (mode == "chat_tool") and prompt.shots == 0 and prompt.stop == ()


def test_options_are_posed_as_the_released_evaluation_poses_them():
    assert make_prompt(CHOICE, "chat").text.startswith(
        "User: What is 2 + 3?\nWhat of the following is the right choice? Explain your answer.\n"
        "(A) 4, (B) 5, (C) 6, (D) 7\nPlease reason step by step"
    )
    assert make_prompt(EXAM, "chat").text == (
        "User: $2+3=$ ($\\quad$)\n从以下选项中选择:    (A) $4$ (B) $5$\n"
        "请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。\n\nAssistant:"
    )


def test_likelihood_is_asked_of_the_letters_behind_the_same_prompt():
    prompt = make_prompt(CHOICE, "choice")
    assert prompt.choices == (" A", " B", " C", " D") and prompt.text.endswith("\nD. 7\nAnswer:")
    assert make_prompt(EXAM, "choice").choices == ("A", "B")


def test_a_task_of_bbh_has_its_own_examples_and_gets_its_options_back():
    item = Item("bbh", "1", "Which statement is sarcastic?", "A", choices=("Great, rain", "Great"), subject="snarks")
    prompt = make_prompt(item, "few_shot")
    assert prompt.shots == 3 and prompt.text.startswith("Find the sarcastic one of two sentences.\n\nQ: ")
    assert prompt.text.endswith(
        "Q: Which statement is sarcastic?\nOptions:\n(A) Great, rain\n(B) Great\nA: Let's think step by step."
    )
    with pytest.raises(InputError, match="bbh/knitting: no examples"):
        make_prompt(Item("bbh", "1", "Knit", "yes", subject="knitting"), "few_shot")


def test_code_is_asked_with_its_tests():
    assert make_prompt(FUNCTION, "few_shot").text == "def two():\n" and make_prompt(FUNCTION, "few_shot").shots == 0
    prompt = make_prompt(TASK, "few_shot")
    assert prompt.shots == 3 and prompt.text.endswith("tests:\n\nassert two() == 2\n[BEGIN]")
    for item in (FUNCTION, TASK):
        text = make_prompt(item, "chat").text
        assert text.startswith("User: ") and text.endswith("\n\nAssistant:") and "boxed" not in text


@pytest.mark.parametrize(("theorem", "shots"), [("mathd_numbertheory_1", 7), ("mathd_algebra_1", 6)])
def test_a_proof_is_asked_with_the_papers_number_of_sketches(theorem, shots):
    statement = f'theorem {theorem}:\n  shows "True"'
    item = Item("minif2f", "1", "Show it.", "", "Clear.", extra={"formal_statement": statement, "header": ""})
    prompt = make_prompt(item, "few_shot")
    assert prompt.shots == shots and prompt.text.endswith(statement)
    assert cut("\nproof -\n\nInformal:\n", stops(item, "few_shot")) == "\nproof -\n"


def test_a_completion_ends_where_the_next_example_would_begin():
    assert cut(" 5. The answer is 5.\n\nQuestion: What", stops(SUM, "few_shot")) == " 5. The answer is 5.\n"
    assert cut("return 2\n\ndef three():", stops(FUNCTION, "few_shot")) == "return 2\n"
    assert cut("whole", ("b", "c")) == "whole" and cut("a\nQ: b", ()) == "a\nQ: b"
    assert stops(SUM, "chat") == ()


def test_modes_that_are_not_there_are_refused_by_name():
    with pytest.raises(InputError, match="ocw has no mode 'few_shot_pot'; its modes are few_shot, chat, chat_tool"):
        make_prompt(Item("ocw", "1", "?", "1"), "few_shot_pot")
    with pytest.raises(InputError, match="'unheard' has no prompts; known are gsm8k"):
        modes_of("unheard")
    assert supports("sat", "choice") and not supports("gsm8k", "choice") and not supports("unheard", "chat")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_modes_for_tuned_models_but_proofs_and_those_of_the_paper_for_base_ones(name):
    assert ("chat" in modes_of(name)) == (name != "minif2f") and set(modes_of(name)) <= set(MODES)
    assert "few_shot" in modes_of(name) or name not in (*MATHEMATICS, *GENERAL, "minif2f")


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "mmlu"])
def test_every_real_problem_can_be_asked_in_every_mode(shared_data, name):
    items = read(name, shared_data / "benchmarks")
    for mode in modes_of(name):
        for item in items[:: 1 + len(items) // 200]:
            prompt = make_prompt(item, mode)
            assert item.question.strip() in prompt.text
            assert prompt.text == prompt.text.strip() or (name, mode) == ("humaneval", "few_shot")
            assert all(option in prompt.text for option in item.choices)
