"""The page classifier: fastText with two labels, folded to one number a word."""

import os
import pathlib
import re
import struct
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import replacing

try:
    import fasttext
except ImportError as error:
    raise ImportError(
        "fasttext is not installed; it is compiled from source: install a C++ compiler and the Python headers "
        "(apt-get install g++ python3-dev), then pip install 'fasttext>=0.9.3'"
    ) from error

_MATH, _OTHER = "__label__math", "__label__other"
# Words, LaTeX commands and Chinese characters; numbers, marks and single letters tell manuals apart, not mathematics
# (AUC 0.88 against 0.76 with them, on real manuals' pages). Nothing is left that means something to fastText either:
# "__label__", or "</s>", which would end the line.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(f"[{_CJK}]|\\\\?[^\\W\\d_{_CJK}]{{2,}}")
_SMOOTHING = 1e-5  # fastText adds it to a probability before the logarithm, and does not take it off again
# fastText 0.9.3 fills its input matrix in tenths, one a thread, and leaves the rest as the allocator gave it: zeros
# where the block comes fresh from the system, as blocks above this size do; below it garbage, which becomes NaN.
_MIN_MATRIX_BYTES = 2**25
_FOLD_TOLERANCE = 1e-4
_FOLD_CHECKS = 1_000  # texts
_SCORE_BATCH = 512  # texts a call
# Of fastText's files: magic number, version, 12 settings and t; sizes of the dictionary; a matrix's form, rows and
# columns. Source: Args::save, Dictionary::save, DenseMatrix::save of fastText 0.9.3
_FILE_HEADER, _FILE_MATRIX = struct.Struct("<2i12id3i2q"), struct.Struct("<?2q")
_FILE_MAGIC, _FILE_ENTRY_TAIL = 793712314, 9  # bytes after a word: its count and its kind


