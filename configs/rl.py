"""Reinforcement learning and its kin: a source of outputs, a reward, a gradient coefficient (§5.2.1).

    python -m experiments.rl --config=configs/rl.py:nano --workdir=runs/rl --config.init_from=runs/sft

Expect at nano, on 2 cores: 238 s; greedy accuracy 74 to 89 % on held-out problems over five runs.

A method by its name, after the preset: sft, rft, online_rft, dpo, ppo, grpo_os, grpo_ps, grpo_iterative. An ablation is
an override, such as --config.beta=0. Methods with a learned reward need one from experiments.reward:
    --config=configs/rl.py:nano,grpo_ps --config.reward_model=runs/reward

On real files: --config.problems=DIR --config.num_problems=0, a folder with GSM8K's train.jsonl and test.jsonl; and room
for their solutions: --config.decoding.max_new_tokens=320. 1b3 and 7b ask all problems of such a folder: name one.
"""

import ml_collections

# The paper's methods, Table 10: source, reward, coefficient.
METHODS = {
    "sft": ("sft_data", "none", "sft"),  # §A.1.1
    "rft": ("sft_model", "rule", "rft"),  # §A.1.2
    "online_rft": ("policy", "rule", "rft"),  # §A.1.3
    "dpo": ("sft_model", "rule", "dpo"),  # §A.1.4
    "ppo": ("policy", "outcome_model", "ppo"),  # §A.1.5
    "grpo_os": ("policy", "outcome_model", "grpo"),  # §4.1.2, §A.1.6
    "grpo_ps": ("policy", "process_model", "grpo"),  # §4.1.3
    "grpo_iterative": ("policy", "outcome_model", "grpo"),  # §4.1.4
}


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (Figure 5), 7b (the paper); with a method: "7b,grpo_ps", else grpo_os.

    After a comma: sft, rft, online_rft, dpo, ppo, grpo_os, grpo_ps, grpo_iterative.
    """
    size, _, method = preset.partition(",")
    if size not in ("nano", "1b3", "7b"):
        raise ValueError(f"configs/rl.py: preset {size!r} is none of nano, 1b3, 7b")
    if method and method not in METHODS:
        raise ValueError(f"configs/rl.py: method {method!r} is none of {', '.join(METHODS)}")
    nano = size == "nano"
    c = ml_collections.ConfigDict()
    c.init_from = "runs/sft"  # workdir of the parent; it is the reference too
    c.lora_rank = 0  # 0: all parameters learn; else adapters of this rank beside frozen ones, for little memory
    c.problems = "embedded"  # or embedded_large, or a folder with GSM8K's train.jsonl and test.jsonl
    c.num_problems = 12000 if nano else 0  # 0: all that a folder holds; §4.2: about 144 K questions

    # The method: source of the outputs, reward, gradient coefficient.
    c.source, c.reward, c.coefficient = METHODS[method or "grpo_os"]
    c.distinct = (
        method == "rft"
    )  # of right samples of the same reasoning one is learned from; ours, after Yuan et al. 2023
    if nano and not method:
        c.reward = "rule"  # ours: the laptop's chain trains no reward model
    c.reward_model = ""  # workdir of experiments.reward: of outcome_model, process_model, mixed
    c.reward_weights = ml_collections.ConfigDict({"rule": 1.0, "model": 1.0})  # of mixed; ours
    c.iterations = 2 if method == "grpo_iterative" else 1  # Figure 6: two; the reference is reset at each one's start
    # How the reward model goes on between two iterations.
    c.replay = ml_collections.ConfigDict(
        {
            "share": 0.1,  # of the batch that is older samples, §4.1.4
            "num_steps": 20 if nano else 200,  # ours
            "num_groups": 32 if nano else 16,  # questions of a batch; ours
            "learning_rate": 3e-4 if nano else 2e-5,  # §4.2
        }
    )

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    if nano:  # so small a model is whole on each device
        c.mesh.update({"data": -1, "fsdp": 1})
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest

    # Exploration
    c.num_groups = 32 if nano else 16  # questions of a step; ours: §4.2 gives the batch of 1,024 outputs
    c.group_size = 16 if nano else 64  # §4.2
    if method == "sft":
        c.num_groups, c.group_size = c.num_groups * c.group_size, 1  # a question has one solution
    # Groups whose rewards are equal, which teach nothing: "keep"; "skip", unless all are such; or "resample", ask other
    # questions instead (DAPO, arXiv 2503.14476).
    c.zero_variance = "keep"
    c.max_resamples = 4  # rounds of "resample" beyond the first; ours
    c.lag = 0  # 1: the next rollout runs beside the update, with the policy before it
    # How tokens are drawn.
    c.decoding = ml_collections.ConfigDict(
        {
            "temperature": 1.0,  # ours
            "top_p": 1.0,  # ours
            "max_new_tokens": 40 if nano else 1024,  # §4.2
        }
    )
    c.rollout = rollout(size)  # how much the engine holds at once
    c.tool = tool()  # Python that a sample may call
    c.tool.enabled = False  # True: prompts ask for programs, and the samples' blocks of Python are run

    # GRPO and PPO
    c.updates_per_rollout = 1  # mu, §4.2; with 1 the ratio is 1 and nothing is clipped
    c.clip_eps = 0.2  # ours: the paper is silent
    c.beta = 0.04  # §4.2; of DPO see below
    c.kl = "k3"  # eq. 4; or k1, k2 (GRPO)
    # What others do otherwise; each is off.
    c.clip_eps_high = 0.0  # upper bound of the clip where it differs, 0.28 in DAPO; 0: clip_eps
    c.scale_advantages = "group"  # by its deviation; or "batch" (arXiv 2508.08221), "none" (Dr. GRPO, arXiv 2503.20783)
    c.aggregation = "output"  # eq. 3; or "token" (DAPO), "constant" (Dr. GRPO)
    c.unbiased_kl = False  # True: the KL term is weighed by the ratio (DeepSeek-V3.2, arXiv 2512.02556)
    c.ratio_bound = 0.0  # where the unclipped ratio is cut (INTELLECT-2, arXiv 2505.07291); 0: nowhere
    c.sequence_ratio = False  # True: one ratio an output (GSPO, arXiv 2507.18071)
    c.mask_truncated = False  # True: outputs cut at max_new_tokens teach nothing (DAPO)
    c.entropy_bonus = 0.0  # weight of the entropy (Mnih et al. 2016)
    c.max_correction = 0.0  # bound of the weight that undoes the rollout's gap, 2 is usual (Yao et al. 2025); 0: none

    # PPO alone.
    c.ppo = ml_collections.ConfigDict(
        {
            "discount": 1.0,  # ours
            "decay": 0.95,  # lambda; ours
            "value_clip": 0.2,  # ours
            "whiten": True,  # advantages to mean 0 and deviation 1 over the batch; ours
            "critic_learning_rate": 1e-3 if nano else 1e-5,  # ours
            # Workdir of the critic's start, a checkpoint or a reward model; "": init_from. The head starts at zero but
            # for a reward model of loss "pairwise": one of loss "sigmoid" gives logits, and returns are none. Ours.
            "critic_from": "",
        }
    )
    # DPO alone.
    c.dpo = ml_collections.ConfigDict(
        {
            "beta": 0.1,  # ours: the paper is silent
            "length_averaged": True,  # eq. 12; False: the standard form
            "pairs": 1,  # of a question, best with worst; ours
        }
    )

    # Most tokens of packed outputs and prompts in work on a device; 0: all. Ours: one group of the paper at a time.
    c.microbatch_tokens = 0 if nano else 64 * 1024 + 2048
    c.logits_chunk = 128 if nano else 64  # tokens of a row whose logits stand in memory at a time; ours
    c.num_steps = 50 if nano else 500  # of all iterations; ours
    c.save_every = 10 if nano else 50  # steps between two checkpoints
    c.keep_last = 2  # newest regular checkpoints that stay; ours
    # Besides: so many of the highest reward; of the lowest loss where the source is sft_data or sft_model, for their
    # rewards say nothing of the policy. Ours.
    c.keep_best = 0
    c.samples_every = 5  # steps between those whose samples are kept in samples/ and shown in samples.html; 0: none
    c.keep_samples = 20  # newest of them that stay
    c.seed = 0  # of all that is drawn at random

    # AdamW and its schedule.
    c.optimizer = ml_collections.ConfigDict(
        {
            "schedule": "constant",  # ours
            "peak_learning_rate": 3e-4 if nano else 1e-6,  # §4.2
            "warmup_steps": 3 if nano else 0,  # ours
            "b1": 0.9,  # §2.2.1
            "b2": 0.95,  # §2.2.1
            "moments": "float32",  # or bfloat16, factored: less memory; ours
            "weight_decay": 0.0,  # ours
            "clip_norm": 1.0,  # ours
        }
    )

    # Shares beyond which a warning tells; all ours.
    c.warnings = ml_collections.ConfigDict({"truncated": 0.5, "zero_variance_groups": 0.75, "rollout_gap": 0.05})

    # Bad steps: "stop" or "skip" (the update).
    c.guards = ml_collections.ConfigDict(
        {
            "on_nonfinite": "stop" if nano else "skip",  # a loss or gradient that is not finite; ours
            # A loss or gradient norm far above the last. Ours: groups without signal have both at zero, and after
            # them the first one with signal would be a spike.
            "on_spike": "none",
            "spike_sigmas": 6.0,  # so many standard deviations, as OLMo 2 (arXiv 2501.00656)
            "spike_window": 128,  # of so many good steps, as OLMo 2
            "max_skips": 10,  # in a row; then the run stops; ours
            "hang_seconds": 600.0 if nano else 3600.0,  # then hang-PROCESS.txt tells; ours
        }
    )
    c.profile = ml_collections.ConfigDict({"first_step": 0, "num_steps": 3})  # 0: none, but kill -USR1 makes one
    return c


def rollout(preset: str) -> ml_collections.ConfigDict:
    """How much the rollout engine holds at once; all ours. None but cache_dtype changes what is sampled."""
    nano = preset == "nano"
    return ml_collections.ConfigDict(
        {
            "slots": 128 if nano else 1024,  # samples decoded at once
            "memory_gib": 1.0 if nano else 24.0,  # of a device, for keys, values and logits; it lowers the slots
            "cache_dtype": "float32" if nano else "bfloat16",  # or int8
            "block_steps": 8 if nano else 32,  # decode steps between two looks of the host
            "prefill_tokens": 1024 if nano else 16384,  # of the prompts that are run together
        }
    )


def tool() -> ml_collections.ConfigDict:
    """Python as a tool of the samples."""
    return ml_collections.ConfigDict(
        {
            "workers": 2,  # blocks that run at once; ours
            "isolation": "bubblewrap",  # or none, where the code is trusted
            "seconds": 10.0,  # of a block; the released evaluation
            "memory_gib": 0.5,  # of a sample, beyond Python, NumPy and SymPy; ours
            "ends": 50,  # characters of a long output's beginning and end that are shown; the released evaluation
            "max_calls": 2,  # blocks of a sample; ours
            "max_output_tokens": 128,  # of a block's output; ours
        }
    )
