"""Makes checked solutions of public instruction sets.

python -m experiments.instructions --config=configs/instructions.py:nano --workdir=runs/instructions \\
    --config.inputs='sets/*.json' --config.benchmarks='benchmarks,!*train*' --config.golds=benchmarks

The workdir gets `solutions.jsonl`, which SFT reads, and `statistics.json`: how many records were kept, and why the
others were dropped. What is done with a file stays when the run is killed.
"""

import collections
import concurrent.futures
import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dsmath.data.benchmarks import catalog
from dsmath.data.instructions import duplicates, statistics
from dsmath.data.instructions.checking import Checks, check, question_key
from dsmath.data.instructions.files import find_files, read_records
from dsmath.data.instructions.formats import Rejected, read_record
from dsmath.data.solutions import SOLUTIONS, Solution, read_solutions, write_solutions
from dsmath.reward.answers import extract_answer, is_equivalent
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import read_json, write_json, write_lineage
from dsmath.sandbox import Pool
from dsmath.web import benchmark_texts
from dsmath.web.decontaminate import Decontaminator
from dsmath.web.dedup import near_duplicates

_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|(?<=[。？！])\s*")
_BATCH = 256  # records that are checked together
Counts = collections.Counter[statistics.Outcome]


def run(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Reads each file, checks its solutions, then drops what says the same.

    Source: DeepSeekMath §3 (776 K solutions, as chain of thought, programs and tool use).
    """
    check_positive(config, "workers")
    for field, least in (("near_duplicate_threshold", 0.5), ("max_overlap", 0)):
        if not least <= config[field] <= 1:
            raise InputError(f"config.{field}: {config[field]} must lie between {least} and 1")
    inputs = find_files(config.inputs)
    references = benchmark_texts.find_files(config.benchmarks) if config.benchmarks else []
    gold_files, golds = read_golds(config.golds)
    write_lineage(workdir, data=[*inputs, *references, *gold_files])

    # Files, each on its own
    stems = [workdir / "files" / f"{number:05d}-{path.name.split('.')[0]}" for number, path in enumerate(inputs)]
    done = [stem.with_suffix(".json").exists() for stem in stems]
    if not all(done):
        decontaminator = make_decontaminator(config.benchmarks, config.max_overlap)
        pool = Pool(config.workers, config.isolation)
        checks = Checks(
            extract=extract_answer,
            equals=is_equivalent,
            run=functools.partial(run_blocks, pool, config.seconds, int(config.memory_gib * 2**30)),
            is_benchmark=functools.partial(is_benchmark, decontaminator),
            golds=golds,
        )
        try:
            for number, (path, stem) in enumerate(zip(inputs, stems, strict=True), start=1):
                if not done[number - 1]:
                    convert(path, stem, checks, config.workers, f"file {number} of {len(inputs)}: {path.name}")
        finally:
            pool.close()

    # All together
    records = [record for stem in stems for record in read_solutions(stem.with_suffix(".jsonl"))]
    told = [read_json(stem.with_suffix(".json")) for stem in stems]
    outcomes: Counts = collections.Counter()
    for part in told:
        outcomes.update({tuple(outcome): count for *outcome, count in part["outcomes"]})
    cluster = functools.partial(near_duplicates, threshold=config.near_duplicate_threshold)
    gone = duplicates.find_duplicates(records, cluster)
    for place, reason in gone.items():
        group = (records[place].source, records[place].kind, records[place].language)
        outcomes[*group, statistics.KEPT] -= 1
        outcomes[*group, reason] += 1
    kept = [record for place, record in enumerate(records) if place not in gone]
    if not kept:
        raise InputError(
            f"config.inputs={config.inputs!r}: no record is left; see {stems[0].parent}/*.json for the reasons"
        )
    write_solutions(workdir / SOLUTIONS, kept)
    counts = statistics.count_outcomes(outcomes)
    golds_told = sum((collections.Counter(part["golds"]) for part in told), collections.Counter())
    write_json(
        workdir / "statistics.json",
        counts | {"golds": golds_told, "characters": statistics.describe_lengths(kept)},
    )
    print(statistics.write_table(counts))
    return {name: counts[name] for name in ("records", "kept", "dropped")} | {"golds": dict(golds_told)}


def read_golds(folder: str) -> tuple[list[pathlib.Path], dict[str, str]]:
    """The files that tell the answers of training questions, and these answers by question."""
    if not folder:
        return [], {}
    names = [name for name in ("gsm8k", "math") if (pathlib.Path(folder) / name).is_dir()]
    if not names:
        raise InputError(f"config.golds={folder!r}: holds neither gsm8k nor math; give a folder of benchmarks")
    files = [file for name in names for file in catalog.find_files(name, folder, "train")]
    items = [item for name in names for item in catalog.read(name, folder, "train")]
    return files, {question_key(item.question): item.answer for item in items}


def make_decontaminator(pattern: str, max_overlap: float) -> Decontaminator:
    """Knows the questions of benchmarks; not their solutions, whose phrases and drawings are everybody's."""
    found = benchmark_texts.read_benchmarks(pattern)
    questions = {name: [text for text in texts if text.is_question] for name, texts in found.items()}
    return Decontaminator(questions, max_removed=max_overlap)


def is_benchmark(decontaminator: Decontaminator, question: str) -> bool:
    """Whether too much of a question stands in a benchmark, by sentences: many end with "Express your answer as …"."""
    return not decontaminator.clean(_SENTENCE_END.sub("\n", question)).text


def run_blocks(pool: Pool, seconds: float, memory: int, blocks: Sequence[str]) -> list[tuple[str, bool]]:
    """What each block of a solution printed, or its error; and whether it failed. After a time-out all others fail."""
    found = []
    with pool.open(memory) as session:
        for block in blocks:
            if not session.alive:
                found.append(("died", True))
                continue
            result = session.run(block, seconds)
            is_over = result.error is None or result.kind == "exited"
            found.append((result.stdout if is_over else result.error, not is_over))
    return found


def convert(path: pathlib.Path, stem: pathlib.Path, checks: Checks, workers: int, label: str) -> None:
    """Writes the solutions of a file, then their counts, which say that the file is done."""
    outcomes: Counts = collections.Counter()
    golds: collections.Counter[str] = collections.Counter()
    kept: list[Solution] = []
    drafts = []
    for record in read_records(path):
        try:
            if record is None:
                raise Rejected("damaged")
            drafts += read_record(record, path.stem)
        except Rejected as reason:
            outcomes[path.stem, "", "", str(reason)] += 1

    def look(draft):
        try:
            return check(draft, checks)
        except Rejected as reason:
            return str(reason)

    with (
        concurrent.futures.ThreadPoolExecutor(workers) as threads,
        Progress(len(drafts), label, "solution") as progress,
    ):
        for start in range(0, len(drafts), _BATCH):
            batch = drafts[start : start + _BATCH]
            for draft, found in zip(batch, threads.map(look, batch), strict=True):
                outcome = found if isinstance(found, str) else statistics.KEPT
                outcomes[draft.source, draft.kind, draft.language, outcome] += 1
                if not isinstance(found, str):
                    kept.append(found[0])
                    golds[found[1]] += 1
            progress.advance(len(batch))
    write_solutions(stem.with_suffix(".jsonl"), kept)
    told: Mapping[str, Any] = {"outcomes": [[*outcome, count] for outcome, count in outcomes.items()], "golds": golds}
    write_json(stem.with_suffix(".json"), told)


if __name__ == "__main__":
    driver.main("instructions", run)
