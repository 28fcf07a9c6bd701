"""Run trials in spawned workers, one torch thread each; survive dead and hanging workers; leave no orphan.

When a worker dies, the trials that were running are suspects and are rerun alone; the third death of one, or a time-out, is
a failed row that names the trial. Workers watch their parent and die with it. Any ``concurrent.futures.Executor`` will do.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path

from .claim import Claim, Task
from .ledger import Reply
from .study import find_claim

DEATHS = 3
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spawned(workers: int) -> Executor:
    """The default executor: fresh processes, so that nothing of the parent's state reaches a trial."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start)


def _start() -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C (the parent decides), gone when the parent is gone."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def work(task: Task, timeout: float, notes: str) -> Reply:
    """Run one trial in a worker. A note on disk says that it runs, so that a death can be put to its name."""
    from .verdict import attempt

    note = Path(notes) / str(os.getpid())
    with note.open("w") as file:
        file.write(f"{task}\n")
        file.flush()
        faulthandler.dump_traceback_later(timeout, exit=True, file=file)  # a C thread: also stops a hung kernel
        started = time.perf_counter()
        try:
            values, error = attempt(
                find_claim(task.origin, task.claim),
                task.arm,
                json.loads(task.point),
                task.seed,
                task.device,
                task.dtype,
            )
        finally:
            faulthandler.cancel_dump_traceback_later()
    note.unlink()
    return Reply(values, error, time.perf_counter() - started, _peak_bytes())


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let spawned processes inherit one BLAS thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class Runner:
    """Yields ``(task, reply)`` as trials finish, in whatever order they do."""

    def __init__(
        self, workers: int, claims: Mapping[str, Claim], executor: Callable[[int], Executor] = spawned
    ) -> None:
        self.workers, self.claims, self.executor = max(workers, 1), claims, executor
        self._deaths: Counter[Task] = Counter()

    def run(self, tasks: Sequence[Task]) -> Generator[tuple[Task, Reply], None, None]:
        """Run all tasks; closing the iterator kills what still runs."""
        together, alone = deque(tasks), deque[Task]()
        with tempfile.TemporaryDirectory() as notes:
            while together or alone:
                lanes, queue = (self.workers, together) if together else (1, alone)
                running: dict[Future[Reply], Task] = {}
                try:
                    yield from self._drain(queue, lanes, running, notes)
                except BrokenExecutor:
                    yield from self._suspects(list(running.values()), notes, together, alone)

    def _drain(
        self, queue: deque[Task], lanes: int, running: dict[Future[Reply], Task], notes: str
    ) -> Iterator[tuple[Task, Reply]]:
        with _one_thread():
            pool = self.executor(min(lanes, len(queue)))
        try:
            while queue or running:
                with _one_thread():
                    while queue and len(running) < lanes + (
                        lanes > 1
                    ):  # one in hand, so that no worker waits for the ledger
                        task = queue.popleft()
                        try:
                            running[pool.submit(work, task, self.claims[task.claim].timeout, notes)] = task
                        except BrokenExecutor:
                            queue.appendleft(task)
                            raise
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    reply = future.result()
                    yield running.pop(future), reply
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
                child.join()

    def _suspects(
        self, running: list[Task], notes: str, together: deque[Task], alone: deque[Task]
    ) -> Iterator[tuple[Task, Reply]]:
        """Sort out what ran when the pool broke: time-outs and third deaths fail, suspects go alone, the rest again."""
        found = {}
        for note in Path(notes).iterdir():
            name, _, rest = note.read_text().partition("\n")
            found[name] = "Timeout" in rest
            note.unlink()
        for task in running:
            timeout = self.claims[task.claim].timeout
            if str(task) not in found:
                together.append(task)
                continue
            self._deaths[task] += 1
            if found[str(task)]:
                yield (
                    task,
                    Reply(
                        {},
                        f"no result after {timeout:g} s: raise the claim's timeout or shrink its grid",
                        timeout,
                        lost=True,
                    ),
                )
            elif self._deaths[task] >= DEATHS:
                yield (
                    task,
                    Reply(
                        {},
                        f"the worker died {DEATHS} times on this trial (killed, out of memory, or a crash)",
                        lost=True,
                    ),
                )
            else:
                alone.append(task)
