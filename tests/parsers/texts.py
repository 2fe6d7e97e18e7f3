"""Text traces for tests: opened as the reader hands them out, and read again by an expression of the test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyarrow as pa

from tracetool_parsers.ftracetext import open_ftrace_text
from tracetool_parsers.perfscript import open_perf_script
from tracetool_parsers.raw import RawTrace


def ftrace(text: str | bytes, *, strict: bool = False) -> RawTrace:
    """A text of tracefs or trace-cmd, opened."""
    return RawTrace(open_ftrace_text(memoryview(_bytes(text)), "trace.txt", strict=strict))


def perf(text: str | bytes, *, strict: bool = False) -> RawTrace:
    """A text of `perf script`, opened."""
    return RawTrace(open_perf_script(memoryview(_bytes(text)), "script.txt", strict=strict))


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def printed(path: Path, *options: str) -> bytes:
    """What `trace-cmd report` prints of a recording."""
    return subprocess.run(["trace-cmd", "report", *options, "-i", str(path)], check=True, capture_output=True).stdout


def everything(trace: RawTrace) -> dict[str, pa.Table]:
    """All tables of a trace with all columns that it has."""
    formats = trace.formats()
    asked = {name: [field.column for field in formats[name].fields] for name in trace.event_names()}
    return {**trace.tables(asked), "timeline": trace.timeline(), "losses": trace.losses}


def rows(trace: RawTrace, event: str) -> list[dict[str, object]]:
    """The rows of one event, with all its fields."""
    fields = [field.column for field in trace.formats()[event].fields]
    listed: list[dict[str, object]] = trace.table(event, fields).to_pylist()
    return listed
