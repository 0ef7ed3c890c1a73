"""One file an ablation: get_config(preset) builds a sweep. Here is what they share.

A sweep's fields: `seeds`; `jobs`, stages at a time; `store`, the folder of all that is made; `common`, the configs of
the stages, whose changes from `defaults` hold for every command of a stage; `parents`, made once; `runs`, made with
every seed; `evaluation`; `metrics` of the table; `figure`. A parent or run has a preset, over which come the changes of
`common` and then its own overrides. A value "{NAME}" is the folder of a parent or run; in the evaluation "{run}" is
what is evaluated.
"""

import ml_collections

from configs import corpus, evaluate, export, mine, pretrain, reward, rl, sft, tokenizer


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
            "steps": (),  # checkpoints of a run by their updates, 0 what it starts from; none: its newest
        }
    )
    return c


def parent(stage: str, preset: str, **overrides: object) -> dict[str, object]:
    """A stage that is made once, or a finished workdir."""
    return {
        "stage": stage,
        "preset": preset,
        "workdir": "",  # of a finished one; "": it is made here
        "overrides": overrides,
    }


def base_sweep(preset: str) -> ml_collections.ConfigDict:
    """A sweep of base models: each run pretrains one.

    The paper asks them with worked examples (§2.2.2). These do not fit into nano's context of 128 tokens, so a nano
    model is judged after SFT: see `base_runs`. Nano's corpora are what every laptop has: the mined pages, those of the
    crawl that mining rejected as general text, Python's own library as code, and the embedded workbook.
    """
    nano = preset == "nano"
    c = sweep(preset)
    evaluation = "nano" if nano else "7b,base"
    c.seeds = (0, 1, 2) if nano else (0,)  # the paper's runs have one
    c.defaults.corpus = corpus.get_config()
    c.defaults.export = export.get_config("nano" if nano else "paper")
    c.defaults.evaluate = evaluate.get_config(evaluation)
    for stage in ("corpus", "export", "evaluate"):
        c.common[stage] = c.defaults[stage].copy_and_resolve_references()
    c.evaluation.preset = evaluation
    c.common.evaluate.num_samples = 4 if nano else 1  # the tables are of greedy solutions
    if nano:
        c.common.evaluate.problems = c.get_ref("problems")
        c.common.pretrain.num_steps = 600  # half of the demo's; ours
        c.common.pretrain.tokenizer = "{tokenizer}"
        c.common.corpus.mine = "{mine}"
        c.common.export.update(corpus="{mine}", tokenizer="{tokenizer}")
        c.parents.general = parent("corpus", "nano", source="rejected")
        c.parents.code = parent("corpus", "nano", source="code")
        c.metrics = ("accuracy", "pass_at.4", "by_language.en.accuracy", "by_language.zh.accuracy")
    else:
        # The model that all start from, as experiments.convert makes it, with the tokenizer beside it.
        c.parents.start = parent("pretrain", preset)
        c.parents.start.workdir = "runs/start"
        c.common.pretrain.update(tokenizer="{start}", init_from="{start}")
        c.metrics = tuple(f"{task}.accuracy" for task in TABLE_1)
    c.figure = ml_collections.ConfigDict({"kind": "by_run", "metrics": c.metrics[:2], "title": "", "marks": ()})
    return c


# Tables 1 and 8: benchmarks with their modes (§2.2.2).
TABLE_1 = (
    "gsm8k-few_shot", "math-few_shot", "ocw-few_shot", "sat-few_shot", "mmlu_stem-choice",
    "cmath-few_shot", "gaokao_mathcloze-few_shot", "gaokao_mathqa-few_shot",
)  # fmt: skip


def ask(c: ml_collections.ConfigDict, tasks: tuple[str, ...]) -> None:
    """Has the evaluation ask these tasks, such as "gsm8k-few_shot", and the table tell them."""
    benchmarks, modes = zip(*(task.split("-") for task in tasks), strict=True)
    c.common.evaluate.benchmarks = tuple(dict.fromkeys(benchmarks))
    c.common.evaluate.modes = tuple(dict.fromkeys(modes))
    c.metrics = tuple(f"{task}.accuracy" for task in tasks)


def base_runs(label: str, preset: str, **overrides: object) -> tuple[dict[str, object], ...]:
    """The runs that make and judge one base model: its pretraining, and at nano the SFT after it.

    Args:
      label: of the table's line.
      preset: of the sweep.
      overrides: of pretraining.
    """
    base = {"label": label, "stage": "pretrain", "preset": preset, "overrides": overrides}
    return tuned(label, base) if preset == "nano" else (base,)


def tuned(label: str, base: dict[str, object]) -> tuple[dict[str, object], ...]:
    """A base model that is judged after SFT."""
    name = f"{label}, base"
    return base | {"label": name, "judged": False}, tune(label, f"{{{name}}}")


def tune(label: str, base: str) -> dict[str, object]:
    """SFT from a base model, to judge it."""
    return {"label": label, "stage": "sft", "preset": "nano", "overrides": {"init_from": base}}


def as_it_is(label: str, model: str) -> dict[str, object]:
    """A line of the table for a model that no run of the sweep trains."""
    return {"label": label, "stage": "", "preset": "", "overrides": {"init_from": model}}
