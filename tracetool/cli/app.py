"""The application: its verbs, what they share, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final, ParamSpec

import typer

from tracetool import __version__, progress
from tracetool.cli.output import forget, reads
from tracetool.foreign import printable
from tracetool_parsers.sniff import Format as InputFormat

if TYPE_CHECKING:
    from tracetool.trace import Trace

P = ParamSpec("P")

#: Exit codes: 1 is any error, 2 wrong usage (typer's, too).
MATCHED: Final = 3
INTERRUPTED: Final = 130

# Rich help would keep its colours under NO_COLOR (seen with typer 0.29), so help is plain.
app = typer.Typer(name="tracetool", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

TraceFile = Annotated[
    str,
    typer.Argument(
        metavar="TRACE",
        help="A recorded trace, plain or .gz, .xz, .zst: trace.dat, perf.data, text of a tracer, what export wrote; - reads a pipe.",
        show_default=False,
    ),
]
InputFormatOption = Annotated[
    InputFormat | None, typer.Option("--input-format", help="The format of TRACE, whatever it looks like.", show_default=False)
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Take damage of TRACE for an error, not for a loss.")]


def opened(trace: str, input_format: InputFormat | None, strict: bool) -> Trace:
    """The trace that a verb was given; raises TraceError."""
    from tracetool.trace import open as open_trace

    reads(trace)
    return open_trace(trace, input_format=input_format, strict=strict)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tracetool {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
    _version_wanted: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Replay recorded kernel events: who owned which page when, was any sharing unsafe, and what would another kernel have cost?"""
    if debug:
        os.environ["TRACETOOL_DEBUG"] = "1"


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors are told in one line, with a hint, and an exit code."""

    @functools.wraps(function)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        # The base class of all our errors: nothing heavy comes with it.
        from tracetool_parsers.errors import TraceError

        if sys.stderr.isatty():
            logging.basicConfig(level=logging.INFO, format="%(message)s ...", stream=progress.BehindTheLine(sys.stderr))
        try:
            with progress.shown(sys.stderr) if progress.is_wanted(sys.stderr, sys.stdout) else contextlib.nullcontext():
                function(*args, **kwargs)
            sys.stdout.flush()
        except TraceError as error:
            if os.environ.get("TRACETOOL_DEBUG"):
                raise
            _say(f"error: {error}")
            if error.hint:
                _say(f"hint: {' '.join(error.hint.split())}")
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # The reader (head, a pager) has had enough; say nothing more, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            if os.environ.get("TRACETOOL_DEBUG"):
                raise
            where = f"{error.filename}: " if error.filename else ""
            _say(f"error: {where}{error.strerror or error}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        finally:
            forget()

    return told


def _say(text: str) -> None:
    typer.echo(printable(text).encode(errors="backslashreplace").decode(), err=True)


@functools.cache
def application() -> typer.Typer:
    """The application with all its verbs."""
    from tracetool.cli import compare, cost, costs, events, explain, export, history, info, pages, replay, report, schema, suspect, synth

    for module in (replay, report, explain, compare, suspect, cost, info, events, pages, history, export, schema, synth):
        app.command(name=module.__name__.rsplit(".", 1)[-1], cls=getattr(module, "Command", None))(verb(module.run))
    costs.costs.command(name="calibrate")(verb(costs.calibrate))
    app.add_typer(costs.costs)
    return app


def main() -> None:
    """Run the command line; never returns."""
    application()(prog_name="tracetool")
