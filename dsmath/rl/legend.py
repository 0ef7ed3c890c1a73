"""What the figures of a reinforcement-learning run mean, which values to expect, and warnings where they go wrong."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from absl import logging

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_atomically

FILE = "metrics.md"
WARN_EVERY = 50  # steps between two warnings of a kind


class Entry(NamedTuple):
    """A figure's meaning, and what to expect of it."""

    meaning: str
    expect: str


# A name that ends with "/" stands for all that begin with it.
LEGEND = {
    "reward": Entry("mean reward of the step's samples", "rises; one step is noise of a few per cent"),
    "reward/": Entry("mean of one part of the reward, before the parts are mixed", "rises with the reward"),
    "reward_std": Entry(
        "standard deviation of the rewards within a group, mean over groups",
        "above 0: it is what a group teaches by; it falls as questions become easy or stay out of reach",
    ),
    "accuracy": Entry(
        "share of the samples whose final answer is right",
        "rises with the reward; a reward that rises alone is being gamed",
    ),
    "solved": Entry(
        "share of the questions that at least one sample of the group solves",
        "above accuracy; it hardly rises: RL makes right answers likelier rather than new ones possible (§5.2.2)",
    ),
    "zero_variance_groups": Entry(
        "share of the groups whose rewards are all equal: their advantages are 0 and they teach nothing",
        "low at first, higher as questions become easy; above a half most of the rollout is wasted",
    ),
    "nonfinite_rewards": Entry("share of the groups that are left out because a reward is no number", "0"),
    "rounds": Entry("how often questions were drawn for the step", "1, but for config.zero_variance=resample"),
    "kept": Entry(
        "SFT, RFT: share of the samples that are learned from: right, of distinct reasoning",
        "below accuracy; it falls as the samples become alike",
    ),
    "pairs": Entry(
        "DPO: pairs of the step", "at most config.dpo.pairs a question; a question with equal rewards has none"
    ),
    "empty": Entry("share of the samples that hold nothing but their end", "0"),
    "truncated": Entry(
        "share of the samples that reach max_new_tokens without an end",
        "near 0; these are graded without their answer, and so teach to be short",
    ),
    "length": Entry(
        "mean tokens of a sample, a tool's output included", "settles; a steady rise up to the limit is a warning"
    ),
    "length_max": Entry("tokens of the longest sample", "below max_new_tokens"),
    "gradient_coefficient": Entry(
        "mean absolute gradient coefficient of an output's tokens (eq. 5), mean over outputs; its spread is in "
        "histograms.jsonl. A token's own weight in the objective times its output's length",
        "SFT 1; RFT and online RFT the share of kept samples; GRPO and PPO near the mean size of the advantages, times "
        "lengths where config.aggregation is token; DPO at most its beta, times lengths if not length-averaged",
    ),
    "loss": Entry(
        "the objective's value, with its sign turned",
        "for GRPO and PPO no measure of progress: near 0 at the first update after a rollout by construction",
    ),
    "kl": Entry(
        "divergence of the policy from the reference by the configured estimator, nats a token; with config.beta=0 "
        "there is no reference, and no such figure",
        "0 at the first step, then a slow rise; k3 is never negative. A jump means that the policy has run away",
    ),
    "entropy": Entry(
        "mean entropy of the policy's next-token distributions, nats a token",
        "falls slowly; near 0 all samples of a group are the same and nothing more is learned",
    ),
    "clip_fraction": Entry(
        "share of the tokens whose ratio is clipped",
        "0 by construction at mu = 1 (one update a rollout, on policy); a few per cent at later updates",
    ),
    "rollout_gap": Entry(
        "mean absolute difference of the tokens' log-probabilities between the sampler and the training pass",
        "below 0.001 in float32; more in bfloat16 or with an int8 cache, where it biases the gradient",
    ),
    "off_policy_depth": Entry(
        "updates that the policy is ahead of the one that sampled, when the step begins",
        "0; with config.lag=1 it is mu (config.updates_per_rollout), but for the first step",
    ),
    "pair_accuracy": Entry(
        "DPO: share of the pairs whose better output has gained more on the reference than the worse one",
        "0 at the first step, where nothing has gained; then rises above 0.5",
    ),
    "margin": Entry("DPO: beta times that gain, better minus worse", "0 at the first step, then rises"),
    "value_loss": Entry("PPO: half the squared error of the critic", "falls; it follows the rewards' scale"),
    "value_clip_fraction": Entry("PPO: share of the values that moved further than the clip", "a few per cent"),
    "value": Entry("PPO: mean value of the critic", "follows the reward, less the KL's part"),
    "value_grad_norm": Entry("PPO: norm of the critic's gradient before it is clipped", "steady"),
    "explained_variance": Entry(
        "PPO: share of the returns' variance that the critic explains",
        "from 0 towards 1; below 0 the critic is worse than a constant",
    ),
    "learning_rate": Entry("of the update", "as the schedule says"),
    "grad_norm": Entry("norm of the gradient before it is clipped", "steady; 0 where every group has equal rewards"),
    "param_norm": Entry("norm of the parameters that learn", "hardly changes"),
    "update_norm": Entry("norm of the update", "in step with the learning rate"),
    "update_ratio": Entry("norm of the update over that of the parameters", "far below 0.01"),
    "skipped": Entry("updates that the guards have skipped so far", "0"),
    "reward_model/": Entry("of the reward model's last update where it went on learning", "loss falls, accuracy rises"),
    "reward_model_seconds": Entry("of labelling and training the reward model between iterations", "once an iteration"),
    "tokens_per_second": Entry("sampled tokens over the seconds of the whole step", "steady; falls as samples grow"),
    "seconds": Entry("of the whole step", "the first includes compilation"),
    "rollout_seconds": Entry("of sampling", "the largest part; falls as samples become shorter"),
    "reward_seconds": Entry("of grading, by rule or by a reward model", "small by rule"),
    "reference_seconds": Entry(
        "of the log-probabilities of the reference and of the old policy, where these are used",
        "about a third of update_seconds for each; near 0 without both",
    ),
    "update_seconds": Entry("of all updates of the step", "steady"),
}

