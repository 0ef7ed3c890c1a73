"""Sampling one step ahead, beside the update; and stages as files, so that a resumed run learns from the same."""

import concurrent.futures
import os
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from dsmath.rl.exploration import Stage
from dsmath.rl.rewards import Rewards
from dsmath.rollout.samples import Samples
from dsmath.runs.workdir import replacing

PENDING = "pending"  # folder of what was sampled ahead


class Ahead:
    """Stages in order; with a lag of 1 the next one is sampled beside the update, by the policy before it.

    A context manager. What was sampled ahead is written before the checkpoint that needs it, so that a resumed run
    learns from the same samples.

    Args:
      workdir: of the stage; `pending/STEP.npz` lies in it.
      lag: 0 or 1.
      explore: (params, cursor, version) -> stage.
    """

    def __init__(self, workdir: str | os.PathLike, lag: int, explore: Callable[[Any, int, int], Stage]):
        self._folder, self._lag, self._explore = pathlib.Path(workdir) / PENDING, lag, explore
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self._next: concurrent.futures.Future | None = None

    def begin(self, step: int, params: Any, cursor: int, version: int) -> Stage:
        """The stage of a step: sampled ahead, before a kill perhaps, or now."""
        if not self._lag:
            return self._explore(params, cursor, version)
        if self._next:
            stage, self._next = self._next.result(), None
            return stage
        path = self._path(step)
        return load_stage(path) if path.exists() else self._explore(params, cursor, version)

    def go_on(self, copy: Callable[[], Any], cursor: int, version: int) -> None:
        """Starts to sample the next stage; `copy` gives the policy as it is now, and the update cannot change it."""
        self._next = self._pool.submit(self._explore, copy(), cursor, version) if self._lag else None

    def save(self, step: int) -> None:
        """Writes what was sampled ahead after a step."""
        if self._lag and self._next:
            save_stage(self._path(step + 1), self._next.result())

    def forget(self, steps: Collection[int]) -> None:
        """Removes what was sampled ahead, but for what the checkpoints of these steps need."""
        for path in self._folder.glob("*.npz"):
            if int(path.stem) - 1 not in steps:
                path.unlink()

    def _path(self, step: int) -> pathlib.Path:
        return self._folder / f"{step:06}.npz"

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)


def save_stage(path: str | os.PathLike, stage: Stage) -> None:
    """Writes a stage as a NumPy archive, atomically."""
    arrays = dict(_flatten(stage))
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_stage(path: str | os.PathLike) -> Stage:
    """Reads what `save_stage` wrote."""
    with np.load(path) as archive:
        arrays = dict(archive)

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    return Stage(
        questions=arrays["questions"],
        requests=arrays["requests"],
        samples=Samples(**part("samples.")),
        rewards=Rewards(**part("rewards.")),
        old_logprobs=arrays.get("old_logprobs"),
        figures={name: float(value) for name, value in part("figures.").items()},
        cursor=int(arrays["cursor"]),
        version=int(arrays["version"]),
    )


def _flatten(stage: Stage) -> Iterator[tuple[str, Any]]:
    for name in ("questions", "requests", "cursor", "version"):
        yield name, getattr(stage, name)
    if stage.old_logprobs is not None:
        yield "old_logprobs", stage.old_logprobs
    for prefix, values in (("samples", stage.samples._asdict()), ("rewards", stage.rewards._asdict())):
        for name, array in values.items():
            if array is not None:
                yield f"{prefix}.{name}", array
    for name, value in stage.figures.items():
        yield f"figures.{name}", value
