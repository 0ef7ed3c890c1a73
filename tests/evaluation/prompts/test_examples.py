"""The examples of the few-shot prompts are right, and are nobody's test problems."""

import collections
import contextlib
import importlib.resources
import io
import itertools
import json
import re
from fractions import Fraction

import pytest

from dsmath.data.benchmarks.catalog import BENCHMARKS, read
from dsmath.evaluation.prompts.shots import has_shots, read_shots, read_task
from dsmath.reward.answers import extract_answer, is_equivalent

SHOTS = {  # of the paper and its released evaluation; those of MGSM-zh are ours
    "gsm8k": 8,
    "math": 4,
    "ocw": 4,
    "sat": 4,
    "mmlu_stem": 4,
    "mmlu": 5,
    "mgsm_zh": 8,
    "cmath": 6,
    "gaokao_mathcloze": 5,
    "gaokao_mathqa": 5,
    "mbpp": 3,
}
FOLDER = importlib.resources.files("dsmath.evaluation.prompts") / "examples"
TASKS = sorted(f"bbh/{file.name.removesuffix('.toml')}" for file in (FOLDER / "bbh").iterdir())
EQUATION = re.compile(r"([\d.]+(?:\s*[-+*/]\s*[\d.]+)+)\s*=\s*([\d.]+(?:/\d+)?)(?![\d.]*\s*[-+*(])")


def printed(program: str) -> str:
    """What one of our own programs prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(program, {"__name__": "example"})
    return output.getvalue().strip()


@pytest.mark.parametrize("name", SHOTS)
def test_every_benchmark_has_the_papers_number_of_examples(name):
    assert len(read_shots(name)) == SHOTS[name]


def test_all_27_tasks_of_bbh_have_three_examples():
    assert len(TASKS) == 27
    for name in TASKS:
        assert len(read_shots(name)) == 3 and read_task(name)
    assert not has_shots("bbh/no_such_task")


@pytest.mark.parametrize("name", ["gsm8k", "mgsm_zh", "cmath"])
def test_equations_hold_and_lead_to_the_answer(name):
    for shot in read_shots(name):
        equations = re.findall(
            r"([\d.]+(?:\s*[-+*/]\s*[\d.]+)+)\s*=\s*([\d.]+(?:/\d+)?)(?![\d.]*\s*[-+*(])", shot.solution
        )
        assert equations or "=" not in shot.solution, shot.id
        for left, right in equations:
            exact = re.sub(r"\d+(?:\.\d+)?", lambda number: f"Fraction('{number[0]}')", left)
            assert eval(exact, {"Fraction": Fraction}) == Fraction(right.rstrip(".")), (shot.id, left, right)
        assert re.findall(r"\d+(?:[./]\d+)?", shot.solution)[-1] == shot.answer, shot.id


@pytest.mark.parametrize("name", ["math", "ocw"])
def test_the_box_of_a_solution_is_the_answer(name):
    for shot in read_shots(name):
        assert extract_answer(shot.solution) == shot.answer, shot.id


@pytest.mark.parametrize("name", ["sat", "mmlu_stem"])
def test_the_box_of_a_solution_is_the_chosen_option_alone(name):
    for shot in read_shots(name):
        box = extract_answer(shot.solution)
        assert [letter for letter, text in zip("ABCD", shot.choices, strict=True) if is_equivalent(box, text)] == [
            shot.answer
        ], shot.id


def test_solutions_of_gaokao_end_with_their_answers():
    for shot in read_shots("gaokao_mathqa"):
        option = shot.choices["ABCD".index(shot.answer)].strip("$")
        assert shot.solution.rstrip(".").replace("$", "").removesuffix(" 种").endswith(option), shot.id
    for shot in read_shots("gaokao_mathcloze"):
        assert all(blank.strip("$") in shot.solution for blank in shot.answer.split(";")), shot.id
        assert shot.question.count("quad") == len(shot.answer.split(";"))


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_programs_print_the_answer(name):
    for shot in read_shots(name):
        assert is_equivalent(printed(shot.extra["program"]), shot.answer), shot.id


def test_functions_pass_their_tests():
    for shot in read_shots("mbpp"):
        exec(f"{shot.extra['program']}\n{shot.extra['tests']}", {})
        with pytest.raises(AssertionError):
            exec(f"{shot.extra['program']}\n{shot.extra['tests'].replace('== ', '!= ')}", {})


@pytest.mark.parametrize("name", [name for name in TASKS if read_shots(name)[0].answer.startswith("(")])
def test_a_lettered_answer_is_an_option_and_named_by_the_solution(name):
    for shot in read_shots(name):
        assert f"\n{shot.answer} " in shot.question, shot.id
        last = re.split(r"(?<=\.)\s", shot.solution)[-1]
        if name in ("bbh/hyperbaton", "bbh/ruin_names"):  # these argue option by option
            right = {"bbh/hyperbaton": "which is right", "bbh/ruin_names": "is funny"}[name]
            last = next(part for part in re.split(r"(?<=\.)\s", shot.solution) if right in part)
        assert re.findall(r"\([A-Z]\)", last)[-1:] == [shot.answer], shot.id


def test_what_can_be_computed_of_bbh_is():
    for shot in read_shots("bbh/boolean_expressions"):
        assert str(eval(shot.question.removesuffix(" is"))) == shot.answer
    for shot in read_shots("bbh/multistep_arithmetic_two"):
        assert str(eval(shot.question.removesuffix(" ="))) == shot.answer
    for shot in read_shots("bbh/word_sorting"):
        assert sorted(shot.question.rpartition("List: ")[2].split()) == shot.answer.split()
    for shot in read_shots("bbh/dyck_languages"):
        text = re.sub(r"\s", "", shot.question.rpartition("Input:")[2] + shot.answer)
        while (shorter := re.sub(r"\(\)|\[\]|\{\}|<>", "", text)) != text:
            text = shorter
        assert not text, shot.id


def test_walks_of_bbh_end_as_they_say():
    turns = {"left": 1j, "right": -1j, "around": -1}
    for shot in read_shots("bbh/navigate"):
        place, ahead = 0, 1j
        for turn, count, side in re.findall(r"Turn (\w+)\.|Take (\d+) steps?(?: (\w+))?\.", shot.question):
            if turn:
                ahead *= turns[turn]
            else:
                place += int(count) * ahead * {"": 1, "forward": 1, "backward": -1, "left": 1j, "right": -1j}[side]
        assert shot.answer == ("Yes" if place == 0 else "No"), shot.id


def test_liars_of_bbh_are_found():
    for shot in read_shots("bbh/web_of_lies"):
        honest = {}
        for name, said, value in re.findall(r"(\w+) (?:says (\w+) )?(lies|tells the truth)\.", shot.question):
            honest[name] = (value != "lies") == (honest[said] if said else True)
        assert shot.answer == ("Yes" if honest[re.search(r"Does (\w+) tell", shot.question)[1]] else "No"), shot.id


@pytest.mark.parametrize("count", ["three", "five", "seven"])
def test_swaps_of_bbh_end_as_they_say(count):
    for shot in read_shots(f"bbh/tracking_shuffled_objects_{count}_objects"):
        told, _, listed = shot.question.partition("\nOptions:\n")
        options = dict(re.findall(r"(\([A-G]\)) (.+)", listed))
        first, swaps = told.split("\n")
        owner = {thing: re.search(rf"([A-Z]\w+) \w+ (?:\w+ )?{thing}", first)[1] for thing in options.values()}
        for one, other in re.findall(r"(\w+) and (\w+) (?:exchange|trade|swap)", swaps):
            owner = {thing: {one: other, other: one}.get(name, name) for thing, name in owner.items()}
        asked = swaps.rpartition(", ")[2].split()[0]
        assert owner[options[shot.answer]] == asked, shot.id


def spell(text: str) -> list[str]:
    """Words, or Chinese characters, in small letters and without punctuation."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+", text.lower())


