"""The tokenizer: SentencePiece, which we train, or the byte-level BPE of a Hugging Face checkpoint."""

import abc
import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import sentencepiece
import tokenizers

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import to_path, write_atomically

FILE = "tokenizer.model"  # SentencePiece
JSON_FILE = "tokenizer.json"  # Hugging Face's tokenizers
# What a Hugging Face checkpoint says about its tokenizer beside the file itself; it travels from stage to stage.
SETTINGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)
PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
_LONGEST_LINE = 4000  # bytes; SentencePiece drops longer training lines in silence, so they are cut


class Tokenizer(abc.ABC):
    """Text to token ids and back, whatever library does it.

    Attributes:
      file: name of the tokenizer's file in a workdir.
      files: the contents by name of that file and of those among `SETTINGS` that came with it.
      vocab_size: number of ids; a model may have rows for more.
      pad_id, bos_id, eos_id: ids of the special tokens, which never arise from text. A checkpoint that has no token
        to begin or to pad with uses its end token there, as its authors do.
    """

    file: ClassVar[str]

    def __init__(self, files: Mapping[str, bytes]):
        self.files = dict(files)
        settings = {name: _read_settings(files, name) for name in SETTINGS if name.endswith(".json")}
        decoder = settings["tokenizer_config.json"].get("added_tokens_decoder", {})
        added = {token["content"]: int(token_id) for token_id, token in decoder.items()}
        added |= settings["added_tokens.json"]
        self.vocab_size: int = max(self._count_ids(), 1 + max(added.values(), default=-1))

        def find(role: str) -> int | None:
            for name in ("tokenizer_config.json", "special_tokens_map.json"):
                token = settings[name].get(f"{role}_token")
                if token := token["content"] if isinstance(token, dict) else token:
                    token_id = added.get(token, self._find_id(token))
                    if token_id is None:
                        raise InputError(f"{name}: {role}_token {token!r} is no token of {self.file}; correct it")
                    return token_id
            stated = settings["generation_config.json"].get(f"{role}_token_id")
            return self._default_id(role) if stated is None else stated[0] if isinstance(stated, list) else stated

        eos = find("eos")
        if eos is None:
            raise InputError(f"{self.file}: no token ends a text; name eos_token in tokenizer_config.json beside it")
        bos, pad = find("bos"), find("pad")
        self.eos_id: int = eos
        self.bos_id: int = eos if bos is None else bos
        self.pad_id: int = eos if pad is None else pad

    @staticmethod
    def train(texts: Iterable[str], *, vocab_size: int) -> "SentencePieceTokenizer":
        """Trains SentencePiece BPE with byte fallback and split digits; the same texts give the same tokenizer.

        Args:
          texts: documents.
          vocab_size: at least the 256 bytes, the special tokens and the alphabet.
        Raises:
          InputError: a vocabulary that the texts cannot fill or that their alphabet overfills.
        """
        return SentencePieceTokenizer({FILE: _train(texts, vocab_size)})

    @staticmethod
    def load(workdir: str | os.PathLike, field: str = "config.tokenizer") -> "Tokenizer":
        """Loads the tokenizer of a workdir or of a Hugging Face checkpoint, of the kind whose file is there.

        Raises:
          InputError: none there, or a damaged one; `field` is the config's field that names the folder.
        """
        folder = to_path(workdir)
        kinds = (SentencePieceTokenizer, BytePairTokenizer)  # where both files are, the first is the original
        kind = next((kind for kind in kinds if (folder / kind.file).is_file()), None)
        if kind is None:
            raise InputError(
                f"{field}={str(workdir)!r}: no {folder / FILE} and no {JSON_FILE}; give the workdir of a finished "
                "tokenizer stage"
            )
        names = (FILE, JSON_FILE, *SETTINGS)
        files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
        try:
            return kind(files)
        except InputError as error:
            raise InputError(f"{field}: {folder}: {error}") from error

    def save(self, workdir: str | os.PathLike) -> pathlib.Path:
        """Writes the tokenizer into a workdir, each file atomically; returns the path of `file`."""
        folder = pathlib.Path(workdir)
        for name, content in self.files.items():
            if name != self.file:
                write_atomically(folder / name, content)
        write_atomically(folder / self.file, self.files[self.file])
        return folder / self.file

    def equals(self, other: "Tokenizer") -> bool:
        """Whether both give the same ids: the same file, byte for byte, and the same special tokens."""
        return self._identity() == other._identity()

    def _identity(self) -> tuple[Any, ...]:
        return self.file, self.files[self.file], self.pad_id, self.bos_id, self.eos_id

    def __reduce__(self):
        return type(self), (self.files,)

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""

    @abc.abstractmethod
    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts."""

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens and the ids that only a model has leave no trace."""

    @abc.abstractmethod
    def piece(self, token_id: int) -> str:
        """The name of a token in the vocabulary, such as "<eos>"; "" where only a model has the id."""

    @abc.abstractmethod
    def _count_ids(self) -> int:
        """The ids of the tokenizer's own file."""

    @abc.abstractmethod
    def _find_id(self, token: str) -> int | None:
        """The id of a token, None where the file has no such token."""

    def _default_id(self, role: str) -> int | None:
        """The id that the file itself gives to "pad", "bos" or "eos"."""
        return None


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model.

    One that `train` made gives every text back, but for U+2581, SentencePiece's own sign for a space.
    """

    file = FILE

    def __init__(self, files: Mapping[str, bytes]):
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=files[FILE])
        except RuntimeError as error:
            raise InputError(f"{FILE} is no SentencePiece model; write it again") from error
        super().__init__(files)

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        return self._processor.encode(texts)

    def decode(self, ids: Iterable[int]) -> str:
        special = (self.pad_id, self.bos_id, self.eos_id)
        count = self._count_ids()
        return self._processor.decode([int(token) for token in ids if token not in special and token < count])

    def piece(self, token_id: int) -> str:
        return self._processor.id_to_piece(token_id) if token_id < self._count_ids() else ""

    def _count_ids(self) -> int:
        return self._processor.vocab_size()

    def _find_id(self, token: str) -> int | None:
        found = self._processor.piece_to_id(token)
        return found if self._processor.id_to_piece(found) == token else None  # a stranger's id is that of <unk>

    def _default_id(self, role: str) -> int | None:
        found = getattr(self._processor, f"{role}_id")()
        return None if found < 0 else found


class BytePairTokenizer(Tokenizer):
    """The BPE of a `tokenizer.json`, such as those of DeepSeek, Llama 3 and Qwen."""

    file = JSON_FILE

    def __init__(self, files: Mapping[str, bytes]):
        if (kind := _read_settings(files, JSON_FILE).get("model", {}).get("type")) != "BPE":
            raise InputError(f"{JSON_FILE}: its model is {kind}, and only BPE is read here; take another checkpoint")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(files[JSON_FILE].decode())
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{JSON_FILE}: {error}; take the file from its source again") from error
        self._tokenizer.encode_special_tokens = True  # as text: a page that spells one must not end a document
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        super().__init__(files)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        return [found.ids for found in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        special = (self.pad_id, self.bos_id, self.eos_id)
        return self._tokenizer.decode([int(token) for token in ids if token not in special])

    def piece(self, token_id: int) -> str:
        return self._tokenizer.id_to_token(token_id) or ""

    def _count_ids(self) -> int:
        return 1 + max(self._tokenizer.get_vocab().values())

    def _find_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)


def _read_settings(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """A JSON object among the files; empty where the file is absent."""
    try:
        found = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise InputError(f"{name}: not JSON ({error}); take the file from its source again") from error
    if not isinstance(found, dict):
        raise InputError(f"{name}: holds no object; take the file from its source again")
    return found


def _train(texts: Iterable[str], vocab_size: int) -> bytes:
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
    return model.getvalue()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines():
            encoded = line.encode()
            for start in range(0, len(encoded), _LONGEST_LINE):
                if piece := encoded[start : start + _LONGEST_LINE].decode(errors="ignore"):
                    yield piece
