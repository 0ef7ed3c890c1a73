"""The tokenizer gives every text back, and text never becomes a special token."""

import random

import pytest

from dsmath.data.tokenizer import BOS, EOS, FILE, PAD, UNK, Tokenizer
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
    with pytest.raises(InputError, match=r"config\.init_from=.*tokenizer\.model; give the workdir"):
        Tokenizer.load(tmp_path, "config.init_from")
    (tmp_path / FILE).write_bytes(b"no model")
    with pytest.raises(InputError, match=r"config\.tokenizer: .*tokenizer\.model is no SentencePiece model"):
        Tokenizer.load(tmp_path)
