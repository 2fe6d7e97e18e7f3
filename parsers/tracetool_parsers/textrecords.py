"""Records of perf that are no samples, as `perf script --show-task-events --show-mmap-events...` prints them.

Linux, tools/perf/util/event.c: `perf_event__fprintf_mmap`, `_mmap2`, `_comm`, `_task`, `_namespaces`, and those beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from .eventformat import HEADER_COLUMNS, Field


@dataclass(frozen=True, slots=True)
class Template:
    """How the text of a record is made.

    Attributes:
        pattern: a regular expression (RE2) with a group for each field.
        fields: in the order of the groups.
    """

    pattern: str
    fields: tuple[Field, ...]


def _template(pattern: str, **types: str) -> Template:
    fields = []
    for number, (name, kind) in enumerate(types.items()):
        column = f"{name}_field" if name in HEADER_COLUMNS else name
        text = kind == "text"
        fields.append(
            Field(name, column, "char" if text else kind, number, 0 if text else 8, kind == "s64", "rest" if text else "here", int(text))
        )
    return Template(pattern, tuple(fields))


_TASK: Final = r"^\((?P<pid>-?\d+):(?P<tid>-?\d+)\):\((?P<ppid>-?\d+):(?P<ptid>-?\d+)\)"
_AREA: Final = r"^(?P<pid>-?\d+)/(?P<tid>-?\d+): \[(?P<addr>0x[0-9a-f]+|0)\((?P<len>0x[0-9a-f]+|0)\) @ (?P<pgoff>0x[0-9a-f]+|0)"
_LOST: Final = r"lost (?P<lost>\d+)"
_IDS: Final = {"pid": "s64", "tid": "s64"}
_RANGE: Final = {"addr": "u64", "len": "u64", "pgoff": "u64"}

#: The records that are read into fields; of others the text is the field `args`.
RECORDS: Final = {
    "mmap": _template(_AREA + r"\]: (?P<prot>\S) (?P<filename>(?s:.*))", **_IDS, **_RANGE, prot="text", filename="text"),
    "mmap2": _template(
        _AREA + r"(?: (?P<maj>[0-9a-f]{2,}):(?P<min>[0-9a-f]{2,}) (?P<ino>\d+) (?P<ino_generation>\d+)| <(?P<build_id>[0-9a-f]*)>)\]:"
        r" (?P<prot>\S{4}) (?P<filename>(?s:.*))",
        **_IDS,
        **_RANGE,
        maj="hex",
        min="hex",
        ino="u64",
        ino_generation="u64",
        build_id="text",
        prot="text",
        filename="text",
    ),
    "comm": _template(r"^(?P<exec>(?:exec)?): (?P<comm>(?s:.*)):(?P<pid>-?\d+)/(?P<tid>-?\d+)$", exec="flag", comm="text", **_IDS),
    "fork": _template(_TASK, **_IDS, ppid="s64", ptid="s64"),
    "exit": _template(_TASK, **_IDS, ppid="s64", ptid="s64"),
    "lost": _template(_LOST, lost="u64"),
    "lost_samples": _template(_LOST, lost="u64"),
}


def extracted(texts: pa.Array | pa.ChunkedArray, template: Template, fields: Sequence[Field]) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Columns of the fields of a record, out of its text; null where the text is not made so."""
    found = pc.extract_regex(texts, template.pattern)
    return {field.column: _typed(pc.struct_field(found, field.name), field) for field in fields}


def _typed(texts: Any, field: Field) -> Any:
    if field.type == "char":
        return texts
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    made = [
        pa.array([_number(text, field.type) for text in chunk.to_pylist()], pa.int64() if field.signed else pa.uint64()) for chunk in chunks
    ]
    return pa.chunked_array(made, made[0].type if made else pa.uint64())


def _number(text: str | None, kind: str) -> int | None:
    if text is None or (kind != "flag" and not text):
        return None
    number = int(bool(text)) if kind == "flag" else int(text, 16 if kind == "hex" or text.startswith("0x") else 10)
    return number if -(1 << 63) <= number < (1 << (64 if kind != "s64" else 63)) else None
