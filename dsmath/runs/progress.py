"""Progress of long work: a bar on a terminal, plain lines elsewhere, both with rate and time left."""

import sys
import time
from typing import TextIO

from dsmath.runs import processes

LINE_SECONDS = 10.0  # between two plain lines


class Progress:
    """Counts work that is done; a context manager. Of many processes the first one alone tells of it.

    Args:
      total: amount of work.
      label: name of the work, such as "pretrain".
      unit: what is counted, such as "step".
      done: amount that was done before this run.
      stream: defaults to standard error.
    """

    def __init__(self, total: int, label: str, unit: str, done: int = 0, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._total, self._label, self._unit = total, label, unit
        self._first, self._done = done, done
        self._started = self._printed = time.monotonic()
        self._bar, self._quiet = None, not processes.is_main()
        if self._stream.isatty() and not self._quiet:
            from tqdm import tqdm  # not at the top: a bare accelerator image lacks it

            self._bar = tqdm(
                total=total, initial=done, desc=label, unit=unit, file=self._stream, dynamic_ncols=True, smoothing=0.1
            )

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Counts `amount` more, or as much less where work is done again; `figures` are shown beside the count."""
        self._done += amount
        if amount < 0:
            self._first, self._started = self._done, time.monotonic()
        if self._quiet:
            return
        if self._bar is not None:
            if figures:
                self._bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)
            self._bar.update(amount)
            return
        now = time.monotonic()
        if now - self._printed >= LINE_SECONDS or self._done >= self._total:
            self._printed = now
            self._print_line(now, figures)

    def _print_line(self, now: float, figures: dict[str, float]) -> None:
        rate = (self._done - self._first) / max(now - self._started, 1e-9)
        left = max(self._total - self._done, 0) / rate if rate else float("inf")
        shown = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        print(
            f"{self._label}: {self._done}/{self._total} {self._unit}  {rate:.3g} {self._unit}/s  "
            f"left {_clock(left)}{shown}",
            file=self._stream,
            flush=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
