"""What a run of the benchmarks found: figures, and what they were taken on. `results.json` is this and nothing else."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Speed:
    """How a figure compares: `times` as fast as `than`, of which at least `target` are wanted (None: no number is)."""

    than: str
    times: float
    target: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is as fast as it is wanted to be."""
        return self.target is None or self.times >= self.target


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured.

    Attributes:
        part: "read", "kind", "metadata", "memory", "perf", "text", "replay", "synth" or "first use".
        what: what was done.
        seconds: how long each run took.
        events: how many events went in, None where the figure is not about events.
        size: bytes of the trace that were read, None where no file was.
        max_anon: greatest RssAnon in bytes (memory of its own), None where it was not looked at.
        max_rss: greatest resident set in bytes (with pages of the trace itself), None as before.
        bound: the most bytes that RssAnon may be, None where there is no bound.
        against: how it compares with others of the same run.
    """

    part: str
    what: str
    seconds: list[float]
    events: int | None = None
    size: int | None = None
    max_anon: int | None = None
    max_rss: int | None = None
    bound: int | None = None
    against: tuple[Speed, ...] = ()

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Results:
    """All figures of one run.

    Attributes:
        machine: CPU model, cores, load when the run began, versions, date.
        traces: what the large traces were made of: recording, form, rounds, events, bytes.
        figures: in the order of a table.
        left_out: what could not be measured, and why.
    """

    machine: dict[str, Any]
    traces: list[dict[str, Any]]
    figures: list[Figure]
    left_out: list[str]

    def to_json(self) -> str:
        """As the text of `results.json`; times are rounded to a microsecond, comparisons to a thousandth."""
        plain = asdict(self)
        for figure in plain["figures"]:
            figure["seconds"] = [round(seconds, 6) for seconds in figure["seconds"]]
            for speed in figure["against"]:
                speed["times"] = round(speed["times"], 3)
        return json.dumps(plain, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """From the text of `results.json`."""
        plain = json.loads(text)
        figures = [Figure(**figure | {"against": tuple(Speed(**speed) for speed in figure["against"])}) for figure in plain["figures"]]
        return cls(plain["machine"], plain["traces"], figures, plain["left_out"])
