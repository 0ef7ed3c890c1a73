"""The tokenizer: SentencePiece BPE with byte fallback and split digits."""

import io
import os
import pathlib
from collections.abc import Iterable, Iterator

import sentencepiece

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_atomically

FILE = "tokenizer.model"
PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
_LONGEST_LINE = 4000  # bytes; SentencePiece drops longer training lines in silence, so they are cut


class Tokenizer:
    """Text to token ids and back, without loss but for U+2581, SentencePiece's own sign for a space.

    Attributes:
      vocab_size: number of ids.
      pad_id, bos_id, eos_id: ids of the special tokens, which never arise from text.
    """

    def __init__(self, model: bytes):
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._model = model
        self.vocab_size: int = self._processor.vocab_size()
        self.pad_id: int = self._processor.pad_id()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int) -> "Tokenizer":
        """Trains on texts; the same texts give the same tokenizer.

        Args:
          texts: documents.
          vocab_size: at least the 256 bytes, the special tokens and the alphabet.
        Raises:
          InputError: a vocabulary that the texts cannot fill or that their alphabet overfills.
        """
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(texts),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                byte_fallback=True,
                split_digits=True,
                # Texts come back to the letter: no normalisation, no dropped or added space.
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                allow_whitespace_only_pieces=True,
                character_coverage=0.9995,
                user_defined_symbols=["\n"],
                pad_id=0,
                bos_id=1,
                eos_id=2,
                unk_id=3,
                pad_piece=PAD,
                bos_piece=BOS,
                eos_piece=EOS,
                unk_piece=UNK,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise InputError(f"config.vocab_size: {vocab_size} does not fit these texts ({reason})") from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, workdir: str | os.PathLike, field: str = "config.tokenizer") -> "Tokenizer":
        """Loads the tokenizer of a workdir.

        Raises:
          InputError: none there; `field` is the config's field that names the workdir.
        """
        path = pathlib.Path(workdir) / FILE
        if not path.is_file():
            raise InputError(f"{field}={str(workdir)!r}: no {path}; give the workdir of a finished tokenizer stage")
        try:
            return cls(path.read_bytes())
        except RuntimeError as error:
            raise InputError(f"{field}: {path} is no SentencePiece model; run the tokenizer stage again") from error

    def save(self, workdir: str | os.PathLike) -> pathlib.Path:
        """Writes the tokenizer into a workdir, atomically."""
        path = pathlib.Path(workdir) / FILE
        write_atomically(path, self._model)
        return path

    def equals(self, other: "Tokenizer") -> bool:
        """Whether both are the same model, byte for byte."""
        return self._model == other._model

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return self._processor.encode(text)

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts."""
        return self._processor.encode(texts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens leave no trace."""
        special = (self.pad_id, self.bos_id, self.eos_id)
        return self._processor.decode([int(token) for token in ids if token not in special])


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines():
            encoded = line.encode()
            for start in range(0, len(encoded), _LONGEST_LINE):
                if piece := encoded[start : start + _LONGEST_LINE].decode(errors="ignore"):
                    yield piece
