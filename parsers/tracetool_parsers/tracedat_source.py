"""A trace.dat as a Source: from where the event data lie to tables, counts and losses."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .errors import ParseError, UnknownEvent
from .eventformat import EventFormat, Field, common_layout
from .losses import losses_table, ring_losses
from .metadata import Metadata
from .reading import Fix, Request, read
from .ringbuffer import EVENTS, FLAGGED, SOURCES, UNWANTED, Layout
from .source import Source, Wrapped
from .streams import streams_of
from .survey import Survey, survey
from .tables import HEADER_TYPES, CommNames, Table, Tables, table_of, type_of
from .tracedat import Buffer, Recording, read_recording

#: Below this many bytes of event data a survey first costs nothing that anybody sees, and tables come in one piece.
_SMALL: Final = 1 << 23
#: Bytes of a sample, and from how many places of the data they are taken.
_SAMPLE: Final = 1 << 20
_PIECES: Final = 4


def open_trace_dat(
    data: memoryview, path: str, *, buffers: Sequence[str] | None = None, strict: bool = False, threads: int | None = None
) -> Source:
    """The events of a trace.dat, or the text that a latency tracer left in it; arguments and errors as of `TraceDat`."""
    trace = TraceDat(data, path, buffers=buffers, strict=strict, threads=threads)
    return trace.latency(path, strict=strict) if trace.is_latency else trace


class Latency(Wrapped):
    """The events of the text that a latency tracer left in a trace.dat."""

    def __init__(self, text: Source, metadata: Metadata) -> None:
        super().__init__(text)
        self._metadata = metadata

    @property
    def metadata(self) -> Metadata:
        """That of the file, with what the text says of itself."""
        own, said = self._metadata, super().metadata
        return replace(own, format=f"{own.format}, text of a latency tracer", cpus=own.cpus or said.cpus, notes=(*own.notes, *said.notes))


class TraceDat(Source):
    """The events of a trace.dat."""

    def __init__(
        self, data: memoryview, path: str, *, buffers: Sequence[str] | None = None, strict: bool = False, threads: int | None = None
    ) -> None:
        """Read the metadata.

        Args:
            data: the file.
            path: for messages.
            buffers: the ring buffer instances to read, None for all.
            strict: whether damage of the event data is an error; then they are looked at at once.
            threads: how many to read with; None: one a core.

        Raises:
            ParseError: the metadata are damaged; with `strict`, also the event data.
            UnknownEvent: there is no buffer of such a name.
        """
        self._data = data
        self._recording = recording = read_recording(data, path)
        self._buffers = _chosen(recording, buffers, path)
        self._metadata = _metadata(recording, path)
        self._common = common_layout(recording.formats, path=path)
        self._layout = Layout.of(self._common, recording.long_size, recording.order)
        self._streams = streams_of(data, self._buffers, recording.preamble.codec, recording.order, path)
        self._threads = threads or os.cpu_count() or 1
        if strict:
            damage = [(offset, what) for offset, what in recording.damage] or [(gap.offset, gap.source) for gap in self._damage]
            if damage:
                offset, what = damage[0]
                hint = "without strict, what is whole is read and the rest is listed as lost"
                raise ParseError(what, path=path, offset=offset, hint=hint)

    @property
    def is_latency(self) -> bool:
        """Whether it holds text and no event data."""
        return bool(self._recording.text) and not self._streams

    def latency(self, path: str, *, strict: bool) -> Source:
        """The text as a trace; that of the first buffer that has any."""
        # Readers of text take long to import, and hardly any trace.dat has one.
        from .ftracetext import open_ftrace_text
        from .symbols import text_of

        texts = [text_of(self._data, self._recording, block, path) for block in self._recording.text]
        first = next((text for text in texts if text.strip()), b"")
        return Latency(open_ftrace_text(memoryview(first), path, strict=strict), self._metadata)

    @property
    def metadata(self) -> Metadata:
        """What the trace says of itself; with damage, once the survey was made."""
        if "_survey" not in self.__dict__:
            return self._metadata
        # Of what is damaged in one chunk, which has one place, one note is enough.
        notes = dict.fromkeys(f"{gap.source}: CPU {self._streams[gap.stream].cpu} at byte {gap.offset}" for gap in self._damage)
        return replace(self._metadata, notes=(*self._metadata.notes, *notes))

    @property
    def formats(self) -> Sequence[EventFormat]:
        """Every event that the file has a format of."""
        return self._recording.formats

    @functools.cached_property
    def losses(self) -> pa.Table:
        """What was lost."""
        names = {buffer.name for buffer in self._buffers}
        stats = [stat for stat in self._recording.stats if stat.buffer in names]
        start = self._survey.span[0] if self._survey.span else None
        return losses_table(ring_losses(self._survey.gaps, self._streams, stats, start))

    def counts(self) -> Mapping[int, int]:
        """How often each event occurs."""
        counts = self._survey.counts
        return {number: int(counts[number]) for number in np.flatnonzero(counts).tolist()}

    def span(self) -> tuple[int, int] | None:
        """The least and the greatest time (ns)."""
        return self._survey.span

    def read(self, asked: Mapping[int, Sequence[Field]], *, positions: bool = False) -> dict[int, pa.Table]:
        """The tables of some events."""
        return self._read(asked, self._counts_about(), positions=positions)[0]

    def read_all(self, *, positions: bool = False) -> dict[int, pa.Table]:
        """The tables of all events that occur: of those that a sample of the data has, then of those that were met on the way."""
        shown = {event.id: event.shown for event in self.formats}
        if positions:
            return self.read({number: shown.get(number, ()) for number in self.counts()}, positions=True)
        about = self._counts_about()
        some, counts = self._read({number: shown.get(number, ()) for number in np.flatnonzero(about).tolist()}, about)
        met = [number for number in np.flatnonzero(counts).tolist() if number not in some]
        others, _ = self._read({number: shown.get(number, ()) for number in met}, counts) if met else ({}, None)
        return {number: table for number, table in (some | others).items() if table.num_rows}

    def timeline(self) -> pa.Table:
        """All events: time, CPU, thread and which."""
        kind = Field("common_type", "event", "unsigned short", self._common.type_at, 2, False, "here", 0)
        about = self._counts_about()
        (table,) = self._tables(np.zeros(EVENTS, np.int32), [Table((kind,))], (int(about.sum()),), positions=False)[0]
        return table.select(["ts", "cpu", "tid"]).append_column("event", table.column("event").cast(pa.int32()))

    def _read(
        self, asked: Mapping[int, Sequence[Field]], about: npt.NDArray[Any], *, positions: bool = False
    ) -> tuple[dict[int, pa.Table], npt.NDArray[Any]]:
        """The tables of some events, of which there are about so many, and how often each event was seen."""
        groups = np.full(EVENTS, UNWANTED, np.int32)
        groups[list(asked)] = np.arange(len(asked), dtype=np.int32)
        rows = tuple(about[list(asked)].tolist())
        made, counts = self._tables(groups, [Table(tuple(fields)) for fields in asked.values()], rows, positions=positions)
        return dict(zip(asked, made, strict=True)), counts

    def _tables(
        self, groups: npt.NDArray[Any], tables: Sequence[Table], rows: tuple[int, ...], *, positions: bool
    ) -> tuple[list[pa.Table], npt.NDArray[Any]]:
        names = list(dict.fromkeys(stream.buffer for stream in self._streams))
        swapped = bool(self._layout.swapped)
        wanted = tuple(table.wanted for table in tables)
        places = self._common.pid_at, wanted, groups, rows, positions, self._fix
        request = Request(self._data, self._streams, self._layout, *places)
        parts, counts = read(request, lambda: Tables(tables, self._comm, names, swapped=swapped), self._threads)
        around = ["ts", "cpu", "tid", "comm", *(["buffer"] if len(names) > 1 else [])], ["position"] if positions else []
        first, last = ({name: HEADER_TYPES[name] for name in some} for some in around)
        made = [
            table_of(parts, number, first | {field.column: type_of(field) for field in table.fields} | last)
            for number, table in enumerate(tables)
        ]
        return made, counts

    def _counts_about(self) -> npt.NDArray[Any]:
        """How often each event occurs: as it is where that is known or cheap to know, else by a sample."""
        if "_survey" in self.__dict__ or sum(stream.bytes for stream in self._streams) < _SMALL:
            return self._survey.counts
        return self._sampled

    @functools.cached_property
    def _sampled(self) -> npt.NDArray[Any]:
        """How often each event occurs, at most, if all is like what lies here and there in the data of each CPU."""
        size = sum(stream.bytes for stream in self._streams)
        pieces, size_of_each = _PIECES // len(self._streams), _SAMPLE // len(self._streams)
        sample = [piece for stream in self._streams for piece in stream.spread(pieces, size_of_each)]
        sampled = sum(stream.bytes for stream in sample)
        counts = survey(self._data, sample, self._layout, None, 1).counts
        # Room that is not used costs nothing; where a table has none left, all are taken as they are and begun again.
        room: npt.NDArray[Any] = np.ceil((counts * 1.25 + 4 * np.sqrt(counts)) * (size / sampled)).astype(np.int64)
        return room

    @property
    def _fix(self) -> Fix | None:
        times = self._recording.times
        if times.trivial:
            return None
        return lambda ticks, stream: times.apply(ticks, stream.cpu, top=stream.buffer == "")

    @functools.cached_property
    def _survey(self) -> Survey:
        return survey(self._data, self._streams, self._layout, self._fix, self._threads)

    @functools.cached_property
    def _damage(self) -> list[Any]:
        return [gap for gap in self._survey.gaps if gap.source != SOURCES[FLAGGED]]

    @functools.cached_property
    def _comm(self) -> CommNames:
        return CommNames.of(self._metadata.cmdlines)


def _chosen(recording: Recording, names: Sequence[str] | None, path: str) -> tuple[Buffer, ...]:
    if names is None:
        return recording.buffers
    known = {buffer.name for buffer in recording.buffers}
    for name in names:
        if name not in known:
            raise UnknownEvent.among("buffer", name, known, path=path)
    return tuple(buffer for buffer in recording.buffers if buffer.name in names)


def _metadata(recording: Recording, path: str) -> Metadata:
    uname = recording.uname.split() if recording.uname else []
    return Metadata(
        path=path,
        format=f"trace.dat v{recording.preamble.version}",
        # "Linux HOST RELEASE MACHINE", and a host name may be empty but holds no spaces.
        kernel=uname[-2] if len(uname) >= 3 else None,
        uname=recording.uname,
        clock=recording.clock,
        cpus=recording.cpus,
        codec=recording.preamble.codec,
        page_size=recording.buffers[0].page_size if recording.buffers else recording.preamble.page_size,
        writer=f"trace-cmd {recording.writer}" if recording.writer else None,
        buffers=tuple(buffer.name for buffer in recording.buffers),
        cmdlines=recording.cmdlines,
        notes=recording.notes,
        maps=recording.procmaps,
        details=_details(recording),
    )


def _details(recording: Recording) -> dict[str, str]:
    """What else the options say."""
    guests = (f"{guest.name or 'unnamed'} ({len(guest.vcpus)} CPUs)" for guest in recording.guests)
    found = {
        "byte order": recording.order,
        "kernel": f"{recording.long_size * 8}-bit",
        "trace id": f"{recording.trace_id:#x}" if recording.trace_id else "",
        "guests": ", ".join(guests),
        "memory maps": ", ".join(f"{maps.name} ({maps.pid})" for maps in recording.procmaps[:8]),
        "hooks": ", ".join(recording.hooks),
        "last boot": ", ".join(f"{name} {value}" for name, value in (recording.last_boot or {}).items()),
    }
    return {name: text for name, text in found.items() if text}