class Classifier:
    """Says how probable it is that a page is mathematics. Make one by `train` or `load`.

    A model of two labels needs one number a word: P(math) = sigmoid(mean(W_in · (w_math - w_other))). `train` folds
    the trained model so, and checks it; the file is that of a fastText model of dimension 1.
    """

    def __init__(self, model: "fasttext.FastText._FastText"):
        self._model = model

    @classmethod
    def train(
        cls,
        positives: Iterable[str],
        negatives: Iterable[str],
        *,
        dim: int = 256,
        lr: float = 0.1,
        word_ngrams: int = 3,
        min_count: int = 3,
        epochs: int = 3,
        buckets: int = 2_000_000,
        threads: int = 1,
        seed: int = 0,
    ) -> "Classifier":
        """Trains on texts of mathematics and of anything; the defaults are the paper's.

        Args:
          positives: texts of mathematics.
          negatives: other texts.
          dim, lr, word_ngrams, min_count, epochs, buckets: fastText's dim, lr, wordNgrams, minCount, epoch, bucket.
          threads: one thread gives the same model for the same texts and seed, several do not.
          seed: of the model and of the order of the texts.
        Raises:
          InputError: no positives or no negatives, a model that is too small, or a training that diverges.
          RuntimeError: the folded model scores differently from the trained one.
        Source: DeepSeekMath §2.1.
        """
        if word_ngrams < 2 or buckets * dim * 4 <= _MIN_MATRIX_BYTES:
            raise InputError(
                f"config.classifier: word_ngrams={word_ngrams} must be at least 2 and buckets={buckets} above "
                f"{_MIN_MATRIX_BYTES // (4 * dim)} at dim={dim}; fastText does not initialise smaller models"
            )
        lines = [f"{_MATH} {_line(text)}" for text in positives]
        num_positives = len(lines)
        lines += [f"{_OTHER} {_line(text)}" for text in negatives]
        if not 0 < num_positives < len(lines):
            raise InputError(
                f"the classifier has {num_positives} positives and {len(lines) - num_positives} negatives; it needs "
                "both: check config.seed_texts, config.positives, config.negatives and config.embedded_negatives"
            )
        order = np.random.default_rng(seed).permutation(len(lines))  # SGD forgets a label that comes first
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "train.txt"
            with open(path, "w", encoding="utf-8", errors="replace") as file:
                file.writelines(lines[index] + "\n" for index in order)
            try:
                trained = fasttext.train_supervised(
                    str(path), dim=dim, lr=lr, wordNgrams=word_ngrams, minCount=min_count, epoch=epochs, bucket=buckets,
                    thread=threads, seed=seed, verbose=0,
                )  # fmt: skip
            except RuntimeError as error:  # "Encountered NaN."
                raise InputError(
                    f"the classifier's training failed: {error} Lower config.classifier.lr={lr}"
                ) from error
        checks = [lines[index].partition(" ")[2] for index in order[:_FOLD_CHECKS]]
        before = _score_lines(trained, checks)
        folded = _fold(trained)
        difference = float(np.abs(_score_lines(folded, checks) - before).max())
        if difference > _FOLD_TOLERANCE:
            raise RuntimeError(f"the folded classifier differs from the trained one by {difference:.2g} in P(math)")
        return cls(folded)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Classifier":
        """Loads a model of the labels math and other.

        Raises:
          InputError: no such file, or not such a model.
        """
        if not pathlib.Path(path).is_file():
            raise InputError(f"{path}: no such classifier; run `experiments.mine` first")
        if not _is_whole_model(pathlib.Path(path).read_bytes()):
            raise InputError(f"{path}: not a whole fastText model; remove it and run `experiments.mine` again")
        model = fasttext.load_model(str(path))
        if sorted(model.get_labels()) != [_MATH, _OTHER]:
            raise InputError(f"{path}: its labels are {model.get_labels()}, not {[_MATH, _OTHER]}")
        return cls(model)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model, under a temporary name first."""
        with replacing(path) as temporary:
            self._model.save_model(str(temporary))

    def score(self, texts: list[str]) -> np.ndarray:
        """P(math) of each text, float32 [texts] within 0 to 1."""
        return _score_lines(self._model, [_line(text) for text in texts])


def _is_whole_model(content: bytes) -> bool:
    """Whether a file is a fastText model, not quantised, to its last byte; fastText reads cut ones without end."""
    try:
        magic, *_, num_words, _, _, _, num_pruned = _FILE_HEADER.unpack_from(content)
        if magic != _FILE_MAGIC:
            return False
        position = _FILE_HEADER.size
        for _ in range(num_words):
            position = content.index(b"\0", position) + 1 + _FILE_ENTRY_TAIL
        position += 8 * max(num_pruned, 0)
        for _ in ("input", "output"):
            is_quantised, rows, columns = _FILE_MATRIX.unpack_from(content, position)
            if is_quantised:
                return False
            position += _FILE_MATRIX.size + 4 * rows * columns
    except (struct.error, ValueError):  # cut
        return False
    return position == len(content)


def _line(text: str) -> str:
    """A text as one line of lower-case tokens."""
    return " ".join(_TOKEN.findall(text.lower()))


def _score_lines(model: "fasttext.FastText._FastText", lines: Sequence[str]) -> np.ndarray:
    scores = np.empty(len(lines), dtype=np.float32)
    for start in range(0, len(lines), _SCORE_BATCH):
        batch = list(lines[start : start + _SCORE_BATCH])
        labels, values = model.predict(batch, k=2)  # a list: under NumPy 2 a single string fails
        scores[start : start + len(batch)] = [
            value[label.index(_MATH)] for label, value in zip(labels, values, strict=True)
        ]
    return np.clip(scores - _SMOOTHING, 0.0, 1.0)


def _fold(model: "fasttext.FastText._FastText") -> "fasttext.FastText._FastText":
    """Folds the model in place to dimension 1."""
    math = model.get_labels().index(_MATH)
    output_2D = model.get_output_matrix()
    input_W1 = model.get_input_matrix() @ (output_2D[math] - output_2D[1 - math])[:, None]
    output_21 = np.array([[0.5], [-0.5]]) if math == 0 else np.array([[-0.5], [0.5]])
    model.set_matrices(input_W1, output_21)
    return model