def grams(words: list[str]) -> list[tuple[str, ...]]:
    """Ten words at a time; a shorter text whole."""
    return list(zip(*(words[start:] for start in range(10)), strict=False)) or [tuple(words)]


def test_no_problem_of_a_benchmark_is_an_example(shared_data):
    folder = shared_data / "benchmarks"
    ours = collections.defaultdict(set)
    for name in [*SHOTS, *TASKS]:
        for shot in read_shots(name):
            for gram in grams(spell(f"{shot.question} {' '.join(shot.choices)}\n{shot.extra.get('tests', '')}")):
                ours[gram].add(shot.id)
    assert len(ours) > 3000
    texts = [
        f"{item.question} {' '.join(item.choices)} {item.extra.get('tests', '')}"
        for name, benchmark in BENCHMARKS.items()
        for split in benchmark.sizes
        if (folder / name).is_dir()
        for item in read(name, folder, split)
    ]
    for path in (folder / "process_labels").glob("*n15*.jsonl"):
        texts += [json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines()]
    vocabulary = {word for gram in ours for word in gram}
    found = collections.Counter()
    for text in set(texts):
        words = spell(text)
        if not vocabulary.isdisjoint(words):  # a gram of ours is a run of our words
            runs = (list(run) for known, run in itertools.groupby(words, vocabulary.__contains__) if known)
            found.update(
                {gram for run in runs if len(run) >= min(10, len(words)) for gram in grams(run) if gram in ours}
            )
    wording = 5  # problems from which words belong to a task, such as "do you return to the starting point"
    copied = {" ".join(gram): ours[gram] for gram, count in found.items() if count < wording}
    assert not copied
