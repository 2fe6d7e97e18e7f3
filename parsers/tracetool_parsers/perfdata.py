"""A perf.data as a Source: files, what was piped, directories; either byte order; compressed or not."""

from __future__ import annotations

import functools
import mmap
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import ParseError, TraceError
from .eventformat import EventFormat, Field
from .metadata import Metadata
from .perfattrs import Attr
from .perfevents import Event, events_of, record_event, record_number
from .perfheader import Header, Mode, read_header
from .perflosses import Lost, losses_of
from .perfnames import Names
from .perfrecords import COMM, EARLIEST, FORK, LATEST, LOST, LOST_SAMPLES, RECORD_TYPES, Ids, Layouts, Queue
from .perfrows import Emission
from .perfstream import Records, records_of
from .perftables import Layout, Table
from .perfwalk import Walk
from .source import Source

Array = npt.NDArray[Any]

_NO_FORMATS: Final = "the file has no formats of its tracepoints: their own fields are not known"


def open_perf_data(data: memoryview, path: str, *, strict: bool) -> PerfData:
    """A perf.data whose bytes are `data`; a pipe's is told from a file's by its header.

    Raises:
        ParseError: its header, attributes or event formats are damaged; with `strict`, also its records.
    """
    header = read_header(data, path)
    return PerfData(header, [(data, header.begin, header.end)], path, strict=strict)


def open_perf_directory(path: str, *, strict: bool) -> PerfData:
    """A directory as `perf record --threads` writes it: a file `data` with the header, and `data.N` with records alone.

    Source: Linux, tools/perf/util/data.c (`perf_data__open_dir`), session.c (`__perf_session__process_dir_events`).

    Raises:
        TraceError: a file cannot be read.
        ParseError: as `open_perf_data`.
    """
    header = replace(read_header(_mapped(os.path.join(path, "data")), path), mode="directory")
    parts = [(_mapped(os.path.join(path, "data")), header.begin, header.end)]
    numbered = [name for name in os.listdir(path) if re.fullmatch(r"data\.\d{1,9}", name)]
    for name in sorted(numbered, key=lambda name: int(name[5:])):
        if os.path.getsize(os.path.join(path, name)):
            data = _mapped(os.path.join(path, name))
            parts.append((data, 0, len(data)))
    return PerfData(header, parts, path, strict=strict)


def _mapped(path: str) -> memoryview:
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise TraceError(f"cannot be mapped: {error}", path=path, hint="copy the directory to a local disk") from error


@dataclass(frozen=True, slots=True)
class Survey:
    """What one way through all records told.

    Attributes:
        walk: the way, with its counts.
        names: of threads.
        losses: the table of `losses.SCHEMA`.
        notes: what is damaged, with its byte.
    """

    walk: Walk
    names: Names
    losses: pa.Table
    notes: tuple[str, ...]


