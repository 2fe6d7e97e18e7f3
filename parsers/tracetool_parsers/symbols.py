"""The texts of a trace.dat that are read only when they are asked for: kernel symbols, printk formats, what a latency tracer left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from .codec import unpack, unpack_section
from .cursor import Cursor, text
from .errors import ParseError
from .streams import MOST_PAGES_IN_CHUNK
from .tracedat import Block, Recording, TextBlock

SYMBOLS: Final = pa.schema(
    [pa.field("address", pa.uint64()), pa.field("type", pa.string()), pa.field("name", pa.string()), pa.field("module", pa.string())]
)
PRINTK: Final = pa.schema([pa.field("address", pa.uint64()), pa.field("format", pa.string())])

#: /proc/kallsyms: address, type, name and, after a tab, the module in brackets.
_SYMBOL: Final = r"^(?P<address>[0-9a-fA-F]{1,16}) (?P<type>\S) (?P<name>\S+)(?:\s+\[(?P<module>[^\]]*)\])?\s*$"
#: tracefs printk_formats: address and the format as C writes it.
_FORMAT: Final = r'^0x(?P<address>[0-9a-fA-F]{1,16}) : "(?P<format>.*)"\s*$'
#: Bytes of text that are taken apart at a time.
_PIECE: Final = 1 << 20


def kallsyms(data: memoryview, recording: Recording, path: str) -> pa.Table:
    """The kernel's symbols as recorded, in the order of the file: the table of `SYMBOLS`; `module` is null for the kernel itself.

    Raises:
        ParseError: the section is damaged.
    """
    return _table(_contents(data, recording, recording.kallsyms, path), _SYMBOL, SYMBOLS)


def printk_formats(data: memoryview, recording: Recording, path: str) -> pa.Table:
    """The formats that trace_printk events name by address: the table of `PRINTK`; escapes stay as the kernel writes them.

    Raises:
        ParseError: the section is damaged.
    """
    return _table(_contents(data, recording, recording.printk, path), _FORMAT, PRINTK)


def text_of(data: memoryview, recording: Recording, block: TextBlock, path: str) -> bytes:
    """The text that a latency tracer left, as far as the file has it whole."""
    if not block.packed:
        return bytes(data[block.offset : block.offset + block.size])
    cursor = Cursor(data, path, at=block.offset, end=block.offset + block.size, order=recording.order)
    most = MOST_PAGES_IN_CHUNK * max(recording.preamble.page_size, 4096)
    whole = []
    try:
        for _ in range(cursor.u32("number of chunks")):
            at, packed_size, size = cursor.at, cursor.u32("packed size of a chunk"), cursor.u32("size of a chunk")
            packed = cursor.take(packed_size if 0 < size <= most else -1, "chunk")
            whole.append(unpack(recording.preamble.codec, packed, size, path=path, offset=at))
    except ParseError:
        # What is whole is text, too; a text that ends early shows it by its last line.
        pass
    return b"".join(whole)


def _contents(data: memoryview, recording: Recording, block: Block | None, path: str) -> memoryview:
    if block is None:
        return memoryview(b"")
    cursor = Cursor(data, path, at=block.offset, end=block.offset + block.size, order=recording.order)
    if block.packed:
        unpacked = unpack_section(recording.preamble.codec, cursor, cursor.end)
        cursor = Cursor(unpacked, path, order=recording.order, unpacked_from=block.offset)
    # In version 7 the block is a section, which has the length of the text before it; in version 6 it is the text.
    return cursor.sized(4, "text") if recording.preamble.version == 7 else cursor.rest()


def _table(block: memoryview, pattern: str, schema: pa.Schema) -> pa.Table:
    """The lines that match, as a table; addresses out of hexadecimal digits."""
    pieces = [_rows(lines, pattern, schema) for lines in _pieces(block)]
    return pa.concat_tables(pieces) if pieces else schema.empty_table()


def _rows(lines: str, pattern: str, schema: pa.Schema) -> pa.Table:
    found = pc.extract_regex(pa.array(lines.split("\n"), pa.string()), pattern).drop_null()
    columns = {name: found.field(name) for name in schema.names}
    columns["address"] = pc.binary_join_element_wise("0x", columns["address"], "").cast(pa.uint64())
    if "module" in columns:
        columns["module"] = pc.replace_with_mask(columns["module"], pc.equal(columns["module"], ""), pa.scalar(None, pa.string()))
    return pa.table(columns, schema)


def _pieces(block: memoryview) -> Iterator[str]:
    """The text in pieces of whole lines."""
    at = 0
    while at < len(block):
        piece = bytes(block[at : at + _PIECE])
        end = piece.rfind(b"\n") + 1 if at + _PIECE < len(block) else len(piece)
        piece = piece[: end or len(piece)]
        at += len(piece)
        yield text(piece)
