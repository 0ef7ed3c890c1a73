"""The pages of a mined crawl that a round collected, or that it rejected: corpora to compare the mined one with."""

import os
from collections.abc import Iterator

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json, to_path
from dsmath.web.pages import read_rows, read_table


def read_pages(workdir: str | os.PathLike, round_number: int, *, collected: bool) -> Iterator[tuple[str, str]]:
    """Address and text of a mined crawl's unique pages, in the crawl's order.

    Benchmark texts are not removed from them, as `experiments.mine` does with its corpus.

    Args:
      workdir: of a finished mining stage.
      round_number: of its rounds; 0 for the last.
      collected: True for the pages that this round collected, False for those that it did not.
    Raises:
      InputError: the stage had no such round.
    """
    folder = to_path(workdir)
    rounds = [entry["round"] for entry in read_json(folder / "report.json")["rounds"]]
    if round_number and round_number not in rounds:
        raise InputError(f"config.round: {round_number} is none of the rounds of {workdir}, 1 to {max(rounds)}")
    for file in sorted((folder / "unique").glob("*.parquet")):
        selection = read_table(folder / "selection" / f"round-{round_number or max(rounds)}-{file.name}")
        chosen = selection["collected"].to_numpy() == collected
        rows = read_table(file)["row"].to_numpy()[chosen]
        for batch in read_rows(str(folder / "pages" / file.name), ["url", "text"], rows):
            for page in batch.to_pylist():
                yield page["url"], page["text"]
