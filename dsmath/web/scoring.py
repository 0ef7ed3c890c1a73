"""Scores of the unique pages, a crawl file at a time."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dsmath.web.classifier import Classifier
from dsmath.web.pages import read_rows, read_table, write_parquet

SCORES = pa.schema([("url", pa.string()), ("host", pa.string()), ("score", pa.float32()), ("round", pa.int32())])


class ScorePages:
    """Worker: scores the unique pages of a file, writes `scores/round-ROUND-NAME.parquet`.

    Args:
      model: the classifier's file.
      round_number: counts from 1.
    """

    def __init__(self, model: str, round_number: int):
        self._classifier = Classifier.load(model)
        self._round = round_number

    def run(self, task: Mapping[str, Any]) -> None:
        """Scores the rows of `task["pages"]` that `task["unique"]` names, in that order."""
        rows = read_table(task["unique"])["row"].to_numpy()
        write_parquet(task["output"], SCORES, self._score(task["pages"], rows))

    def _score(self, path: str, rows: np.ndarray) -> Iterator[dict[str, Any]]:
        for batch in read_rows(path, ["url", "host", "text"], rows):
            score = self._classifier.score(batch["text"].to_pylist())
            yield {"url": batch["url"], "host": batch["host"], "score": score, "round": [self._round] * len(score)}


class TakeScores:
    """Worker: writes the same file where the pages were scored as they were extracted.

    Args:
      round_number: counts from 1.
    """

    def __init__(self, round_number: int):
        self._round = round_number

    def run(self, task: Mapping[str, Any]) -> None:
        """Takes the scores of the rows of `task["pages"]` that `task["unique"]` names."""
        rows = read_table(task["unique"])["row"]
        scores = read_table(task["pages"], ["url", "host", "score"]).take(rows)
        write_parquet(task["output"], SCORES, [{**scores.to_pydict(), "round": [self._round] * len(rows)}])
