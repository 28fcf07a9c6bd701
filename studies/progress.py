"""Progress of a run: bars on a terminal, one plain line per tenth elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .claim import Task
from .ledger import Reply


@final
class Bars:
    """A live bar on a terminal."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._console = console

    def __enter__(self) -> Bars:
        self._progress.start()
        self._bar = self._progress.add_task("starting workers", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int, task: Task, reply: Reply) -> None:
        """Advance by one trial."""
        self._progress.update(self._bar, completed=done, total=total, description=f"{task.claim:<44.44}")
        if reply.error:
            self._console.print(f"failed: {task}: {reply.error}", markup=False)


@final
class Lines:
    """Plain lines for logs."""

    def __init__(self, console: Console) -> None:
        self._console, self._tenth = console, 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, done: int, total: int, task: Task, reply: Reply) -> None:
        """Print at every tenth of the work, and every failure."""
        if reply.error:
            self._console.print(f"failed: {task}: {reply.error}", markup=False)
        if 10 * done // total > self._tenth:
            self._tenth = 10 * done // total
            self._console.print(f"{done}/{total} trials ({task.claim})", markup=False)
