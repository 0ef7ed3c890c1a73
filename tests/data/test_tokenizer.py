"""The tokenizer gives every text back, and text never becomes a special token."""

import json
import pickle
import random

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from dsmath.data.tokenizer import (
    BOS,
    EOS,
    FILE,
    JSON_FILE,
    PAD,
    UNK,
    BytePairTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
)
from dsmath.runs.errors import InputError

TEXTS = [
    "Anna has 12 apples and gets 7 more. First 12+7=19. The answer is \\boxed{19}.",
    "小明有3盒苹果，每盒12个，一共有多少个？先算3*12=36。答案是\\boxed{36}。",
    "The derivative of $x^2$ is $2x$;\n\tand the integral of \\frac{1}{x} is \\log x.\n\n  Indented line.",
    "def total(values):\n    return sum(values)\n",
] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, vocab_size=420)


def _random_texts() -> list[str]:
    """Texts of code points from every plane, surrogates left out."""
    rng = random.Random(0)
    ranges = [(0, 0x80), (0x80, 0x800), (0x4E00, 0x9FFF), (0xE000, 0x10000), (0x10000, 0x110000), (0x1F300, 0x1FAFF)]
    return ["".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 30))) for _ in range(300)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two leading and trailing spaces  ",
        "a\nb\r\nc\rd\n\n\n",
        "\t\ttabs\tand\vvertical\ffeeds",
        "🙂👩‍👩‍👧‍👦 family, flag 🇨🇳, e\u0301 against \u00e9",
        "中文，全角１２３和ＡＢＣ。",
        "\x00\x01\x07\x1b[31m\x7f",
        "\ufeffbom \u200b zero width \u00a0 no break \u2028 line \u2029 paragraph \u3000 ideographic",
        "ﬁ ligature ½ ² Å \u212b",
        f"{PAD}{BOS}{EOS}{UNK} <0x0A> <0xFF> <s> </s>",
        "\\boxed{\\frac{1}{2}} 3.14159 1,000,000",
    ],
)
def test_a_text_comes_back_to_the_letter(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sentencepieces_own_sign_for_a_space_comes_back_as_a_space(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a▁b")) == "a b"  # the one exception, stated in the docstring


def test_random_texts_of_every_plane_come_back_to_the_letter(tokenizer):
    texts = _random_texts()
    encoded = tokenizer.encode_all(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert encoded[:20] == [tokenizer.encode(text) for text in texts[:20]]


def test_special_tokens_never_arise_from_text(tokenizer):
    special = {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}
    assert special == {0, 1, 2}
    for text in [PAD, BOS, EOS, UNK, f"a{EOS}b", f" {EOS} ", f"{BOS}{EOS}" * 3, *_random_texts()]:
        assert not special & set(tokenizer.encode(text)), text


def test_special_tokens_leave_no_trace_in_text(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("1+1=2"), tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(ids) == "1+1=2"


def test_every_digit_is_its_own_token(tokenizer):
    digits = [tokenizer.encode(digit) for digit in "0123456789"]
    assert all(len(ids) == 1 for ids in digits if ids)
    assert tokenizer.encode("1236") == [digits[int(digit)][0] for digit in "1236"]
    pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    assert not [piece for piece in pieces if any(char.isdigit() for char in piece) and len(piece) > 1]


def test_a_newline_is_a_token_of_its_own(tokenizer):
    (newline,) = tokenizer.encode("\n")
    assert tokenizer.encode("a\nb").count(newline) == 1
    assert tokenizer.encode("\n\n") == [newline, newline]


def test_frequent_words_are_short(tokenizer):
    assert len(tokenizer.encode("The answer is")) < len("The answer is") / 2


def test_the_same_texts_give_the_same_bytes(tokenizer, tmp_path):
    again = Tokenizer.train(iter(TEXTS), vocab_size=420)
    assert again.save(tmp_path / "a").read_bytes() == tokenizer.save(tmp_path / "b").read_bytes()


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.vocab_size == tokenizer.vocab_size == 420
    assert loaded.encode("12 apples\n苹果") == tokenizer.encode("12 apples\n苹果")


def test_a_very_long_line_is_trained_on_too():
    # SentencePiece alone would drop the line, and with it the only text that holds the word.
    tokenizer = Tokenizer.train(["zyzzyva " * 2000], vocab_size=275)
    assert len(tokenizer.encode("zyzzyva")) <= 2


@pytest.mark.parametrize("vocab_size", [100, 50_000])
def test_a_vocabulary_that_does_not_fit_is_named(vocab_size):
    with pytest.raises(InputError, match=rf"config\.vocab_size: {vocab_size} does not fit") as caught:
        Tokenizer.train(TEXTS, vocab_size=vocab_size)
    assert "\n" not in str(caught.value)


def test_a_missing_or_damaged_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match=r"config\.init_from=.*tokenizer\.model and no tokenizer\.json; give"):
        Tokenizer.load(tmp_path, "config.init_from")
    (tmp_path / FILE).write_bytes(b"no model")
    with pytest.raises(InputError, match=r"config\.tokenizer: .*tokenizer\.model is no SentencePiece model"):
        Tokenizer.load(tmp_path)


SPECIAL = ["<|begin|>", "<|end|>", "<|pad|>"]


@pytest.fixture(scope="module")
def library():
    """A byte-level BPE of the tokenizers library."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(TEXTS, trainer)
    library.add_special_tokens(SPECIAL)
    return library


def _byte_pair(library, **settings) -> BytePairTokenizer:
    """It with files beside it, such as tokenizer_config={…}."""
    files = {f"{name}.json": json.dumps(value).encode() for name, value in settings.items()}
    return BytePairTokenizer({JSON_FILE: library.to_str().encode(), **files})


ROLES = {"bos_token": SPECIAL[0], "eos_token": {"content": SPECIAL[1]}, "pad_token": SPECIAL[2]}


def test_byte_level_bpe_gives_texts_back_and_special_tokens_never_arise_from_text(library):
    tokenizer = _byte_pair(library, tokenizer_config=ROLES)
    texts = [*TEXTS, *_random_texts(), *SPECIAL, "a<|end|>b", "", " "]
    encoded = tokenizer.encode_all(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert encoded == [tokenizer.encode(text) for text in texts]
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} & {token for ids in encoded for token in ids}
    assert tokenizer.vocab_size == library.get_vocab_size()
    framed = [
        tokenizer.bos_id,
        *tokenizer.encode("1+1=2"),
        tokenizer.eos_id,
        tokenizer.pad_id,
        tokenizer.vocab_size + 5,
    ]
    assert tokenizer.decode(framed) == "1+1=2"  # the last id is one that only the model has


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tokenizer_config": ROLES}, SPECIAL),
        ({"special_tokens_map": ROLES}, SPECIAL),
        ({"tokenizer_config": {"eos_token": "<|end|>", "bos_token": None}}, ["<|end|>", "<|end|>", "<|end|>"]),
        ({"tokenizer_config": {"eos_token": "<|end|>", "pad_token": "<|pad|>"}}, ["<|end|>", "<|end|>", "<|pad|>"]),
    ],
)
def test_special_tokens_are_found_wherever_a_checkpoint_names_them(library, settings, named):
    tokenizer = _byte_pair(library, **settings)
    found = [tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id]
    assert found == [library.token_to_id(token) for token in named]


def test_ids_of_the_generation_config_count_where_no_token_is_named(library):
    tokenizer = _byte_pair(
        library,
        tokenizer_config={"eos_token": "<|end|>"},
        generation_config={"bos_token_id": 7, "eos_token_id": [5, 6], "pad_token_id": 8},
    )
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (7, library.token_to_id("<|end|>"), 8)


def test_tokens_beyond_a_sentencepiece_model_have_ids(tokenizer):
    config = {"eos_token": "<|im_end|>", "added_tokens_decoder": {"420": {"content": "<|im_end|>"}}}
    extended = SentencePieceTokenizer({**tokenizer.files, "tokenizer_config.json": json.dumps(config).encode()})
    assert (extended.eos_id, extended.vocab_size, extended.bos_id) == (420, 421, tokenizer.bos_id)
    assert extended.decode([*extended.encode("2 apples"), 420, 425]) == "2 apples"
    assert not extended.equals(tokenizer)


def test_a_tokenizer_is_loaded_by_the_file_that_is_there_and_travels_with_its_settings(library, tokenizer, tmp_path):
    first = _byte_pair(library, tokenizer_config=ROLES, generation_config={"temperature": 0.7})
    assert first.save(tmp_path / "a") == tmp_path / "a" / JSON_FILE
    second = Tokenizer.load(tmp_path / "a")
    second.save(tmp_path / "b")
    assert second.equals(first) and second.files == first.files
    assert {path.name for path in (tmp_path / "b").iterdir()} == set(first.files)
    assert not first.equals(tokenizer)
    assert not first.equals(_byte_pair(library, tokenizer_config={"eos_token": "<|end|>"}))
    (tmp_path / "a" / "tokenizer_config.json").unlink()
    tokenizer.save(tmp_path / "a")  # where both are, SentencePiece's is the original
    assert Tokenizer.load(tmp_path / "a").equals(tokenizer)


def test_a_copy_in_another_process_gives_the_same_ids(library, tokenizer):
    for original in (_byte_pair(library, tokenizer_config=ROLES), tokenizer):
        copy = pickle.loads(pickle.dumps(original))
        assert copy.equals(original)
        assert copy.encode("<|end|> 12 apples") == original.encode("<|end|> 12 apples")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({JSON_FILE: b"no json"}, r"tokenizer\.json: not JSON"),
        ({JSON_FILE: b"[]"}, r"tokenizer\.json: holds no object"),
        ({JSON_FILE: b'{"model": {"type": "WordPiece"}}'}, r"tokenizer\.json: its model is WordPiece, and only BPE"),
        ({JSON_FILE: b'{"model": {"type": "BPE"}}'}, r"tokenizer\.json: .*; take the file from its source again"),
        ({"tokenizer_config.json": b"{}"}, r"tokenizer\.json: no token ends a text; name eos_token"),
        ({"tokenizer_config.json": b'{"eos_token": "<x>"}'}, r"tokenizer_config\.json: eos_token '<x>' is no token of"),
        ({"special_tokens_map.json": b"{"}, r"special_tokens_map\.json: not JSON"),
    ],
)
def test_a_damaged_file_of_a_checkpoint_is_named(library, tmp_path, files, named):
    _byte_pair(library, tokenizer_config=ROLES).save(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^config\.init_from: .*{named}") as caught:
        Tokenizer.load(tmp_path, "config.init_from")
    assert "\n" not in str(caught.value)
