"""What a round selects: the cut in the ranking, the collected pages, the domains, and the pages under marked paths."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsmath.runs.errors import InputError
from dsmath.web.crawl import Crawl
from dsmath.web.domains import Domain, find_math_domains
from dsmath.web.engine import Engine
from dsmath.web.pages import read_metadata, read_table, write_parquet
from dsmath.web.paths import MarkedPaths
from dsmath.web.shuffle import key_numbers

BYTES_PER_TOKEN = 4  # of UTF-8; ours, for ranking alone: the corpus is counted in tokens when it is tokenized
_SELECTION = pa.schema([("collected", pa.bool_()), ("first_round", pa.int16())])
_POSITIVES = pa.schema([("positive", pa.bool_())])
_HALF = 16  # bits: a score is ranked by the upper half of its bits first, then by the lower


class Cut(NamedTuple):
    """Where the ranking ends: pages with a greater score stay, and those of this score up to a key.

    Attributes:
      score: the least score of a page that stays.
      key: the last of the addresses' keys that stays at this score; None: all of them.
    """

    score: float
    key: int | None


@dataclasses.dataclass(frozen=True)
class Selection:
    """A round's outcome over the whole crawl.

    Attributes:
      collected: number of pages.
      already: how many of them the round before had collected; None in the first.
      domains: all domains, most collected first.
    """

    collected: int
    already: int | None
    domains: list[Domain]


def find_cut(crawl: Crawl, round_number: int, *, min_score: float, max_share: float, max_tokens: float) -> Cut:
    """Ranks the pages by score, the key of the address deciding among equals, and finds where the top ends.

    The ranking is exact and does not stand in memory: scores are counted by the bits of their float32, whose order is
    that of the numbers. Pages of the very score at which the ranking ends cost 16 bytes each. Scores pile up at 0 and
    1; a key is a hash, where the alphabet would prefer some hosts.

    Args:
      min_score: least P(math) of a collected page.
      max_share: most of the unique pages; 1: all.
      max_tokens: most tokens, estimated from the bytes; 0: any number.
    Raises:
      InputError: no page is left.
    Source: DeepSeekMath §2.1.
    """
    cuts = [Cut(float(np.float32(min_score)), None)]
    if max_share < 1:
        cuts.append(_find_top(crawl, round_number, round(max_share * crawl.num_unique), by_bytes=False))
    if max_tokens:
        cuts.append(_find_top(crawl, round_number, max_tokens * BYTES_PER_TOKEN, by_bytes=True))
    score = max(cut.score for cut in cuts)
    cut = Cut(score, min((cut.key for cut in cuts if cut.score == score and cut.key is not None), default=None))
    best = max(float(pages["score"].max(initial=0)) for pages in _read_scores(crawl, round_number, ()))
    if best < score:
        raise InputError(
            f"config.min_score={min_score}, config.max_share={max_share}, config.max_tokens={max_tokens:g}: nothing "
            f"was collected; the best of {crawl.num_unique} pages scores {best:.3g}: in a new --workdir, lower "
            "min_score, raise max_share or max_tokens, or give config.seed_texts that are nearer to the crawl"
        )
    return cut


def select_pages(crawl: Crawl, round_number: int, cut: Cut, engine: Engine, *, math_domain_share: float) -> Selection:
    """Marks what the round collects, `selection/round-ROUND-NAME.parquet`, and counts it by domain.

    Args:
      cut: of `find_cut`.
      math_domain_share: a domain is mathematical where more of its pages were collected.
    """
    tasks = [
        crawl.task(
            name,
            selection_file(crawl, round_number, name),
            scores=scores_file(crawl, round_number, name),
            previous=selection_file(crawl, round_number - 1, name) if round_number > 1 else "",
        )
        for name in crawl.names
    ]
    engine.run_missing(f"round {round_number}: select", SelectPages, (round_number, *cut), tasks, is_light=True)
    collected = already = 0
    by_domain: dict[str, list[float]] = {}
    for task in tasks:
        counts = read_metadata(task["output"], "counts")
        collected += counts["collected"]
        already += counts["already"]
        for domain, figures in counts["domains"].items():
            by_domain[domain] = [a + b for a, b in zip(by_domain.get(domain, (0, 0, 0.0)), figures, strict=True)]
    return Selection(
        collected=collected,
        already=already if round_number > 1 else None,
        domains=find_math_domains(by_domain, min_share=math_domain_share),
    )


def mark_pages(crawl: Crawl, round_number: int, domains: list[Domain], marked: MarkedPaths, engine: Engine) -> int:
    """Adds the pages under marked paths that were not collected: `positives/round-ROUND-NAME.parquet`.

    Args:
      domains: only the mathematical ones are looked at.
      marked: what people marked.
    Returns:
      number of pages that became positives in this round.
    Source: DeepSeekMath §2.1.
    """
    tasks = [
        crawl.task(
            name,
            positives_file(crawl, round_number, name),
            selection=selection_file(crawl, round_number, name),
            previous=positives_file(crawl, round_number - 1, name) if round_number > 1 else "",
        )
        for name in crawl.names
    ]
    settings = (marked.patterns, [domain.domain for domain in domains if domain.is_math])
    engine.run_missing(f"round {round_number}: marks", MarkPages, settings, tasks, is_light=True)
    return sum(read_metadata(task["output"], "new") for task in tasks)


class SelectPages:
    """Worker: says of every unique page of a file whether the round collects it, and which round did first.

    Args:
      round_number: counts from 1.
      score, key: the cut.
    """

    def __init__(self, round_number: int, score: float, key: int | None):
        self._round, self._cut = round_number, Cut(score, key)

    def run(self, task: Mapping[str, Any]) -> None:
        """Writes `task["output"]`, with the file's counts as its metadata."""
        score_N = read_table(task["scores"], ["score"])["score"].to_numpy()
        rows = read_table(task["unique"])["row"]
        pages = read_table(task["pages"], ["domain", "url_key"]).take(rows)
        collected_N = score_N > self._cut.score
        at_cut = np.flatnonzero(score_N == np.float32(self._cut.score))
        if self._cut.key is None:
            collected_N[at_cut] = True
        else:
            collected_N[at_cut] = key_numbers(pages["url_key"])[at_cut] <= np.uint64(self._cut.key)
        first_N, already = np.zeros(len(score_N), np.int16), 0
        if task["previous"]:
            before = read_table(task["previous"])
            first_N = before["first_round"].to_numpy().copy()
            already = int((collected_N & before["collected"].to_numpy()).sum())
        first_N[collected_N & (first_N == 0)] = self._round
        counts = {
            "collected": int(collected_N.sum()),
            "already": already,
            "domains": _count_domains(pages["domain"], collected_N, score_N),
        }
        columns = [{"collected": collected_N, "first_round": first_N}]
        write_parquet(task["output"], _SELECTION, columns, lambda: {"counts": counts})


