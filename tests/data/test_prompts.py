"""Files of prompts: what a record may be, and what is refused by its line."""

import json

import pytest

from dsmath.data.chat import encode_prompt
from dsmath.data.prompts import Prompt, read_prompts
from dsmath.data.solutions import Solution, write_solutions
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs.errors import InputError


def _write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_records_are_prompts_or_questions(tmp_path, checkpoint):
    tokenizer = Tokenizer.load(checkpoint)
    path = _write(tmp_path / "a", {"prompt": "1 + 1 =", "id": 7, "level": 3}, {"question": "One?", "answer": "1"})
    first, second = read_prompts(path)
    assert first == Prompt("7", prompt="1 + 1 =") and second == Prompt("2", question="One?", answer="1")
    assert first.encode(tokenizer) == [tokenizer.bos_id, *tokenizer.encode("1 + 1 =")]
    assert second.encode(tokenizer) == encode_prompt(Solution("One?", "1", ""), tokenizer)


def test_a_file_of_solutions_is_one_of_questions(tmp_path):
    write_solutions(tmp_path / "a", [Solution("几?", "1", "一", language="zh", kind="tir")])
    assert read_prompts(tmp_path / "a") == [Prompt("1", question="几?", answer="1", language="zh", kind="tir")]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"answer": "1"}, "has a prompt .* or a question"),
        ({"prompt": "a", "question": "b"}, "has a prompt .* or a question"),
        ({"prompt": ["a"]}, r"prompt is \['a'\], not a text"),
        ({"prompt": "a", "language": "fr"}, "language 'fr' is none of en, zh"),
        ({"prompt": "a", "id": "1"}, "its id '1' is that of .*:1 too"),
        ([], "no JSON object"),
    ],
)
def test_a_bad_record_is_named_by_its_line(tmp_path, record, problem):
    path = _write(tmp_path / "a", {"prompt": "fine", "id": "1"}, record)
    with pytest.raises(InputError, match=rf"a:2: .*{problem}"):
        read_prompts(path)


def test_a_missing_file_and_a_broken_line_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file"):
        read_prompts(tmp_path / "nowhere")
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="a:1: no JSON record"):
        read_prompts(tmp_path / "a")
