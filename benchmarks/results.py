"""What a run of the benchmarks found: figures, and what they were taken on. `results.json` is this and nothing else."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured.

    Attributes:
        part: "read", "replay" or "first use".
        what: what was done.
        seconds: how long each run took.
        events: how many events went in, None where the figure is not about events.
        size: bytes of the trace that were read, None where no file was.
        max_anon: greatest RssAnon in bytes (memory of its own), None where it was not looked at.
        max_rss: greatest resident set in bytes (with pages of the trace itself), None as before.
    """

    part: str
    what: str
    seconds: list[float]
    events: int | None = None
    size: int | None = None
    max_anon: int | None = None
    max_rss: int | None = None

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Results:
    """All figures of one run.

    Attributes:
        machine: CPU model, cores, load when the run began, versions, date.
        trace: what the large trace was made of: recording, rounds, events, bytes.
        figures: in the order of a table; the first one of "read" is this library, the others of that part are peers.
        left_out: what could not be measured, and why.
    """

    machine: dict[str, Any]
    trace: dict[str, Any]
    figures: list[Figure]
    left_out: list[str]

    def to_json(self) -> str:
        """As the text of `results.json`; times are rounded to a microsecond."""
        plain = asdict(self)
        for figure in plain["figures"]:
            figure["seconds"] = [round(seconds, 6) for seconds in figure["seconds"]]
        return json.dumps(plain, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """From the text of `results.json`."""
        plain = json.loads(text)
        return cls(plain["machine"], plain["trace"], [Figure(**figure) for figure in plain["figures"]], plain["left_out"])
