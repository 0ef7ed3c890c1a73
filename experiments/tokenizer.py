"""Trains the tokenizer on a mined corpus and the training problems.

python -m experiments.tokenizer --config=configs/tokenizer.py:nano --workdir=runs/tokenizer --config.corpus=runs/mine
"""

from typing import Any

from dsmath.data import problems
from dsmath.data.documents import find_corpus, read_texts
from dsmath.data.solutions import chat_prompt
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import require_finished, write_lineage


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """Trains it, saves it, and measures it on the same texts."""
    check_positive(config, "vocab_size", "characters_per_document")
    require_finished(config.corpus, "config.corpus")
    files = find_corpus(config.corpus, "config.corpus")
    records = problems.load(
        config.problems,
        "train",
        count=config.num_problems,
        seed=config.seed,
        kinds=problems.kinds_of(config.problems),
    )
    write_lineage(workdir, parents={"corpus": config.corpus}, data=files)

    documents = [text[: config.characters_per_document] for text in read_texts(files)]
    chats = [f"{chat_prompt(record.question, record.language, record.kind)} {record.solution}" for record in records]
    with Progress(1, "tokenizer", "training") as progress:
        tokenizer = Tokenizer.train([*documents, *chats], vocab_size=config.vocab_size)
        progress.advance()
    tokenizer.save(workdir)

    def characters_per_token(texts: list[str]) -> float:
        return sum(map(len, texts)) / max(1, sum(map(len, tokenizer.encode_all(texts))))

    return {
        "vocab_size": tokenizer.vocab_size,
        "characters_per_token": characters_per_token(documents),
        "characters_per_token_problems": characters_per_token(chats),
    }


if __name__ == "__main__":
    driver.main("tokenizer", run)
