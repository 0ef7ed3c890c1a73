"""The corpus, a crawl file at a time: the collected pages without benchmark texts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsmath.runs.workdir import replacing
from dsmath.web.decontaminate import Decontaminator, Segment, audit_table
from dsmath.web.pages import read_rows, read_table, write_batches

CORPUS = pa.schema(
    [
        ("url", pa.string()),
        ("host", pa.string()),
        ("text", pa.string()),
        ("score", pa.float32()),
        ("language", pa.string()),
        ("round", pa.int32()),
    ]
)


class WriteCorpus:
    """Worker: writes a file's collected pages without benchmark texts, and before them what was removed.

    Args:
      decontaminator: the file of a `Decontaminator`; "" for none.
    """

    def __init__(self, decontaminator: str):
        self._decontaminator = Decontaminator.load(decontaminator) if decontaminator else None

    def run(self, task: Mapping[str, Any]) -> None:
        """Writes `task["output"]`; the record of what was removed goes to `task["contaminated"]`."""
        rows = read_table(task["unique"])["row"].to_numpy()
        selection = read_table(task["selection"])
        collected = selection["collected"].to_numpy()
        scores = read_table(task["scores"], ["score"])["score"].to_numpy()[collected]
        rounds = selection["first_round"].to_numpy()[collected]
        removed: list[tuple[str, Segment]] = []
        with replacing(task["output"]) as temporary:
            write_batches(temporary, CORPUS, self._clean(task["pages"], rows[collected], scores, rounds, removed))
            with replacing(task["contaminated"]) as audit:
                pq.write_table(audit_table(removed), audit)

    def _clean(
        self, path: str, row_C: np.ndarray, score_C: np.ndarray, round_C: np.ndarray, removed: list
    ) -> Iterator[dict[str, Any]]:
        start = 0
        for batch in read_rows(path, ["url", "host", "text", "language"], row_C):
            records = []
            for page in batch.to_pylist():
                page |= {"score": score_C[start], "round": round_C[start]}
                start += 1
                if self._decontaminator is not None:
                    page["text"], segments = self._decontaminator.clean(page["text"])
                    removed.extend((page["url"], segment) for segment in segments)
                if page["text"].strip():
                    records.append(page)
            yield _columns(records, CORPUS)


def _columns(records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> dict[str, list]:
    return {name: [record[name] for record in records] for name in schema.names}
