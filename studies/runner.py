"""Run trials in spawned workers, one torch thread each; survive dead and hanging workers; leave no orphan.

When a worker dies, the trials that were running are suspects and are rerun alone; the third death of one, or a time-out, is
a failed row that names the trial. Workers watch their parent and die with it. Any ``concurrent.futures.Executor`` will do;
the watch on dying and hanging trials comes with the default one (threads share torch's default dtype: one thread at most).
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
from .errors import StudyError
from .ledger import Reply
from .study import find_claim

DEATHS = 3
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spawned(workers: int, notes: Path) -> Executor:
    """The default executor: fresh processes, so that nothing of the parent's state reaches a trial."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(notes,))


#: In a default worker, the folder for its note; None in any other executor's.
_notes: Path | None = None


def _start(notes: Path) -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C (the parent decides), gone when the parent is gone."""
    import torch

    global _notes
    _notes = notes
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def work(task: Task, timeout: float) -> Reply:
    """Run one trial."""
    from .verdict import attempt

    with _noted(task, timeout):
        claim = find_claim(task.origin, task.claim)
        started = time.perf_counter()
        values, error = attempt(claim, task.arm, json.loads(task.point), task.seed, task.device, task.dtype)
        return Reply(values, error, time.perf_counter() - started, _peak_bytes())


@contextmanager
def _noted(task: Task, timeout: float) -> Iterator[None]:
    """Say on disk which trial runs, so that a death or a time-out can be put to its name."""
    if _notes is None:
        yield
        return
    note = _notes / str(os.getpid())
    with note.open("w", encoding="utf-8") as file:
        file.write(_mark(task) + "\n")
        file.flush()
        faulthandler.dump_traceback_later(timeout, exit=True, file=file)  # a C thread: also stops a hung kernel
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    note.unlink()


def _mark(task: Task) -> str:
    """A task as one line of ASCII, whatever its control is called."""
    return json.dumps(task.identity)


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _spawning() -> Iterator[None]:
    """Let spawned processes inherit one BLAS thread each and a blocked Ctrl-C, which waits here for the block's end."""
    before = {name: os.environ.get(name) for name in _THREADS}
    blocks = hasattr(signal, "pthread_sigmask")  # not on Windows
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else set()
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Runner:
    """Yields ``(task, reply)`` as trials finish, in whatever order they do."""

    def __init__(
        self, workers: int, claims: Mapping[str, Claim], executor: Callable[[int], Executor] | None = None
    ) -> None:
        self.workers, self.claims, self.executor = max(workers, 1), claims, executor
        self._deaths: Counter[Task] = Counter()
        self._false_starts = 0

    def run(self, tasks: Sequence[Task]) -> Generator[tuple[Task, Reply], None, None]:
        """Run all tasks; closing the iterator kills what still runs."""
        together, alone = deque(tasks), deque[Task]()
        with tempfile.TemporaryDirectory() as folder:
            notes = Path(folder)
            while together or alone:
                lanes, queue = (self.workers, together) if together else (1, alone)
                running: dict[Future[Reply], Task] = {}
                try:
                    yield from self._drain(queue, lanes, running, notes)
                except BrokenExecutor:
                    yield from self._suspects(list(running.values()), notes, together, alone)

    def _drain(
        self, queue: deque[Task], lanes: int, running: dict[Future[Reply], Task], notes: Path
    ) -> Iterator[tuple[Task, Reply]]:
        others = multiprocessing.active_children()
        size = min(lanes, len(queue))
        with _spawning():
            pool = self.executor(size) if self.executor else spawned(size, notes)
        in_hand = lanes + (lanes > 1)  # one more than lanes, so that no worker waits for the ledger
        try:
            while queue or running:
                with _spawning():
                    while queue and len(running) < in_hand:
                        self._submit(pool, queue, running)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    reply = future.result()
                    self._false_starts = 0
                    yield running.pop(future), reply
        finally:
            for child in multiprocessing.active_children():
                if child not in others:
                    child.kill()
                    child.join()
            # Our own pool's thread ends with its workers; one left behind races with the interpreter's exit.
            pool.shutdown(wait=self.executor is None, cancel_futures=True)

    def _submit(self, pool: Executor, queue: deque[Task], running: dict[Future[Reply], Task]) -> None:
        task = queue[0]
        running[pool.submit(work, task, self.claims[task.claim].timeout)] = task
        queue.popleft()  # only now: a broken pool takes nothing

    def _suspects(
        self, running: list[Task], notes: Path, together: deque[Task], alone: deque[Task]
    ) -> Iterator[tuple[Task, Reply]]:
        """Sort out what ran when the pool broke: time-outs and third deaths fail, suspects go alone, the rest again."""
        found = _collect(notes)
        self._false_starts += not found
        if self._false_starts > DEATHS:
            raise StudyError(
                "the workers die before their first trial: see what they printed above. A script that runs claims needs "
                'its calls under `if __name__ == "__main__":`.'
            )
        for task in running:
            if found and _mark(task) not in found:
                together.append(task)
                continue
            self._deaths[task] += 1
            timeout = self.claims[task.claim].timeout
            if found.get(_mark(task)):
                error = f"no result after {timeout:g} s: raise the claim's timeout or shrink its grid"
                yield task, Reply({}, error, timeout, lost=True)
            elif self._deaths[task] >= DEATHS:
                error = f"the worker died {DEATHS} times on this trial (killed, out of memory, or a crash)"
                yield task, Reply({}, error, lost=True)
            else:
                alone.append(task)


def _collect(notes: Path) -> dict[str, bool]:
    """The trials that ran in workers now dead, and whether each ran out of time."""
    found = {}
    for note in notes.iterdir():
        mark, _, rest = note.read_text(encoding="utf-8", errors="replace").partition("\n")
        found[mark] = "Timeout" in rest
        note.unlink()
    return found