class MarkPages:
    """Worker: says of every unique page of a file whether it is a positive of the next round.

    Args:
      patterns: of marked paths.
      domains: the mathematical ones.
    """

    def __init__(self, patterns: list[str], domains: list[str]):
        self._marked, self._domains = MarkedPaths(patterns), pa.array(domains, pa.string())

    def run(self, task: Mapping[str, Any]) -> None:
        """Writes `task["output"]`."""
        rows = read_table(task["unique"])["row"]
        pages = read_table(task["pages"], ["url", "domain"]).take(rows)
        collected_N = read_table(task["selection"])["collected"].to_numpy()
        positive_N = np.zeros(len(collected_N), bool)
        if task["previous"]:
            positive_N = read_table(task["previous"])["positive"].to_numpy().copy()
        offered_N = pc.is_in(pages["domain"], value_set=self._domains).to_numpy() & ~collected_N & ~positive_N
        offered = np.flatnonzero(offered_N)
        urls = pages["url"].take(pa.array(offered)).to_pylist()
        new = offered[[self._marked.matches(url) for url in urls]] if len(offered) else offered
        positive_N[new] = True
        write_parquet(task["output"], _POSITIVES, [{"positive": positive_N}], lambda: {"new": len(new)})


def scores_file(crawl: Crawl, round_number: int, name: str) -> pathlib.Path:
    """Where the round's scores of a crawl file stand."""
    return crawl.workdir / "scores" / f"round-{round_number}-{name}.parquet"


def selection_file(crawl: Crawl, round_number: int, name: str) -> pathlib.Path:
    """Where it stands what the round collected of a crawl file."""
    return crawl.workdir / "selection" / f"round-{round_number}-{name}.parquet"


