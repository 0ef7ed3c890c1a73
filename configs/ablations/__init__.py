"""One file an ablation: get_config(preset) builds a sweep. Here is what they share.

A sweep's fields: `seeds`; `jobs`, stages at a time; `store`, the folder of all that is made; `common`, overrides of
every command of a stage; `parents`, made once; `runs`, made with every seed; `evaluation`; `metrics` of the table;
`figure`. A value "{NAME}" is the folder of a parent or run, and in the evaluation "{run}" is what is evaluated.
"""

import ml_collections


def sweep(preset: str) -> ml_collections.ConfigDict:
    """A sweep without runs: the chain to the SFT model, and the evaluation."""
    nano = preset == "nano"
    paper = "nano" if nano else "7b"  # the paper tells one setting of these for all sizes
    c = ml_collections.ConfigDict()
    c.seeds = (0, 1, 2)  # ours
    c.jobs = 2 if nano else 1  # stages at a time, each on its share of the cores
    c.store = ""  # folder of all that is made; sweeps that name one share their parents; empty: WORKDIR/stages
    c.problems = "embedded"  # or a folder with GSM8K's train.jsonl and test.jsonl

    # What is made once. A finished workdir can be named instead: then the stage does not run, nor do its parents.
    c.parents = ml_collections.ConfigDict(
        {
            "mine": parent("mine", "nano" if nano else "paper"),
            "tokenizer": parent("tokenizer", paper, corpus="{mine}"),
            "base": parent("pretrain", preset, tokenizer="{tokenizer}"),
            "sft": parent("sft", paper, init_from="{base}"),
        }
    )
    if nano:
        c.parents.base.overrides.corpora = {"mined": "{mine}", "workbook": "embedded"}
    else:
        c.parents.base.workdir = "runs/pretrain"  # a corpus and weeks of work: it must be there

    # Overrides of every command of a stage.
    stages = ("mine", "tokenizer", "pretrain", "sft", "rl", "evaluate")
    c.common = ml_collections.ConfigDict({stage: {} for stage in stages})
    for stage in ("tokenizer", "sft", "rl", "evaluate"):
        c.common[stage].problems = c.get_ref("problems")

    c.evaluation = ml_collections.ConfigDict(
        {
            "stage": "evaluate",
            "preset": paper,
            "overrides": {"init_from": "{run}"},
            "steps": (),  # checkpoints of a run, 0 what it starts from; none: its newest
        }
    )
    return c


def parent(stage: str, preset: str, **overrides: object) -> dict[str, object]:
    """A stage that is made once, or a finished workdir."""
    return {"stage": stage, "preset": preset, "workdir": "", "overrides": overrides}