class PerfData(Source):
    """The events of a perf.data: a `Source`.

    Tables have the columns `ts` (0 for what has no time), `cpu` (-1 where it is not recorded), `tid`, `comm` (the name at that time, as
    `perf script` prints it), `tgid` (the process), and where it is recorded `callchain`; then the event's own fields.
    """

    def __init__(self, header: Header, parts: Sequence[tuple[memoryview, int, int]], path: str, *, strict: bool) -> None:
        if not header.attrs:
            raise ParseError("no event is described", path=path, offset=header.begin, hint="the file is cut off or damaged")
        self._header, self._parts, self._path, self._strict = header, parts, path, strict
        _check_ids(header.attrs, path)
        events = events_of(header.attrs, header.formats)
        self._events = {event.format.id: event for event in events}
        self._formats = tuple(event.format for event in events)
        self._layouts = Layouts.of(header.attrs, header.order)
        self._ids = Ids.of(header.attrs)
        if strict:
            _ = self._survey

    @property
    def metadata(self) -> Metadata:
        """What the file says of itself."""
        notes = self._survey.notes if "_survey" in self.__dict__ else ()
        return _metadata(self._header, self._path, notes)

    @property
    def formats(self) -> Sequence[EventFormat]:
        """The recorded events, and the records of the kernel as events of `perf`."""
        return self._formats

    @property
    def losses(self) -> pa.Table:
        """What was lost or is damaged."""
        return self._survey.losses

    def counts(self) -> Mapping[int, int]:
        """How often each event occurs."""
        counts = self._survey.walk.counts
        known = {event.format.id: int(counts[list(event.sources)].sum()) for event in self._events.values()}
        others = {record_number(kind): int(counts[len(self._header.attrs) + kind]) for kind in range(RECORD_TYPES)}
        return {number: count for number, count in (others | known).items() if count}

    def span(self) -> tuple[int, int] | None:
        """The least and the greatest time (ns) of what has one."""
        state = self._survey.walk.state
        return (int(state[EARLIEST]), int(state[LATEST])) if state[LATEST] else None

    def read(self, asked: Mapping[int, Sequence[Field]], *, positions: bool = False) -> dict[int, pa.Table]:
        """The tables of some events, in the order in which `perf script` delivers them."""
        survey, emission = self._survey, self._emission()
        tables = [self._table(number, fields, survey.walk.counts, survey.walk) for number, fields in asked.items()]
        layout = Layout(tables, self._header.attrs, positions=positions)
        if any(table.rows for table in tables):
            keep = (layout.plan.tables >= 0) | positions
            keep[[len(self._header.attrs) + COMM, len(self._header.attrs) + FORK]] = True
            Walk(
                self._records,
                self._layouts,
                self._ids,
                keep.astype(np.int64),
                lambda order, queue: emission.emit(order, queue, layout.plan, layout.columns),
            ).run()
        return dict(zip(asked, self._made(layout, survey.names), strict=True))

    def read_all(self, *, positions: bool = False) -> dict[int, pa.Table]:
        """The tables of all events that occur, as `read`; in one go where nothing was asked before."""
        if "_survey" in self.__dict__:
            return super().read_all(positions=positions)
        attrs, emission = self._header.attrs, self._emission()
        events = self._by_source()
        made: dict[int, list[pa.Table]] = {}

        def deliver(order: Array, sources: Array, queue: Queue, walk: Walk, names: Names) -> None:
            counts = np.bincount(sources, minlength=len(events))
            met = {events[source].format.id: events[source].format.shown for source in np.flatnonzero(counts).tolist()}
            # More may have been scanned than is delivered: no body is shorter than the shortest of all that was.
            tables = [self._table(number, fields, counts, walk) for number, fields in met.items()]
            layout = Layout(tables, attrs, positions=positions)
            emission.emit(order, queue, layout.plan, layout.columns)
            for number, table in zip(met, self._made(layout, names), strict=True):
                made.setdefault(number, []).append(table)

        self.__dict__["_survey"] = self._looked_through(deliver)
        return {number: pa.concat_tables(tables) for number, tables in made.items()}

    def _emission(self) -> Emission:
        return Emission(self._records.words, self._layouts, self._ids)

    def _table(self, number: int, fields: Sequence[Field], counts: Array, walk: Walk) -> Table:
        event = self._event(number)
        sources = list(event.sources)
        return Table(event, fields, int(counts[sources].sum()), int(walk.shortest[sources].min()))

    def _made(self, layout: Layout, names: Names) -> list[pa.Table]:
        columns = layout.columns
        header = {
            "ts": pa.array(columns.times),
            "cpu": pa.array(columns.cpus),
            "tid": pa.array(columns.tids),
            "comm": names.column(columns.names, columns.about),
            "tgid": pa.array(columns.pids),
        }
        return layout.tables(self._records.words, header, swapped=bool(self._layouts.swapped))

    def timeline(self) -> pa.Table:
        """All events: time, CPU, thread and which."""
        order = [number for number, count in self.counts().items() if count]
        tables = self.read(dict.fromkeys(order, ()), positions=True)
        places = np.concatenate([np.zeros(0, np.int64), *(table["position"].to_numpy() for table in tables.values())])
        rows = {
            "ts": [table["ts"].to_numpy() for table in tables.values()],
            "cpu": [table["cpu"].to_numpy() for table in tables.values()],
            "tid": [table["tid"].to_numpy() for table in tables.values()],
            "event": [np.full(table.num_rows, number, np.int32) for number, table in tables.items()],
        }
        made = {}
        for name, parts in rows.items():
            values = np.concatenate([np.zeros(0, np.int64 if name == "ts" else np.int32), *parts])
            ordered = np.empty_like(values)
            ordered[places] = values
            made[name] = pa.array(ordered)
        return pa.table(made)

    def _event(self, number: int) -> Event:
        kind = number - record_number(0)
        if number not in self._events and 0 <= kind < RECORD_TYPES:
            return record_event(len(self._header.attrs), kind)
        return self._events[number]

    def _by_source(self) -> list[Event]:
        """The event of each source."""
        attrs = len(self._header.attrs)
        known = {source: event for event in self._events.values() for source in event.sources}
        return [known[source] if source in known else record_event(attrs, source - attrs) for source in range(attrs + RECORD_TYPES)]

    @functools.cached_property
    def _records(self) -> Records:
        header = self._header
        packed = header.compressed or not header.finished or header.mode == "pipe"
        return records_of(self._parts, header.order, self._path, packed=packed)

    @functools.cached_property
    def _survey(self) -> Survey:
        return self._looked_through(None)

    def _looked_through(self, also: Callable[[Array, Array, Queue, Walk, Names], None] | None) -> Survey:
        """Go through all records for what concerns all questions; `also` takes them, too.

        Raises:
            ParseError: they are damaged, and that is to be an error.
        """
        records, attrs = self._records, len(self._header.attrs)
        told = np.zeros(attrs + RECORD_TYPES, np.bool_)
        told[[attrs + COMM, attrs + LOST, attrs + LOST_SAMPLES]] = True
        names = Names()
        lost: list[Lost] = []

        def collect(order: Array, queue: Queue) -> None:
            sources = queue.sources[order]
            rows = order[told[sources]]
            named = queue.sources[rows] == attrs + COMM
            names.add(records.words, queue.notes[rows[named]], queue.starts[rows[named]], swapped=bool(self._layouts.swapped))
            others = rows[~named]
            types = queue.sources[others].astype(np.int64) - attrs
            lost.append(Lost(queue.starts[others], types, queue.cpus[others], queue.times[others], queue.notes[others]))
            if also is not None:
                also(order, sources, queue, walk, names)

        keep = (told | (also is not None)).astype(np.int64)
        walk = Walk(records, self._layouts, self._ids, keep, collect)
        walk.run()
        if self._strict:
            self._refuse_damage(walk)
        where = "" if records.in_file else " of the unpacked records"
        notes = [f"{gap.source} at byte {4 * gap.word}{where}" for gap in walk.gaps if gap.word >= 0]
        notes += [f"{source} at byte {at}" for source, at in records.damage]
        return Survey(walk, names, losses_of(walk, lost, finished=self._header.finished), tuple(notes))

    def _refuse_damage(self, walk: Walk) -> None:
        damage = [*self._records.damage, *((gap.source, 4 * gap.word) for gap in walk.gaps if gap.word >= 0)]
        if damage:
            source, at = damage[0]
            hint = "without strict, what is whole is read and the rest is listed as lost"
            raise ParseError(source, path=self._path, offset=at, hint=hint)