def positives_file(crawl: Crawl, round_number: int, name: str) -> pathlib.Path:
    """Where the positives of a crawl file stand that the round after this one learns from."""
    return crawl.workdir / "positives" / f"round-{round_number}-{name}.parquet"


def read_collected(crawl: Crawl, round_number: int, name: str) -> np.ndarray:
    """bool [unique pages of the file]: what the round collected."""
    return read_table(selection_file(crawl, round_number, name))["collected"].to_numpy()


def read_positives(crawl: Crawl, round_number: int, name: str) -> np.ndarray:
    """bool [unique pages of the file]: the positives that marks added up to this round, none before the first."""
    if round_number < 1:
        return np.zeros(pq.read_metadata(crawl.unique(name)).num_rows, bool)
    return read_table(positives_file(crawl, round_number, name))["positive"].to_numpy()


def _find_top(crawl: Crawl, round_number: int, budget: float, *, by_bytes: bool) -> Cut:
    """The cut under which the pages of the top weigh no more than the budget."""
    columns = ("bytes",) if by_bytes else ()

    def weights(bits_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        total = np.zeros(2**_HALF + 1)
        for pages in _read_scores(crawl, round_number, columns):
            weight_N = pages["bytes"] if by_bytes else None
            total += np.bincount(bits_of(pages["score"].view(np.uint32)), weight_N, minlength=len(total))
        return total[:-1]  # the last is for pages that do not matter

    def descend(weight_B: np.ndarray, left: float) -> tuple[int, float]:
        """The bin in which the budget ends, and what is left of it there; -1 where it does not end."""
        heavier_B = np.cumsum(weight_B[::-1])[::-1]  # of this bin and those above
        over = np.flatnonzero(heavier_B > left)
        return (int(over[-1]), left - (heavier_B[over[-1]] - weight_B[over[-1]])) if len(over) else (-1, left)

    upper, left = descend(weights(lambda bits_N: bits_N >> _HALF), budget)
    if upper < 0:
        return Cut(0.0, None)
    lower, left = descend(
        weights(lambda bits_N: np.where(bits_N >> _HALF == upper, bits_N & (2**_HALF - 1), 2**_HALF)), left
    )
    score = np.array([upper << _HALF | lower], np.uint32).view(np.float32)[0]
    keys, weights_of_ties = [], []
    for pages in _read_scores(crawl, round_number, ("url_key", *columns)):
        tied_N = pages["score"] == score
        keys.append(key_numbers(pages["url_key"])[tied_N])
        weights_of_ties.append(pages["bytes"][tied_N] if by_bytes else np.ones(len(keys[-1]), np.int32))
    key_T, weight_T = np.concatenate(keys), np.concatenate(weights_of_ties).astype(np.int64)
    order_T = np.argsort(key_T)
    count = int(np.searchsorted(np.cumsum(weight_T[order_T]), left, side="right"))  # that fit
    if not count:
        return Cut(float(np.nextafter(score, np.float32(2))), None)
    return Cut(float(score), int(key_T[order_T[count - 1]]))


def _read_scores(crawl: Crawl, round_number: int, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """A file's scores as float32 [unique pages], with columns of its pages."""
    for name in crawl.names:
        pages = crawl.index(name, columns) if columns else None
        read: dict[str, Any] = {column: pages[column] for column in columns}
        if "bytes" in read:
            read["bytes"] = read["bytes"].to_numpy()
        read["score"] = read_table(scores_file(crawl, round_number, name), ["score"])["score"].to_numpy()
        yield read


def _count_domains(
    domain_N: pa.ChunkedArray, collected_N: np.ndarray, score_N: np.ndarray
) -> dict[str, tuple[int, int, float]]:
    """Pages, collected pages and the sum of the other pages' scores, by domain."""
    encoded = domain_N.combine_chunks().dictionary_encode()
    index_N, size = encoded.indices.to_numpy(), len(encoded.dictionary)
    pages_D = np.bincount(index_N, minlength=size).tolist()
    collected_D = np.bincount(index_N[collected_N], minlength=size).tolist()
    gain_D = np.bincount(index_N[~collected_N], score_N[~collected_N], minlength=size).round(4).tolist()
    return dict(zip(encoded.dictionary.to_pylist(), zip(pages_D, collected_D, gain_D, strict=True), strict=True))
