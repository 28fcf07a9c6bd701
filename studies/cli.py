"""The command line: ``lemmata list | show | run | report | export | verify | examine``.

Torch is imported only by commands that compute; help, versions, study names and usage errors answer at once.
"""

from __future__ import annotations

import enum
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from .errors import StudyError, UnknownName

INTERRUPTED = 130
DEFAULT_OUT = Path("runs")

app = typer.Typer(
    name="lemmata",
    help="Published theorems of deep learning, run: measured, judged, and reported with the controls that must fail.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)  # a log has no width of its own
err = Console(stderr=True, soft_wrap=True, highlight=False)


class Profile(enum.StrEnum):
    """Sizes of a run."""

    quick = "quick"
    full = "full"


class Device(enum.StrEnum):
    """Where trials run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def _version(asked: bool) -> None:
    if asked:
        from .environment import version

        typer.echo(f"lemmata {version('lemmata')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_(
    json: Annotated[
        bool, typer.Option("--json", help="Every claim with its source, controls and sizes, as JSON.")
    ] = False,
) -> None:
    """List the studies."""
    from . import catalogue

    if json:
        typer.echo(catalogue.as_json())
    else:
        catalogue.table(out)


@app.command()
def show(claim: Annotated[str, typer.Argument(help="A claim's id.")]) -> None:
    """Show one claim: statement, source, prediction, sizes and controls."""
    from . import catalogue

    catalogue.show(claim, out)


@app.command()
def run(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Studies, areas, or your own claims.py.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every study of the lab.")] = False,
    claim: Annotated[list[str] | None, typer.Option(help="Only these claims.", show_default=False)] = None,
    profile: Annotated[Profile, typer.Option(help="Sizes; the claims are the same.")] = Profile.quick,
    device: Annotated[Device, typer.Option(help="Where trials run; auto takes CUDA if there is one.")] = Device.auto,
    workers: Annotated[int, typer.Option(min=0, help="Processes, one thread each; 0: as many as cores.")] = 0,
    salt: Annotated[str, typer.Option(help="Changes every seed: an independent replication.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute every trial again; the old rows are kept.")] = False,
    out_: Annotated[Path, typer.Option("--out", help="Folder of the ledger and the reports.")] = DEFAULT_OUT,
) -> None:
    """Run studies: compute what the ledger lacks, judge, and write the reports."""
    from .study import STUDIES, resolve

    if all_ == bool(studies):
        raise typer.BadParameter("name one or more studies, or pass --all (not both). `lemmata list` names them.")
    names = STUDIES if all_ else studies or ()
    origins = list(dict.fromkeys(origin for name in names for origin in resolve(name)))
    from . import session
    from .runner import default_workers

    loaded, chosen = _load(origins, claim or [])
    request = session.Request(loaded, chosen, profile.value, _device(device), workers or default_workers(), salt, fresh)
    try:
        with _progress() as report:
            computed = session.run(request, out_, report)
    except KeyboardInterrupt:
        again = "the same command without --fresh" if fresh else "the same command"
        err.print(f"Interrupted. Finished trials are kept; {again} goes on from here.")
        raise typer.Exit(INTERRUPTED) from None
    err.print(
        f"{computed} trials computed; judging and writing reports …" if computed else "Nothing to compute; judging …",
        style="dim",
    )
    raise typer.Exit(_publish(out_, {study.name for study in loaded}))


def _load(origins: Sequence[str], claims: Sequence[str]) -> tuple[tuple[Any, ...], frozenset[str]]:
    from .study import load, nearest

    studies = tuple(load(origin) for origin in origins)
    known = {claim.id for study in studies for claim in study.claims}
    wanted = frozenset(name.replace("-", "_") for name in claims)
    for name in sorted(wanted - known):
        raise UnknownName(
            f"no claim {name!r} in {', '.join(study.name for study in studies)}. {nearest(name, sorted(known))}"
        )
    kept = tuple(study for study in studies if not wanted or any(claim.id in wanted for claim in study.claims))
    return kept, wanted


def _device(device: Device) -> str:
    import torch

    if device is Device.cuda and not torch.cuda.is_available():
        raise StudyError(
            "--device cuda: this torch sees no CUDA device; use --device cpu, or install a CUDA build of torch."
        )
    return "cuda" if device is not Device.cpu and torch.cuda.is_available() else "cpu"


def _progress() -> Any:
    from .progress import Bars, Lines

    return Bars(err) if err.is_terminal else Lines(err)


def _publish(folder: Path, names: set[str] | None = None, current: bool = True) -> int:
    from . import catalogue, publish
    from .session import judged

    studies = judged(folder, current)
    written = publish.publish(studies, folder)
    shown = [study for study in studies if names is None or study.study.name in names]
    catalogue.verdict_table(shown, out)
    out.print(f"Reports: {written[0].resolve()}")
    return publish.exit_status(shown)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Take the ledger as it stands: mark no row stale.")
    ] = False,
) -> None:
    """Judge a ledger again and write its reports; computes no trial."""
    raise typer.Exit(_publish(folder, current=not as_published))


@app.command()
def export(folder: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Print every row of a ledger as JSON Lines."""
    from .export import lines

    for line in lines(folder):
        typer.echo(line)


@app.command()
def verify(
    first: Annotated[Path, typer.Argument(help="Folder of a run.")],
    second: Annotated[Path, typer.Argument(help="Folder of another run.")],
) -> None:
    """Say whether two runs agree, row by row and verdict by verdict."""
    from .export import compare

    agree, text = compare(first, second)
    typer.echo(text)
    raise typer.Exit(0 if agree else 1)


@app.command()
def examine(factory: Annotated[str, typer.Argument(help="module:factory, which returns (model, loss, data).")]) -> None:
    """Examine a model of your own: size, loss, gradient and the edges of its Hessian's spectrum."""
    from .examine import examine as look

    look(factory, out)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(args=None if arguments is None else list(arguments))
    except (StudyError, OSError) as error:  # a disk that is full, a folder that cannot be made
        err.print(f"lemmata: {error}", markup=False)
        sys.exit(2)
    sys.exit(0)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
