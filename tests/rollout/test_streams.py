"""The text of samples under way is that of all their tokens, and costs no more than what is new."""

import io
import json
import random

import jax
import numpy as np
import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from dsmath.data.tokenizer import FILE, JSON_FILE, BytePairTokenizer, SentencePieceTokenizer, Tokenizer
from dsmath.model.sharding import make_mesh
from dsmath.rollout.blocks import Drawn
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.requests import Limits, Request

LENGTH = 600  # of a sample
TEXTS = [
    "Anna has 12 apples.",
    "小明有3盒苹果，一共有多少个？",
    "  def f(x):\n    return x\n\n",
    "🙂👩‍👩‍👧 e\u0301 ∑ \ufffd x",
]
SETTINGS = {"tokenizer_config.json": json.dumps({"eos_token": "</s>"}).encode()}


def _own() -> Tokenizer:
    return Tokenizer.train(TEXTS * 20, vocab_size=330)


def _foreign_sentencepiece() -> Tokenizer:
    """One that puts a space before a text, and takes it away again."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=model, model_type="bpe", vocab_size=330, byte_fallback=True,
        minloglevel=2,
    )  # fmt: skip
    return SentencePieceTokenizer({FILE: model.getvalue()})


def _byte_level() -> Tokenizer:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(TEXTS * 20, trainer)
    library.add_special_tokens(["</s>"])
    return BytePairTokenizer({JSON_FILE: library.to_str().encode()} | SETTINGS)


def _byte_fallback() -> Tokenizer:
    """As Llama 2's: a byte that is no text makes the whole run of bytes no text."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "▁▁", "▁a", "a", "b", "的", "</s>"]
    library = tokenizers.Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, []))
    strip = decoders.Strip(" ", 1, 0)
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip],
    )
    return BytePairTokenizer({JSON_FILE: library.to_str().encode()} | SETTINGS)


def _draw_tokens(tokenizer: Tokenizer, rng: random.Random) -> list[int]:
    """Texts, half texts, stray bytes and special tokens."""
    tokens = []
    while len(tokens) < LENGTH:
        encoded = tokenizer.encode("".join(rng.choice(text) for text in rng.choices(TEXTS, k=5)))
        start = rng.randrange(max(1, len(encoded)))
        stray = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randrange(3))]
        tokens += [*encoded[start:], *stray]
        tokens += [tokenizer.eos_id] * (rng.random() < 0.1)
    return tokens[:LENGTH]


class Counted:
    """A codec that counts what it decodes."""

    def __init__(self, codec):
        self._codec, self.decoded = codec, 0

    def decode(self, ids) -> str:
        self.decoded += len(ids)
        return self._codec.decode(ids)


@pytest.fixture
def make_engine(model):
    """(codec, tokens of each request's sample, most tokens of a block) -> an engine that computes nothing."""

    def make_engine(codec, samples: list[list[int]], most: int = 8) -> Engine:
        limits = Limits(len(samples), 1, (16,), (LENGTH + 1,), most, 16, 1, "float32")
        engine = Engine(model, make_mesh({"data": 1}, jax.devices()[:1]), limits, pad_id=0, codec=codec)
        rng = np.random.default_rng(0)

        def decode(active) -> Drawn:
            tokens = np.zeros((len(active), most), np.int32)
            counts = rng.integers(1, most + 1, len(active))
            for place, (_, _, sample) in enumerate(active):
                new = samples[sample.request.id][len(sample.tokens) :][: counts[place]]
                tokens[place, : len(new)], counts[place] = new, len(new)
            return Drawn(tokens, np.zeros(tokens.shape, np.float32), counts, counts == 0)

        engine._decode = decode
        for place in range(len(samples)):
            engine.add(Request(place, [1], 1, Decoding(1.0, 1.0, LENGTH + 1)))
        return engine

    return make_engine


@pytest.mark.parametrize("make_codec", [_own, _foreign_sentencepiece, _byte_level, _byte_fallback])
@pytest.mark.parametrize("most", [3, 8, 40])
def test_the_text_under_way_is_that_of_all_tokens(make_engine, make_codec, most):
    codec, rng = make_codec(), random.Random(most)
    samples = [_draw_tokens(codec, rng) for _ in range(5)]
    spaces, stray = codec.encode(" "), [token for token in range(codec.vocab_size) if codec.decode([token]) == "\ufffd"]
    samples += [(spaces * LENGTH)[:LENGTH], [rng.choice(stray) for _ in range(LENGTH)]]
    samples += [[*(codec.encode("小") * 4), rng.choice(stray)] * 20]
    engine, seen = make_engine(codec, samples, most), 0
    while engine.busy:
        engine.step()
        running = engine.running(*range(len(samples)))
        seen += len(running)
        for completion in running:
            assert completion.text == codec.decode(completion.tokens)
            assert list(completion.tokens) == samples[completion.request_id][: len(completion.tokens)]
    assert seen > len(samples) * LENGTH / most / 2


def test_a_block_decodes_what_is_new_and_what_stands_before_it(make_engine):
    codec, rng = _own(), random.Random(0)
    counted = Counted(codec)
    text = codec.encode("".join(rng.choice(TEXTS) for _ in range(LENGTH)))[:LENGTH]
    engine = make_engine(counted, [text])
    while engine.busy:
        engine.step()
        engine.running(0)
    assert counted.decoded < 10 * LENGTH  # of whole texts it were 75 blocks of half a sample


def test_samples_of_several_requests_come_together(make_engine):
    engine = make_engine(_own(), [[65] * LENGTH] * 4)
    engine.step()
    assert [completion.request_id for completion in engine.running(3, 1)] == [1, 3]
    assert engine.running() == engine.running(9) == []


def test_tokens_that_were_cut_are_forgotten(make_engine):
    codec = _own()
    engine = make_engine(codec, [codec.encode("Anna has 12 apples. 小明有3盒苹果")])
    engine.step()
    engine.step()
    engine.running(0)
    (sample,) = (sample for row in engine._rows for sample in row.slots)
    for length in (5, 2, 0):
        engine._cut(sample, length)
        (completion,) = engine.running(0)
        assert completion.text == codec.decode(sample.tokens[:length])
