"""Evaluation on held-out problems: benchmarks × modes, greedy accuracy, pass@k, maj@k.

    python -m experiments.evaluate --config=configs/evaluate.py:nano --workdir=runs/evaluate --config.init_from=runs/rl

On the real benchmarks: --config.benchmarks=gsm8k,math --config.folder=DIR, a folder that holds one folder a benchmark.
A base model is asked with worked examples: configs/evaluate.py:7b,base. On GSM8K's file alone:
--config.problems=DIR --config.num_problems=0 --config.max_new_tokens=320, a folder with its test.jsonl.
"""

import ml_collections

from configs.rl import rollout, tool

CHAT, BASE = ("chat", "chat_tool"), ("few_shot", "few_shot_pot", "choice")
# Tables 2 to 4, in their order; miniF2F, of Table 3, is asked by name, where config.isabelle is.
MATHEMATICS = ("gsm8k", "math", "ocw", "sat", "mmlu_stem", "mgsm_zh", "cmath", "gaokao_mathcloze", "gaokao_mathqa")
GENERAL = ("mmlu", "bbh", "humaneval", "mbpp")


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper). After a comma: base (for models that no chat was taught)."""
    size, _, kind = preset.partition(",")
    if size not in ("nano", "7b") or kind not in ("", "base"):
        raise ValueError(f"configs/evaluate.py: preset {preset!r} is none of nano, 7b, nano,base, 7b,base")
    nano, base = size == "nano", kind == "base"
    c = ml_collections.ConfigDict()
    c.init_from = "runs/rl"  # workdir of the checkpoint, or hf:DIR, a checkpoint of Hugging Face
    c.step = 0  # of the checkpoint; 0: the newest
    c.length = 0  # tokens of the model's context, longer prompts are left out; 0: as the checkpoint was trained

    # What is asked. A benchmark that has not all of the modes is asked in those that it has.
    if base:
        c.benchmarks = ("gsm8k",) if nano else MATHEMATICS + GENERAL  # by name; embedded: the problems below
    else:
        c.benchmarks = ("embedded",) if nano else ("gsm8k", "math", "mgsm_zh", "cmath")  # Table 5
    c.modes = BASE if base else CHAT[:1] if nano else CHAT  # few_shot, few_shot_pot, choice, chat, chat_tool
    c.folder = "data/benchmarks"  # holds one folder a benchmark
    c.split = "test"  # of each benchmark
    c.problems = "embedded"  # or embedded_large, or a folder with GSM8K's test.jsonl; it is the benchmark "embedded"
    c.num_problems = 500 if nano else 0  # of each benchmark, spread over its file; 0: all that real files hold
    c.published = ""  # the model in the paper's tables to stand beside ours, such as "DeepSeekMath-RL 7B"

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest

    # How it is answered, besides the greedy solution
    c.num_samples = 16 if nano else 64  # of a problem, for pass@k and maj@k; §5.2.2
    c.sampled = () if nano else ("embedded", "gsm8k", "math")  # the benchmarks that are sampled, Figure 7; (): all
    c.temperature = 0.7  # §5.2.2, Figure 7
    c.top_p = 1.0  # ours
    c.max_new_tokens = 40 if nano else 1024  # the released evaluation
    c.batch_size = 512 if nano else 1024  # samples of a file of generations
    c.rollout = rollout(size)  # how much the engine holds at once
    c.tool = tool()  # where a mode has it; programs that are solutions run under its limits too
    c.tool.max_calls = 2  # the released evaluation; the output of the last one ends a solution
    c.tool.memory_gib = 1.0  # ours
    c.tool.test_seconds = 30.0  # of a program with all its tests; ours

    c.isabelle = ""  # folder of Isabelle2022, which checks miniF2F's proofs
    # Limits of Isabelle, in seconds.
    c.proofs = ml_collections.ConfigDict(
        {
            "servers": 1,  # Isabelle's, each with some GB of memory; ours
            "tactic": 10.0,  # seconds of one tactic on the gaps of a proof; ours
            "sledgehammer": 60.0,  # seconds of it; ours
            "theory": 120.0,  # seconds of a sketch, and of a whole proof; ours
            "start": 1800.0,  # seconds of a server; the first one builds an image; ours
        }
    )

    # How it is judged
    c.protocol = "" if nano else "paper"  # the frozen protocol that this config must fit; empty: none
    c.grader = "strict"  # mathematics decides; paper: the released evaluation's conventions; both: both are told
    c.reward_model = ""  # or the workdir of one: best_of and weighted_maj of the samples by its scores
    c.aggregate = "min"  # or product, last: of the steps' scores, where it scores steps; Math-Shepherd §3.4
    c.seed = 0  # of all that is drawn at random
    return c
