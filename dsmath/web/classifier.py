"""The page classifier: fastText with two labels, folded to one number a word."""

import array
import contextlib
import ctypes
import dataclasses
import errno
import itertools
import math
import mmap
import os
import pathlib
import struct
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import replacing
from dsmath.web import tokens

try:
    import fasttext
except ImportError as error:
    raise ImportError(
        "fasttext is not installed; it is compiled from source: install a C++ compiler and the Python headers "
        "(apt-get install g++ python3-dev), then pip install 'fasttext>=0.9.3'"
    ) from error

_MATH, _OTHER = "__label__math", "__label__other"
_SMOOTHING = 1e-5  # fastText adds it to a probability before the logarithm, and does not take it off again
# fastText 0.9.3 fills its input matrix in tenths, one a thread, and leaves the rest as the allocator gave it. With
# glibc `_zeroed_allocations` makes that zeros; elsewhere blocks above this size mostly come fresh from the system.
_MIN_MATRIX_BYTES = 2**25
# Steps (texts · epochs) times the learning rate: on it alone the outcome depends. The paper's training has 300,000. On
# 3,700 pages its settings have 1,100 and have learnt nothing yet: AUC 0.50 on unseen hosts; with 9,000 it is 0.93, with
# 18,000 and more 0.94. fastText's own advice for the learning rate is 0.1 to 1.
_MIN_TRAINING, _MAX_RAISED_LR = 20_000, 1.0
_FOLD_TOLERANCE = 1e-4
_FOLD_CHECKS = 1_000  # texts
_M_PERTURB = -6  # glibc's option: what is allocated is filled with the complement of a byte
_SCORE_BATCH = 512  # texts a call
# Of fastText's files: magic number, version, 12 settings and t; sizes of the dictionary; a matrix's form, rows and
# columns. Source: Args::save, Dictionary::save, DenseMatrix::save of fastText 0.9.3
_FILE_HEADER, _FILE_MATRIX = struct.Struct("<2i12id3i2q"), struct.Struct("<?2q")
_FILE_MAGIC, _FILE_ENTRY_TAIL = 793712314, 9  # bytes after a word: its count and its kind


@dataclasses.dataclass(frozen=True)
class Settings:
    """fastText's settings; the defaults are the paper's, but for the number of buckets, on which it is silent.

    Attributes:
      dim, lr, word_ngrams, min_count, epochs, buckets: its dim, lr, wordNgrams, minCount, epoch, bucket; for small
        training sets, see `raised_for`.
      threads: one thread gives the same model for the same texts and seed, several do not.
      seed: of the model, of the order of the texts, and of the pages that a host's limit leaves.
    Source: DeepSeekMath §2.1.
    """

    dim: int = 256
    lr: float = 0.1
    word_ngrams: int = 3
    min_count: int = 3
    epochs: int = 3
    buckets: int = 2_000_000
    threads: int = 1
    seed: int = 0

    def __post_init__(self):
        if self.word_ngrams < 2 or self.buckets * self.dim * 4 <= _MIN_MATRIX_BYTES:
            raise InputError(
                f"config.classifier: word_ngrams={self.word_ngrams} must be at least 2 and buckets={self.buckets} "
                f"above {_MIN_MATRIX_BYTES // (4 * self.dim)} at dim={self.dim}; fastText does not initialise smaller "
                "models"
            )
        if not (self.lr > 0 and self.epochs > 0):
            raise InputError(f"config.classifier: lr={self.lr} and epochs={self.epochs} must be above 0")

    def raised_for(self, num_texts: int) -> "Settings":
        """These settings, or for a small training set a higher learning rate, up to 1, and then more epochs.

        What was set holds where lr · epochs · texts is at least 20,000, as from 67,000 texts on with the paper's.
        """
        wanted = _MIN_TRAINING / num_texts
        lr = max(self.lr, min(wanted / self.epochs, _MAX_RAISED_LR))
        return dataclasses.replace(self, lr=lr, epochs=max(self.epochs, math.ceil(wanted / lr)))


class TrainingTexts:
    """Labelled texts in a file, a line of tokens each: a million of them need no memory. Made by `spool`.

    Attributes:
      is_math_N: bool [N], the label of each text, in the order in which they came.
      host_N: int32 [N], the place of its host in `hosts`; -1 where nobody knows.
      hosts: each host once.
    """

    def __init__(
        self, content: mmap.mmap, end_N: np.ndarray, is_math_N: np.ndarray, host_N: np.ndarray, hosts: list[str]
    ):
        self._content, self._end_N = content, end_N
        self.is_math_N, self.host_N, self.hosts = is_math_N, host_N, hosts

    def choose(self, max_per_host: int, seed: int) -> np.ndarray:
        """The texts that stay, ascending, where a host gives no more than `max_per_host` of them; 0: any number."""
        if not max_per_host:
            return np.arange(len(self.host_N))
        order = np.random.default_rng(seed).permutation(len(self.host_N))
        by_host = order[np.argsort(self.host_N[order], kind="stable")]
        host_N = self.host_N[by_host]
        place_N = np.arange(len(host_N)) - np.searchsorted(host_N, host_N)
        return np.sort(by_host[(place_N < max_per_host) | (host_N < 0)])

    def lines(self, rows: np.ndarray) -> Iterator[str]:
        """The tokens of these texts."""
        return (self._read(row).decode().partition(" ")[2].removesuffix("\n") for row in rows.tolist())

    def write(self, path: str | os.PathLike, rows: np.ndarray) -> None:
        """Writes fastText's training file of these texts, in their order."""
        with open(path, "wb") as file:
            file.writelines(map(self._read, rows.tolist()))

    def _read(self, row: int) -> bytes:
        return self._content[self._end_N[row] : self._end_N[row + 1]]


