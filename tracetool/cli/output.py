"""What every verb that prints a table can do with it: the formats, and files that are not overwritten unasked."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from tracetool.errors import Exists, Unusable

if TYPE_CHECKING:
    import polars as pl


class Format(StrEnum):
    """How a table is written."""

    text = "text"
    csv = "csv"
    jsonl = "jsonl"
    json = "json"
    parquet = "parquet"
    arrow = "arrow"


FormatOption = Annotated[Format, typer.Option("--format", help="How to write the table.")]
OutputOption = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; - is standard output.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]

#: Rows of a table that `text` shows; the other formats write all.
TEXT_ROWS: Final = 200


def write_table(frame: pl.DataFrame, form: Format, output: str = "-", force: bool = False, *, rows: int | None = None) -> None:
    """Write a table to a file or to standard output; raises Exists, Unusable. `rows`: of which `frame` is the beginning."""
    if output != "-":
        with written(writable(output, force)) as file:
            file.write(_encoded(frame, form, rows=rows))
        return
    if form in (Format.parquet, Format.arrow) and sys.stdout.isatty():
        raise Unusable(f"{form.value} is binary and not written to a terminal", hint="name a file with --output, or pipe it")
    sys.stdout.flush()
    sys.stdout.buffer.write(_encoded(frame, form, rows=rows))


def write_text(text: str, output: str = "-", force: bool = False) -> None:
    """Write lines to a file or to standard output; raises Exists, Unusable."""
    encoded = text.encode(errors="backslashreplace")
    if output != "-":
        with written(writable(output, force)) as file:
            file.write(encoded)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(encoded)


def write_frames(frames: Iterable[pl.DataFrame], rows: int, form: Format, output: str = "-", force: bool = False) -> None:
    """Write a table of `rows` rows that comes in pieces, of which there is at least one.

    As csv and jsonl it is written piece by piece, as text only its beginning is asked for. Raises as `write_table`.
    """
    import polars as pl

    if form not in (Format.csv, Format.jsonl):
        whole = pl.concat(frames) if form is not Format.text else next(iter(frames))
        write_table(whole, form, output, force, rows=rows)
        return
    sys.stdout.flush()
    with contextlib.nullcontext(sys.stdout.buffer) if output == "-" else written(writable(output, force)) as file:
        for number, frame in enumerate(frames):
            file.write(_encoded(frame, form, header=number == 0))


#: Device and inode of what this command reads.
_inputs: set[tuple[int, int]] = set()


def reads(name: str | None) -> None:
    """Remember a file that is read: no output may take its place."""
    if name and name != "-":
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(name)
            _inputs.add((found.st_dev, found.st_ino))


def forget() -> None:
    """The command is over, and what it read may be written again."""
    _inputs.clear()


def writable(name: str, force: bool) -> Path:
    """The path of a file that may be written.

    Raises:
        Exists: it is there, and may not be overwritten.
        Unusable: it is what is read, or its folder is missing.
    """
    path = Path(name)
    if path.exists():
        found = path.stat()
        if (found.st_dev, found.st_ino) in _inputs:
            raise Unusable(f"{name!r} is what is read, and would be lost", hint="name another file to write")
        if not force and path.is_file():
            raise Exists(name)
    if not path.parent.is_dir():
        raise Unusable(f"no folder {str(path.parent)!r} to write {path.name!r} to", hint="make it first")
    return path


@contextlib.contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, in its place only once all of it is written; a device or a pipe is written to as it is.

    Raises:
        OSError: it cannot be written; with the name of the file.
        Unusable: it is a folder.
    """
    from tracetool.export.files import whole

    if path.is_dir():
        raise Unusable(f"{str(path)!r} is a folder", hint="name a file")
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                yield device
        else:
            with whole(os.path.realpath(path)) as beside, open(beside, "xb") as file:
                yield file
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _encoded(frame: pl.DataFrame, form: Format, *, rows: int | None = None, header: bool = True) -> bytes:
    import io

    out = io.BytesIO()
    if form is Format.text:
        return _text(frame, rows).encode(errors="backslashreplace")
    if form is Format.csv:
        _flat(frame).write_csv(out, include_header=header)
    elif form is Format.jsonl:
        frame.write_ndjson(out)
    elif form is Format.json:
        frame.write_json(out)
        out.write(b"\n")
    elif form is Format.parquet:
        frame.write_parquet(out)
    else:
        frame.write_ipc(out)
    return out.getvalue()


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """CSV has no lists: they become JSON."""
    import polars as pl

    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    return frame.with_columns(
        pl.struct(name).struct.json_encode().str.strip_prefix(f'{{"{name}":').str.strip_suffix("}").alias(name) for name in lists
    )


def _text(frame: pl.DataFrame, rows: int | None) -> str:
    """Columns side by side, numbers to the right; foreign control characters as escapes."""
    from tracetool.foreign import printable

    shown = frame.head(TEXT_ROWS)
    columns = []
    for name, values in zip(shown.columns, shown.get_columns(), strict=True):
        cells = [name, *("" if v is None else printable(str(v)) for v in values.to_list())]
        width = max(map(len, cells))
        right = values.dtype.is_numeric()
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in cells])
    lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)] if columns else []
    rows = frame.height if rows is None else rows
    if rows > shown.height:
        lines.append(f"showing {shown.height} of {rows} rows; --format csv (jsonl, parquet, ...) writes all")
    return "\n".join(lines) + "\n"
