"""Named budgets: each file is a whole chain, from a crawl to a report card. LOG.md tells what was tried."""

import ml_collections

from configs import evaluate, mine, pretrain, rl, sft, tokenizer

STAGES = ("mine", "tokenizer", "pretrain", "sft", "rl", "evaluate")


def chain(presets: dict[str, str]) -> ml_collections.ConfigDict:
    """A chain of stages, each with a preset of its own."""
    c = ml_collections.ConfigDict()
    c.seed = 0  # of every stage
    c.input = "embedded"  # the crawl: the documentation on this disk, or WARC files by a glob
    c.problems = "embedded"  # or a folder with GSM8K's train.jsonl and test.jsonl
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest
    # How pretraining, SFT and RL are started where one process is not enough: flags of experiments.launch, such as
    # "--target=slurm --target.nodes=8". Empty: here, as one process.
    c.launch = ""
    c.presets = ml_collections.ConfigDict(presets)  # of the stages' configs; set by the chain's own preset

    c.mine = mine.get_config(presets["mine"])
    c.tokenizer = tokenizer.get_config(presets["tokenizer"])
    c.pretrain = pretrain.get_config(presets["pretrain"])
    c.sft = sft.get_config(presets["sft"])
    c.rl = rl.get_config(presets["rl"])
    c.evaluate = evaluate.get_config(presets["evaluate"])

    # One value for all stages; a change of the field above changes them.
    c.mine.input = c.get_ref("input")
    for stage in (c.mine, c.tokenizer, c.pretrain, c.sft, c.rl, c.evaluate):
        stage.seed = c.get_ref("seed")
    for stage in (c.tokenizer, c.sft, c.rl, c.evaluate):
        stage.problems = c.get_ref("problems")
    for stage in (c.pretrain, c.sft, c.rl, c.evaluate):
        stage.num_cpu_devices = c.get_ref("num_cpu_devices")
    return c


def shorten(c: ml_collections.ConfigDict) -> None:
    """Leaves each stage of a chain two steps, to see on the machine that it goes before the budget is spent."""
    for stage in (c.pretrain, c.sft, c.rl):
        stage.num_steps = 2
        stage.optimizer.warmup_steps = min(stage.optimizer.warmup_steps, 1)
    c.pretrain.num_embedded = 200
    c.evaluate.num_problems = 16
    c.evaluate.num_samples = 2