@contextlib.contextmanager
def spool(
    positives: Iterable[str],
    negatives: Iterable[str],
    positive_hosts: Iterable[str] | None = None,
    negative_hosts: Iterable[str] | None = None,
) -> Iterator[TrainingTexts]:
    """Passes the texts on to a file in the system's temporary folder (TMPDIR), which lives as long as the block.

    Args:
      positives, negatives: texts of mathematics and others; each is gone through once.
      positive_hosts, negative_hosts: beside each text its host, "" where nobody knows; None: no host is known.
    Raises:
      InputError: no positives, no negatives, or no space left in the temporary folder.
    """
    numbers: dict[str, int] = {}
    ends, labels, hosts = array.array("q", [0]), array.array("b"), array.array("i")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "texts.txt"
            with open(path, "wb") as file:
                for label, texts, text_hosts in (
                    (_MATH, positives, positive_hosts),
                    (_OTHER, negatives, negative_hosts),
                ):
                    pairs = (
                        ((text, "") for text in texts) if text_hosts is None else zip(texts, text_hosts, strict=True)
                    )
                    for text, host in pairs:
                        size = file.write(f"{label} {tokens.line(text)}\n".encode(errors="replace"))
                        ends.append(ends[-1] + size)
                        labels.append(label == _MATH)
                        hosts.append(numbers.setdefault(host, len(numbers)) if host else -1)
            is_math_N = np.array(labels, dtype=bool)
            _check_labels(is_math_N)
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield TrainingTexts(content, np.array(ends), is_math_N, np.array(hosts), list(numbers))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise InputError(
            f"the classifier's training file: no space left in {tempfile.gettempdir()}; set TMPDIR to a larger folder"
        ) from error


def _check_labels(is_math_N: np.ndarray) -> None:
    num_positives = int(is_math_N.sum())
    if not 0 < num_positives < len(is_math_N):
        raise InputError(
            f"the classifier has {num_positives} positives and {len(is_math_N) - num_positives} negatives; it needs "
            "both: check config.seed_texts, config.positives, config.negatives and config.embedded_negatives"
        )


