"""Many streaming clients against a running endpoint: errors, speed, and what is left open or in memory at the end.

    python -m experiments.serve --config=configs/serve.py:nano --workdir=runs/rl &
    python -m benchmarks.serve_clients --pid=$! --minutes=5

Each client asks for completions and chats of random lengths, one after the other; one request in ten is hung up on.
It exits 1 where a request failed, a slot stayed open, or the server's memory grew by more than --growth_mib after the
first fifth of the time, in which it compiles.
"""

import argparse
import asyncio
import dataclasses
import json
import pathlib
import random
import sys
import time

import httpx

_HANG_UP = 0.1  # share of the requests


@dataclasses.dataclass
class Counts:
    """What all clients saw."""

    ended: int = 0
    hung_up: int = 0
    tokens: int = 0
    first_seconds: list[float] = dataclasses.field(default_factory=list)  # to the first piece of a stream
    errors: list[str] = dataclasses.field(default_factory=list)


def main() -> int:
    """Runs the clients; the exit status says whether all was well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--pid", type=int, required=True, help="the server's process, whose memory is watched")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--max_tokens", type=int, default=48)
    parser.add_argument("--growth_mib", type=float, default=32.0)
    return asyncio.run(_run(parser.parse_args()))


async def _run(arguments: argparse.Namespace) -> int:
    counts, ends = Counts(), time.monotonic() + 60 * arguments.minutes
    limits = httpx.Limits(max_connections=arguments.clients + 1)
    async with httpx.AsyncClient(base_url=arguments.url, timeout=120, limits=limits) as http:
        clients = [_client(http, seed, arguments, counts, ends) for seed in range(arguments.clients)]
        memory = asyncio.create_task(_watch(arguments.pid, ends))
        await asyncio.gather(*clients)
        sizes = await memory
        await asyncio.sleep(1.0)  # who hung up last is noticed
        still_open = (await http.get("/health")).json()["open_requests"]
    settled = sizes[len(sizes) // 5]
    growth = (sizes[-1] - settled) / 2**20
    seconds = 60 * arguments.minutes
    first = sorted(counts.first_seconds)
    print(f"clients            {arguments.clients} for {seconds:.0f} s")
    print(f"requests           {counts.ended} ended, {counts.hung_up} hung up on, {len(counts.errors)} failed")
    print(f"tokens             {counts.tokens} ({counts.tokens / seconds:.0f}/s)")
    print(
        f"to the first piece {first[len(first) // 2]:.3f} s median, {first[int(0.99 * len(first))]:.3f} s 99th of 100"
    )
    print(f"memory             {settled / 2**20:.0f} MiB after a fifth, {sizes[-1] / 2**20:.0f} MiB at the end")
    print(f"left open          {still_open}")
    for error in counts.errors[:5]:
        print(error, file=sys.stderr)
    return int(bool(counts.errors) or still_open > 0 or growth > arguments.growth_mib)


async def _client(
    http: httpx.AsyncClient, seed: int, arguments: argparse.Namespace, counts: Counts, ends: float
) -> None:
    rng = random.Random(seed)
    while time.monotonic() < ends:
        question = f"How much is {rng.randrange(100)} + {rng.randrange(100)}?"
        body = {
            "max_tokens": rng.randint(1, arguments.max_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": rng.choice([0.0, 1.0]),
            "stop": ["\n\n"],
        }
        if rng.random() < 0.5:
            path, body = "/v1/completions", body | {"prompt": question, "n": rng.choice([1, 1, 3])}
        else:
            path, body = "/v1/chat/completions", body | {"messages": [{"role": "user", "content": question}]}
        try:
            await _ask(http, path, body, counts, hang_up=rng.random() < _HANG_UP)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            counts.errors.append(f"{path} {body}: {type(error).__name__} {error}")


async def _ask(http: httpx.AsyncClient, path: str, body: dict, counts: Counts, *, hang_up: bool) -> None:
    began = time.monotonic()
    async with http.stream("POST", path, json=body) as answer:
        if answer.status_code != 200:
            raise ValueError(f"{answer.status_code} {await answer.aread()}")
        last, unfinished = "", body.get("n", 1)
        async for line in answer.aiter_lines():
            if not line:
                continue
            if not last:
                counts.first_seconds.append(time.monotonic() - began)
            last = line.removeprefix("data: ")
            if last == "[DONE]":
                continue
            piece = json.loads(last)
            if "error" in piece:
                raise ValueError(last)
            unfinished -= sum(choice["finish_reason"] is not None for choice in piece["choices"])
            counts.tokens += piece.get("usage", {}).get("completion_tokens", 0)
            if hang_up and unfinished:
                counts.hung_up += 1
                return
    if last != "[DONE]" or unfinished:
        raise ValueError(f"a stream broke off after {last!r}")
    counts.ended += 1


async def _watch(pid: int, ends: float) -> list[int]:
    """Bytes of resident memory, as Linux tells them, each second."""
    sizes = []
    while time.monotonic() < ends:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        sizes.append(1024 * int(status.split("VmRSS:")[1].split()[0]))
        await asyncio.sleep(1.0)
    return sizes


if __name__ == "__main__":
    sys.exit(main())