_REMEDIES = {
    "truncated": "raise config.decoding.max_new_tokens, or train a parent whose samples end",
    "zero_variance_groups": "take harder or easier questions, a larger config.group_size, or a finer reward",
    "rollout_gap": "give config.rollout.cache_dtype more bits, and the model's dtype too",
}


def find_entry(name: str) -> Entry | None:
    """The entry of a metric: its own, or that of its family."""
    return LEGEND.get(name) or LEGEND.get(f"{name.split('/')[0]}/" if "/" in name else "")


def unknown(metrics: Iterable[str]) -> set[str]:
    """The metrics without an entry, but for the step's number."""
    return {name for name in metrics if name != "step" and find_entry(name) is None}


def write_legend(workdir: str | os.PathLike) -> None:
    """Writes the legend into a workdir, as `metrics.md`."""
    lines = ["| figure | what it is | what to expect |", "| --- | --- | --- |"]
    lines += [
        f"| `{name}{'…' if name.endswith('/') else ''}` | {it.meaning} | {it.expect} |" for name, it in LEGEND.items()
    ]
    write_atomically(pathlib.Path(workdir) / FILE, "# The figures of metrics.jsonl\n\n" + "\n".join(lines) + "\n")


class Alarm:
    """Warns where a figure passes its limit, of each kind once in so many steps.

    Args:
      limits: `config.warnings`, the largest value by figure that is no cause for a warning.
      every: steps.
    Raises:
      InputError: a limit of a figure that has no warning.
    """

    def __init__(self, limits: Mapping[str, float], every: int = WARN_EVERY):
        for name in limits:
            if name not in _REMEDIES:
                raise InputError(f"config.warnings.{name}: there is no such warning; known are {', '.join(_REMEDIES)}")
        self._limits, self._every, self._last = dict(limits), every, {}

    def look(self, step: int, figures: Mapping[str, float]) -> None:
        """Warns of the figures of a step."""
        for name, limit in self._limits.items():
            if figures.get(name, 0.0) <= limit or step < self._last.get(name, -self._every) + self._every:
                continue
            self._last[name] = step
            logging.warning(
                "step %d: %s is %.3g, more than config.warnings.%s=%g: %s; %s",
                step, name, figures[name], name, limit, LEGEND[name].meaning, _REMEDIES[name],
            )  # fmt: skip
