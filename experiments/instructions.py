"""Makes checked solutions of public instruction sets.

python -m experiments.instructions --config=configs/instructions.py:nano --workdir=runs/instructions \\
    --config.inputs='data/sets/*.json' --config.benchmarks='data/benchmarks,!*train*' --config.golds=data/benchmarks

The workdir gets `solutions.jsonl`, which SFT reads, and `statistics.json`: how many records were kept, and why the
others were dropped. What is done with a file stays when the run is killed.
"""

import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from dsmath.data.benchmarks import catalog
from dsmath.data.instructions import conversion, statistics
from dsmath.data.instructions.checking import Checks, question_key
from dsmath.data.instructions.files import find_files
from dsmath.data.solutions import SOLUTIONS, write_solutions
from dsmath.reward.answers import extract_answer, is_equivalent
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_json, write_lineage
from dsmath.sandbox import Pool
from dsmath.web import benchmark_texts
from dsmath.web.decontaminate import Decontaminator
from dsmath.web.dedup import near_duplicates

_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|(?<=[。？！])\s*")


def run(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Reads each file, checks its solutions, then drops what says the same.

    Source: DeepSeekMath §3 (776 K solutions, as chain of thought, programs and tool use).
    """
    check_positive(config, "workers")
    for field, least in (("near_duplicate_threshold", 0.5), ("max_overlap", 0)):
        if not least <= config[field] <= 1:
            raise InputError(f"config.{field}: {config[field]} must lie between {least} and 1")
    inputs = find_files(config.inputs)
    references = benchmark_texts.find_files(config.benchmarks)
    gold_files, golds = read_golds(config.golds)
    write_lineage(workdir, data=[*inputs, *references, *gold_files])

    # Files, each on its own
    stems = [workdir / "files" / f"{number:05d}-{path.name.split('.')[0]}" for number, path in enumerate(inputs)]
    if not all(map(conversion.is_converted, stems)):
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
                if not conversion.is_converted(stem):
                    label = f"file {number} of {len(inputs)}: {path.name}"
                    conversion.convert(path, stem, checks, config.workers, label)
        finally:
            pool.close()

    # All together
    cluster = functools.partial(near_duplicates, threshold=config.near_duplicate_threshold)
    kept, told = conversion.combine(stems, cluster)
    print(statistics.write_table(told))
    if not kept:
        raise InputError(f"config.inputs={config.inputs!r}: no record is left, for the reasons above")
    write_solutions(workdir / SOLUTIONS, kept)
    write_json(workdir / "statistics.json", told)
    return {name: told[name] for name in ("records", "kept", "dropped", "golds")}


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


if __name__ == "__main__":
    driver.main("instructions", run)
