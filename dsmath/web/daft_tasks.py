"""Tasks by Daft: in processes of this machine, which it starts anew for every step, or in those of a Ray cluster."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import daft


def use_ray() -> None:
    """Has Daft run on the cluster to which this process is connected."""
    daft.set_runner_ray(noop_if_initialized=True)


def run(
    make: Callable[[], Callable[[Mapping[str, Any]], str]],
    tasks: Sequence[Mapping[str, Any]],
    *,
    workers: int,
    is_cluster: bool,
) -> Iterator[str]:
    """Does the tasks, JSON-like mappings; yields what they return, as they end.

    Args:
      make: called once in each process; what it returns is called with task after task.
      workers: processes.
      is_cluster: whether they are those of a cluster.
    """
    doer = daft.cls(_Doer, use_process=True, max_concurrency=min(workers, len(tasks)))(make)
    frame = daft.from_pydict({"task": [json.dumps(task) for task in tasks]})
    if is_cluster:  # a partition goes to one process whole
        frame = frame.into_partitions(len(tasks))
    for row in frame.select(doer.do(daft.col("task")).alias("answer")).iter_rows():
        yield row["answer"]


class _Doer:
    """What does tasks inside one of Daft's processes."""

    def __init__(self, make: Callable[[], Callable[[Mapping[str, Any]], str]]):
        self._do = make()

    @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)
    def do(self, tasks: daft.Series) -> list[str]:
        return [self._do(json.loads(task)) for task in tasks.to_pylist()]
