"""Writes a mined corpus as tokens for training, the best pages first, with a data card.

python -m experiments.export --config=configs/export.py:nano --workdir=runs/export --config.corpus=runs/mine \\
    --config.tokenizer=runs/tokenizer [--config.max_tokens=40e9,80e9] [--config.languages=en,zh]
"""

import pathlib
from typing import Any

from absl import logging

from dsmath.data import card, export
from dsmath.data.documents import find_corpus
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs import driver
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json, require_finished, write_lineage


def run(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Tokenizes the pages once, ranks them, writes them and describes them.

    Source: DeepSeekMath §2.1.
    """
    cuts = export.parse_cuts(config.max_tokens)
    languages = [name for name in (part.strip() for part in config.languages.split(",")) if name]
    if not 0 <= config.min_score <= 1:
        raise InputError(f"config.min_score={config.min_score} must lie between 0 and 1")
    for field in ("corpus", "tokenizer"):
        require_finished(config[field], f"config.{field}")
    files = find_corpus(config.corpus, "config.corpus")
    export.check_columns(files)
    tokenizer = Tokenizer.load(config.tokenizer)
    parents = {"corpus": config.corpus, "tokenizer": config.tokenizer}
    write_lineage(workdir, parents=parents, data=[pathlib.Path(config.tokenizer) / tokenizer.file, *files])
    tokenizer.save(workdir)  # says whose ids these are

    if not (workdir / card.JSON).exists():
        export.tokenize(files, workdir, tokenizer, min_score=config.min_score, languages=languages)
        ranking = export.rank(workdir, cuts)
        for name, (_, tokens) in ranking.cuts.items():
            if tokens < cuts[name]:
                logging.warning("%s: the corpus has %d tokens only; the cut holds them all", name, tokens)
        export.write_pages(workdir, ranking)
        export.write_dataset(workdir, ranking)
        export.write_cuts(workdir, ranking)
        settings = {name: config[name] for name in ("max_tokens", "min_score", "languages")}
        card.write_cards(workdir, ranking, card.collect_facts(config.corpus, config.tokenizer, settings))
    export.remove_parts(workdir)
    written = read_json(workdir / card.JSON)
    return {name: written[name] for name in ("pages", "tokens", "lowest_score")}


if __name__ == "__main__":
    driver.main("export", run)
