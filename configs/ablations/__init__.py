"""One file an ablation: get_config(preset) builds a sweep. Here is what they share.

A sweep's fields: `seeds`; `jobs`, stages at a time; `store`, the folder of all that is made; `common`, the configs of
the stages, whose changes from `defaults` hold for every command of a stage; `parents`, made once; `runs`, made with
every seed; `evaluation`; `metrics` of the table; `figure`. A parent or run has a preset, over which come the changes of
`common` and then its own overrides. A value "{NAME}" is the folder of a parent or run; in the evaluation "{run}" is
what is evaluated.
"""

import ml_collections

from configs import evaluate, mine, pretrain, reward, rl, sft, tokenizer


def sweep(preset: str) -> ml_collections.ConfigDict:
    """A sweep without runs: the chain to the SFT model and the reward models, and the evaluation."""
    nano = preset == "nano"
    paper = "nano" if nano else "7b"  # the paper tells one setting of these for all sizes
    c = ml_collections.ConfigDict()
    c.seeds = (0, 1, 2)  # ours
    c.jobs = 2 if nano else 1  # stages at a time, each on its share of the cores
    c.store = ""  # folder of all that is made; sweeps that name one share it; empty: WORKDIR/stages
    c.problems = "embedded"  # or a folder with GSM8K's train.jsonl and test.jsonl

    c.defaults = ml_collections.ConfigDict(
        {
            "mine": mine.get_config("nano" if nano else "paper"),
            "tokenizer": tokenizer.get_config(paper),
            "pretrain": pretrain.get_config(preset),
            "sft": sft.get_config(paper),
            "reward": reward.get_config(preset),
            "rl": rl.get_config(preset),
            "evaluate": evaluate.get_config(paper),
        }
    )
    c.common = c.defaults.copy_and_resolve_references()
    for stage in ("tokenizer", "sft", "reward", "rl", "evaluate"):
        c.common[stage].problems = c.get_ref("problems")
    c.common.evaluate.benchmarks = ("embedded",)  # those of config.problems
    c.common.evaluate.modes = ("chat",)
    c.common.reward.init_from = "{base}"  # §4.2
    c.common.reward.sampler = "{sft}"
    c.common.rl.init_from = "{sft}"

    # What is made once. A finished workdir can be named instead: then the stage does not run, nor do its parents.
    c.parents = ml_collections.ConfigDict(
        {
            "mine": parent("mine", "nano" if nano else "paper"),
            "tokenizer": parent("tokenizer", paper, corpus="{mine}"),
            "base": parent("pretrain", preset, tokenizer="{tokenizer}"),
            "sft": parent("sft", paper, init_from="{base}"),
            "reward_outcome": parent("reward", preset, kind="outcome"),
            "reward_process": parent("reward", preset, kind="process"),
        }
    )
    if nano:
        c.parents.base.overrides.corpora = {"mined": "{mine}", "workbook": "embedded"}
    else:
        c.parents.base.workdir = "runs/pretrain"  # a corpus and weeks of work: it must be there

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