class Classifier:
    """Says how probable it is that a page is mathematics. Make one by `train` or `load`.

    A model of two labels needs one number a word: P(math) = sigmoid(mean(W_in · (w_math - w_other))). `fit` folds the
    trained model so, and checks it; the file is that of a fastText model of dimension 1.
    """

    def __init__(self, model: "fasttext.FastText._FastText"):
        self._model = model

    @classmethod
    def train(
        cls,
        positives: Iterable[str],
        negatives: Iterable[str],
        *,
        positive_hosts: Iterable[str] | None = None,
        negative_hosts: Iterable[str] | None = None,
        max_per_host: int = 0,
        dim: int = Settings.dim,
        lr: float = Settings.lr,
        word_ngrams: int = Settings.word_ngrams,
        min_count: int = Settings.min_count,
        epochs: int = Settings.epochs,
        buckets: int = Settings.buckets,
        threads: int = Settings.threads,
        seed: int = Settings.seed,
    ) -> "Classifier":
        """Trains on texts of mathematics and of anything; the defaults are the paper's, raised for small training sets.

        The texts pass through a file in the temporary folder and are never in memory together. How good the model is
        on hosts that it has not seen, `validation.train_validated` says, and calibrates it there.

        Args:
          positives: texts of mathematics.
          negatives: other texts.
          positive_hosts, negative_hosts: beside each text its host, "" where nobody knows; None: no host is known.
          max_per_host: most texts of a host, chosen at random; 0: any number.
          dim, lr, word_ngrams, min_count, epochs, buckets, threads, seed: see `Settings`.
        Raises:
          InputError: no positives or no negatives, a model that is too small, or a training that diverges.
          RuntimeError: the folded model scores differently from the trained one.
        Source: DeepSeekMath §2.1.
        """
        settings = Settings(dim, lr, word_ngrams, min_count, epochs, buckets, threads, seed)
        with spool(positives, negatives, positive_hosts, negative_hosts) as texts:
            return cls.fit(texts, texts.choose(max_per_host, seed), settings)

    @classmethod
    def fit(cls, texts: TrainingTexts, rows: np.ndarray, settings: Settings) -> "Classifier":
        """Trains on some of the spooled texts; see `train`.

        P(math) is that of a page that is drawn from both labels alike, as the paper draws them, whatever the labels'
        shares here: else a page of a host that is not like the positives' would lose to the larger label. Trained on
        half of 36 domains, a third of their pages mathematics, it had F1 0.81 on the other half, and 0.77 without this.
        """
        is_math_N = texts.is_math_N[rows]
        _check_labels(is_math_N)
        order = np.random.default_rng(settings.seed).permutation(rows)  # SGD forgets a label that comes first
        trained = _train_fasttext(texts, order, settings.raised_for(len(rows)))
        checks = list(texts.lines(order[:_FOLD_CHECKS]))
        before = _score_lines(trained, checks)
        folded = _fold(trained)
        difference = float(np.abs(_score_lines(folded, checks) - before).max())
        if not difference <= _FOLD_TOLERANCE:
            raise RuntimeError(f"the folded classifier differs from the trained one by {difference:.2g} in P(math)")
        share = float(is_math_N.mean())
        classifier = cls(folded)
        classifier.calibrate(1.0, math.log((1 - share) / share))
        return classifier

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Classifier":
        """Loads a model of the labels math and other.

        Raises:
          InputError: no such file, or not such a model.
        """
        if not pathlib.Path(path).is_file():
            raise InputError(f"{path}: no such classifier file; run `experiments.mine` first")
        try:
            if not _is_whole_model(pathlib.Path(path).read_bytes()):
                raise ValueError("cut, quantised or of another kind")
            model = fasttext.load_model(str(path))
        except ValueError as error:
            raise InputError(
                f"{path}: not a whole fastText model ({error}); remove it and run `experiments.mine` again"
            ) from error
        if sorted(model.get_labels()) != [_MATH, _OTHER]:
            raise InputError(f"{path}: its labels are {model.get_labels()[:5]}, not {[_MATH, _OTHER]}")
        return cls(model)

    def calibrate(self, factor: float, shift: float) -> None:
        """Makes sigmoid(factor · logit + shift) of every score sigmoid(logit), by way of the number of each word.

        A score is that of a mean, and every line has a word, its end: so this holds for any text.
        """
        self._model.set_matrices(self._model.get_input_matrix() * factor + shift, self._model.get_output_matrix())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the model, under a temporary name first."""
        with replacing(path) as temporary:
            self._model.save_model(str(temporary))

    def score(self, texts: Iterable[str]) -> np.ndarray:
        """P(math) of each text, float32 [texts] within 0 to 1."""
        return self.score_lines(map(tokens.line, texts))

    def score_lines(self, lines: Iterable[str]) -> np.ndarray:
        """The same of lines of tokens, as `TrainingTexts` gives them."""
        return _score_lines(self._model, lines)


def _train_fasttext(texts: TrainingTexts, order: np.ndarray, settings: Settings) -> "fasttext.FastText._FastText":
    with tempfile.TemporaryDirectory() as folder, _zeroed_allocations():
        path = pathlib.Path(folder) / "train.txt"
        texts.write(path, order)
        try:
            return fasttext.train_supervised(
                str(path), dim=settings.dim, lr=settings.lr, wordNgrams=settings.word_ngrams,
                minCount=settings.min_count, epoch=settings.epochs, bucket=settings.buckets, thread=settings.threads,
                seed=settings.seed, verbose=0,
            )  # fmt: skip
        except RuntimeError as error:  # "Encountered NaN."
            raise InputError(
                f"the classifier's training failed at a learning rate of {settings.lr:g}: {error} Lower "
                "config.classifier.lr and raise config.classifier.epochs"
            ) from error


@contextlib.contextmanager
def _zeroed_allocations() -> Iterator[None]:
    """Has glibc's malloc clear what it hands out: memory that was used before makes a training fail, or differ."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        yield
        return
    mallopt(_M_PERTURB, 0xFF)
    try:
        yield
    finally:
        mallopt(_M_PERTURB, 0)


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


def _score_lines(model: "fasttext.FastText._FastText", lines: Iterable[str]) -> np.ndarray:
    scores, lines = [], iter(lines)
    while batch := list(itertools.islice(lines, _SCORE_BATCH)):
        labels, values = model.predict(batch, k=2)  # a list: under NumPy 2 a single string fails
        scores += [value[label.index(_MATH)] for label, value in zip(labels, values, strict=True)]
    return np.clip(np.array(scores, dtype=np.float32) - np.float32(_SMOOTHING), 0.0, 1.0)


def _fold(model: "fasttext.FastText._FastText") -> "fasttext.FastText._FastText":
    """Folds the model in place to dimension 1."""
    math_label = model.get_labels().index(_MATH)
    output_2D = model.get_output_matrix()
    input_W1 = model.get_input_matrix() @ (output_2D[math_label] - output_2D[1 - math_label])[:, None]
    output_21 = np.array([[0.5], [-0.5]]) if math_label == 0 else np.array([[-0.5], [0.5]])
    model.set_matrices(input_W1, output_21)
    return model
