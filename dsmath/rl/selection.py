"""Which samples a method learns from: right ones of distinct reasoning, pairs of better and worse."""

import re
from collections.abc import Sequence

import numpy as np

from dsmath.rollout.samples import Samples

# A step of reasoning: "3 + 4 = 7", GSM8K's <<3+4=7>> too.
_EQUATION = re.compile(r"[\d.,]+(?:\s*[-+*/×÷^]\s*[\d.,]+)+\s*=\s*-?[\d.,]*\d")


def reasoning(text: str) -> tuple[str, ...]:
    """What tells one solution from another: its equations in order, or its words where it has none.

    Source: Yuan et al. 2023 (RFT), §3.3, distinct reasoning paths.
    """
    equations = tuple(re.sub(r"[\s,]", "", equation) for equation in _EQUATION.findall(text))
    return equations or tuple(text.lower().split())


def distinct(texts: Sequence[Sequence[str]], keep: np.ndarray) -> np.ndarray:
    """Of each question's kept samples the first of every reasoning.

    Args:
      texts: of the samples, [questions, group_size].
      keep: bool of the same shape.
    Returns:
      bool of the same shape.
    """
    chosen = np.zeros_like(keep)
    for question, group in enumerate(texts):
        seen = set()
        for sample, text in enumerate(group):
            if keep[question, sample] and (key := reasoning(text)) not in seen:
                seen.add(key)
                chosen[question, sample] = True
    return chosen


def choose_pairs(rewards: np.ndarray, num_pairs: int, seeds: Sequence[Sequence[int]]) -> np.ndarray:
    """Pairs of a question's samples, best with worst, second best with second worst, while their rewards differ.

    Args:
      rewards: float32 [questions, group_size]; equal ones are in a random order.
      num_pairs: most pairs of a question.
      seeds: of each question's order.
    Returns:
      int [questions, 2 * num_pairs]: the chosen samples, then the rejected ones in the same order; -1 where there is
      no pair.
    """
    pairs = np.full((len(rewards), 2, num_pairs), -1)
    for question, group in enumerate(rewards):
        order = np.random.default_rng(seeds[question]).permutation(len(group))
        order = order[np.argsort(-group[order], kind="stable")]
        for pair, (best, worst) in enumerate(zip(order, order[::-1], strict=True)):
            if pair == num_pairs or group[best] <= group[worst]:
                break
            pairs[question, :, pair] = best, worst
    return pairs.reshape(len(rewards), -1)


def take(samples: Samples, places: np.ndarray, pad_id: int) -> Samples:
    """The samples at some places of each group, in their order.

    Args:
      places: int [questions, number]; -1 gives an empty sample, of which nothing is learned.
    """
    found = np.maximum(places, 0)
    gone = places < 0
    by_token = {
        name: np.take_along_axis(getattr(samples, name), found[..., None], axis=1)
        for name in ("tokens", "logprobs", "mask")
    }
    by_sample = {name: np.take_along_axis(getattr(samples, name), found, axis=1) for name in ("lengths", "truncated")}
    by_token["tokens"][gone] = pad_id
    for array in (by_token["logprobs"], by_token["mask"], *by_sample.values()):
        array[gone] = 0
    return Samples(**by_token, **by_sample)
