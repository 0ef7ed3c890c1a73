"""A tokenizer goes out as files that the tokenizers library reads, with the same ids."""

import json

import pytest
import tokenizers

from dsmath.data import problems
from dsmath.data.solutions import chat_prompt
from dsmath.data.tokenizer import Tokenizer
from dsmath.huggingface.tokenizer import generation_settings, to_huggingface


@pytest.fixture(scope="module")
def trained() -> tuple[Tokenizer, list[str]]:
    """A tokenizer of the demo's kind and texts that it was not trained on."""
    records = problems.load(problems.EMBEDDED, "train", count=600, seed=0)
    texts = [f"{chat_prompt(record.question, record.language, record.kind)} {record.solution}" for record in records]
    return Tokenizer.train(texts[:400], vocab_size=1100), texts[400:]


def test_our_tokenizer_gives_the_same_ids_in_the_tokenizers_library(trained):
    tokenizer, texts = trained
    texts = [*texts, *(text[::-1] for text in texts), "", " ", "\n\n", "  a  b\t", "🙂 e\u0301 ∫", "<0x41> <s>"]
    files = to_huggingface(tokenizer)
    library = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    for text in texts:
        ids = tokenizer.encode(text)
        assert library.encode(text, add_special_tokens=False).ids == ids, text
        assert library.decode(ids) == text
        assert library.encode(text).ids == [tokenizer.bos_id, *ids]
    assert library.get_vocab_size() == tokenizer.vocab_size


def test_the_files_name_the_special_tokens_and_come_back_as_the_same_tokenizer(trained, tmp_path):
    tokenizer, _ = trained
    files = to_huggingface(tokenizer)
    config = json.loads(files["tokenizer_config.json"])
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<bos>", "<eos>", "<pad>")
    assert config["add_prefix_space"] is False
    assert json.loads(files["generation_config.json"]) == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert Tokenizer.load(tmp_path).equals(tokenizer)


def test_a_tokenizer_that_came_in_goes_out_as_it_came(byte_level):
    assert to_huggingface(byte_level) == byte_level.files


@pytest.mark.parametrize(
    ("config", "stated"),
    [
        ({"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": -1}, {"bos_token_id": 1, "eos_token_id": [2, 3]}),
        ({"bos_token_id": None, "eos_token_id": None}, None),
        ({}, None),
    ],
)
def test_ids_that_only_the_models_config_states_are_kept(config, stated):
    found = generation_settings(config)
    assert (found and json.loads(found)) == stated
