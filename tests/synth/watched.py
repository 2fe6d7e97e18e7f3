"""Makes a trace and keeps the machine's own rows of events, to compare with what others read in the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tracetool.synth import Made, Plan, synthesise
from tracetool.synth.events import EVENTS
from tracetool.synth.making import Version
from tracetool.synth.packing import Spools, Texts


@dataclass(frozen=True)
class Event:
    """One event as the machine meant it; numbers as the machine has them, texts as texts."""

    ts: int
    cpu: int
    tid: int
    name: str
    values: tuple[int | str, ...]


def watched(plan: Plan, path: Path, version: Version = "v7-zstd") -> tuple[Made, list[Event]]:
    """Make a trace; returns what was made, and every event in the order of (time, CPU), the lost ones, too."""
    events: list[Event] = []
    add = Spools.add

    def watching(self: Spools, rows: Any, number: int, texts: Texts, items: int) -> None:
        lines = [bytes(texts.data[a:b]).decode() for a, b in zip(texts.first[:-1], texts.first[1:], strict=True)]
        events.extend(_event(row, lines) for row in np.asarray(rows)[:number].tolist())
        add(self, rows, number, texts, items)

    with mock.patch.object(Spools, "add", watching):
        made = synthesise(plan, path, version)
    # Those that run beside each other come one after the other from the machine.
    return made, sorted(events, key=lambda event: (event.ts, event.cpu))


def _event(row: list[int], texts: list[str]) -> Event:
    kind, cpu, tid, ts, *arguments = row
    event = EVENTS[kind]
    own = [field for field in event.fields if "=" not in field]
    given = [field.partition("=")[2] for field in event.fields]
    values = iter(texts[value] if "char" in field else value for field, value in zip(own, arguments, strict=False))
    return Event(ts, cpu, tid, event.name, tuple(int(fixed) if fixed else next(values) for fixed in given))


def names_of(event: Event) -> list[str]:
    """The names of an event's fields, in the order of `values`."""
    [found] = [each for each in EVENTS.values() if each.name == event.name]
    return [field.partition("=")[0].split()[-1].partition("[")[0] for field in found.fields]
