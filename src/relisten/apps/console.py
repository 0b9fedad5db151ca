"""What the commands say on the way: errors as one sentence, progress and notes on stderr."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import click

from relisten.apps.terminal import printable
from relisten.core.types import RelistenError

if TYPE_CHECKING:
    from relisten.tasks.streams import Refusal


class Failure(click.ClickException):
    """One sentence on stderr, exit code 2."""

    exit_code = 2


OWN_FAULT, INTERRUPTED, PIPE_CLOSED = 70, 130, 141


class Commands(click.Group):
    """A group whose commands end with one sentence, never a traceback, when the input is at fault.

    Exit codes: 0 all done; 1 done, but some utterances were refused; 2 wrong usage or input; 70 a
    fault of relisten itself, with a traceback; 130 interrupted from the keyboard; 141 nobody reads
    standard output any more. The last three are what a shell says of programs that end so.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RelistenError as error:
            raise Failure(printable(str(error))) from error
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            _silence_stdout()
            ctx.exit(PIPE_CLOSED)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if error.filename is not None:
                raise Failure(printable(f"{error.filename}: {reason}")) from error
            if error.errno in (errno.ENOSPC, errno.EIO):
                raise Failure(f"standard output cannot be written ({reason})") from error
            _say_own_fault(ctx)
        except Exception:
            _say_own_fault(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        return list(self.commands)


def _say_own_fault(ctx: click.Context) -> NoReturn:
    traceback.print_exc()
    click.echo(
        "Error: this is a fault of relisten, not of your input; please report it with the lines "
        "above and the command",
        err=True,
    )
    ctx.exit(OWN_FAULT)


def _silence_stdout() -> None:
    """Nobody reads it any more: Python is not to complain when it flushes it at the end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def bound_memory() -> None:
    """Keep freed memory for the next batch, and few of oneDNN's compiled products.

    oneDNN keeps one for each shape of a batch, up to 1,024: over 1,000 lists of many lengths they
    took half of 1.7 GB. It reads the variable when torch is loaded.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next batch; elsewhere nothing happens.

    By default it hands freed activations back to the kernel, which then clears the same pages for
    every batch: half the time went into that on two cores (`LOG.md`, 2026-11-22). The heaps of
    further threads are handed back whatever the thresholds, so all threads share one: a first pass
    by CTranslate2 took 25 s before and 20 s after (`LOG.md`, 2026-11-28).
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # numbers of <malloc.h>
    most = 2**31 - 1
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, most)
        mallopt(mmap_threshold, most)
        mallopt(arena_max, 1)


@contextmanager
def progress(label: str, total: int | None, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr; yields the function that moves it on by so many utterances."""
    if quiet:
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)


@contextmanager
def audio_progress(
    label: str, total_s: float | None, quiet: bool
) -> Iterator[Callable[[float], None]]:
    """A bar on stderr in hours of audio, with the time that is left; yields the function that moves
    it on by so many seconds of audio."""
    if quiet:
        yield lambda seconds: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    def hours(seconds: float | None) -> str:
        return "?" if seconds is None else str(timedelta(seconds=round(seconds)))

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[done]} of " + hours(total_s)),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # A chunk of segments takes up to minutes: the speed is that of the last ten.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task(label, total=total_s, done=hours(0))

        def advance(seconds: float) -> None:
            bar.advance(task, seconds)
            bar.update(task, done=hours(bar.tasks[0].completed))

        yield advance


@contextmanager
def spinner(label: str, quiet: bool) -> Iterator[None]:
    """A sign of life on stderr while something of unknown length runs."""
    if quiet:
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(label):
        yield


def count_lines(path: str) -> int | None:
    """How many lines a file of our own has, one an utterance; None for a pipe, a folder, and any
    other layout, whose lines may not be utterances."""
    from relisten.io.readers import is_native_line

    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        first = file.readline(1 << 20).strip()
        if not is_native_line(first):
            return None
        return 1 + sum(bool(line.strip()) for line in file)


def note(message: str, quiet: bool) -> None:
    """Say it on stderr."""
    if not quiet:
        click.echo("\n".join(map(printable, message.split("\n"))), err=True)


def finish(refused: tuple[Refusal, ...]) -> None:
    """List the refused utterances on stderr and exit with 1; nothing when there are none."""
    if not refused:
        return
    click.echo(f"{len(refused)} refused:", err=True)
    for refusal in refused:
        named = refusal.reason.startswith(f"{refusal.id}:")
        sentence = refusal.reason if named else f"{refusal.id}: {refusal.reason}"
        click.echo(f"  {printable(sentence)}", err=True)
    raise click.exceptions.Exit(1)
