"""What the benchmarks share: their options, a clock that waits for the device, interleaved rounds, the environment."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lemmata.studies.environment import processor

from .table import Row

Contender = Callable[[], Any]


def options(description: str, arguments: list[str] | None, parts: Sequence[str] = ()) -> argparse.Namespace:
    """Read the command line and set the threads, the seed and the handling of tiny numbers.

    Where a benchmark has parts, ``--only products,trace`` chooses some of them; ``only`` lists those to run.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=11, help="rounds, at least 7")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    if parts:
        parser.add_argument("--only", default=",".join(parts), help=f"some of {','.join(parts)}; all by default")
    given = parser.parse_args(arguments)
    if parts:
        given.only = given.only.split(",")
        unknown = [part for part in given.only if part not in parts]
        if unknown:
            parser.error(f"argument --only: some of {','.join(parts)}, given {','.join(unknown)}")
    if given.repeats < 7:
        parser.error(f"argument --repeats: at least 7 rounds, given {given.repeats}")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: this PyTorch sees no CUDA device")
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    return given


def environment(device: str, repeats: int) -> dict[str, Any]:
    """When and on what the figures were measured."""
    today = datetime.now(UTC).date().isoformat()
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    threads = torch.get_num_threads()
    return {
        "date": today,
        "torch": torch.__version__,
        "device": device,
        "name": name,
        "threads": threads,
        "rounds": repeats,
    }


def timed(contender: Contender, device: str, calls: int = 1) -> float:
    """Seconds of one call, the mean over `calls` of them, finished on the device.

    With one thread of a CPU they are the processor's time for this process, which other processes do not lengthen.
    """
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    begun = clock()
    for _ in range(calls):
        contender()
    if device == "cuda":
        torch.cuda.synchronize()
    return (clock() - begun) / calls


def interleaved(
    contenders: Mapping[str, Contender], device: str, repeats: int, seconds: float = 0.0
) -> list[dict[str, float]]:
    """Time every contender once in each round, in turn, after one call of each; a short one is called for `seconds`."""
    for call in contenders.values():
        call()
    calls = {name: 1 for name in contenders}
    if seconds:
        calls = {name: math.ceil(seconds / timed(call, device)) for name, call in contenders.items()}
    return [{name: timed(call, device, calls[name]) for name, call in contenders.items()} for _ in range(repeats)]


def affordable(contenders: Mapping[str, Contender], device: str, repeats: int, budget: float) -> list[dict[str, float]]:
    """As many interleaved rounds as take ``budget`` seconds, at most ``repeats``; if not two, the first calls are the round.

    A call that takes seconds has no need to be called before it is timed.
    """
    first = {name: timed(call, device) for name, call in contenders.items()}
    rounds = min(repeats, int(budget / max(sum(first.values()), 1e-9)))
    if rounds < 2:
        return [first]
    return [{name: timed(call, device) for name, call in contenders.items()} for _ in range(rounds)]


def write(path: Path | None, about: dict[str, Any], **tables: list[dict[str, Any]]) -> None:
    """Write the environment and the rows as JSON, if there is somewhere to write them."""
    if path:
        path.write_text(json.dumps({**about, **tables}, indent=1) + "\n")


def run(given: argparse.Namespace, parts: dict[str, Callable[[str, int], Iterator[Row]]]) -> None:
    """The parts that are asked for, row by row, and how many targets are met."""
    about = environment(given.device, given.repeats)
    print("  ".join(f"{key} {value}" for key, value in about.items()))
    rows = []
    for part in given.only:
        torch.manual_seed(0)
        for one in parts[part](given.device, given.repeats):
            print(one, flush=True)
            rows.append(one)
    judged = [one for one in rows if one.met is not None]
    print(f"{sum(bool(one.met) for one in judged)} of {len(judged)} targets met")
    write(given.json, about, rows=[asdict(one) for one in rows])