def _check_ids(attrs: Sequence[Attr], path: str) -> None:
    """Records of several events must say at one place which event they are of (tools/perf/util/evlist.c, `evlist__valid_sample_type`).

    Raises:
        ParseError: they do not.
    """
    if len(attrs) > 1 and (attrs[0].id_in_sample < 0 or len({(attr.id_in_sample, attr.id_from_end) for attr in attrs}) > 1):
        hint = "record with `perf record`, which adds an identifier"
        raise ParseError("samples of several events do not say which event they are of", path=path, hint=hint)


def _metadata(header: Header, path: str, notes: tuple[str, ...]) -> Metadata:
    details = dict(header.details)
    release = details.get("release")
    known = [details[name] for name in ("hostname", "release", "machine") if name in details]
    cpus = details.get("CPUs available", "0")
    writer = details.get("perf version")
    if not header.formats and any(attr.type == 2 for attr in header.attrs):
        notes = (*notes, _NO_FORMATS)
    modes: Mapping[Mode, str] = {"file": "perf.data", "pipe": "perf.data (pipe)", "directory": "perf.data (directory)"}
    return Metadata(
        path=path,
        format=modes[header.mode],
        kernel=release,
        uname=" ".join(("Linux", *known)) if len(known) == 3 else None,
        # Without a clock of its own a sample has perf's, which tracefs calls `perf`: Linux, kernel/events/core.c, `perf_event_clock`.
        clock=header.attrs[0].clock or "perf",
        cpus=int(cpus),
        codec="zstd" if header.compressed else "none",
        writer=f"perf {writer}" if writer else None,
        notes=(*header.notes, *notes),
        details=details,
    )
