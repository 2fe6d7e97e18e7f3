"""An analysis that can be given away: names, paths, page frames and kernel addresses replaced, everything else as it was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tracetool.analysis import Analysis, Coverage, Story, TraceInfo

if TYPE_CHECKING:
    import polars as pl

_FRAME: Final = re.compile(r"\b(frame|pfn)([ =:]*)(0x[0-9a-fA-F]+|\d+)\b")
_HEXADECIMAL: Final = re.compile(r"\b0x[0-9a-fA-F]+\b")
# A path has a slash at its start, or between two names; "get/pin" in a sentence is lost too, which costs less than a name that stays.
_PATH: Final = re.compile(r"(?<![\w<])(?:~|\.{1,2})?(?:/[^\s,;:()'\"]+)+|\b[\w.-]+(?:/[\w.-]+)+")
_VERSION: Final = re.compile(r"\d+\.\d+(?:\.\d+)?")


def redacted(analysis: Analysis) -> Analysis:
    """A copy for strangers: each name, path, frame and kernel address becomes a number, the same one wherever it stands.

    Kept are pids, times, counts and the user addresses of pages. Of the kernel's name only the version is kept. The replays and the
    trace are left out.
    """
    names = _Names(analysis)
    return replace(
        analysis,
        trace=_trace(analysis.trace),
        coverage=_coverage(analysis.coverage, names),
        verdicts=tuple(replace(v, missing=tuple(map(names.clean, v.missing))) for v in analysis.verdicts),
        findings=_findings(analysis.findings, names),
        evidence={event: (names.event(name), ts, row) for event, (name, ts, row) in analysis.evidence.items()},
        stories=tuple(_story(story, names) for story in analysis.stories),
        replays={},
        recorded=None,
        names=(),
        known=analysis.known and replace(analysis.known, path="(path)", everything=None),
        kernel=analysis.kernel and replace(analysis.kernel, release=_version(analysis.kernel.release)),
    )


class _Names:
    """The replacements, numbered in the order in which they are met."""

    def __init__(self, analysis: Analysis) -> None:
        comms = dict.fromkeys(c for c in analysis.findings["comm"].to_list() if c)
        # An owner is "name pid".
        comms |= dict.fromkeys(name.rpartition(" ")[0] or name for story in analysis.stories for name in story.owners.values())
        comms |= dict.fromkeys(analysis.names)
        self._comms = {comm: f"process-{i}" for i, comm in enumerate(comms, 1)}
        longest_first = sorted(self._comms, key=len, reverse=True)
        self._any_comm = re.compile("|".join(rf"(?<!\w){re.escape(comm)}(?!\w)" for comm in longest_first) or r"(?!)")
        self._frames: dict[int, int] = {}
        self._addresses: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self._kept = {story.address for story in analysis.stories} | set(analysis.findings["address"].drop_nulls())
        self._unknown_events = set(analysis.coverage.unknown_events)
        unknown = sorted(self._unknown_events, key=len, reverse=True)
        self._any_event = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in unknown) or r"(?!)")

    def comm(self, comm: str | None) -> str | None:
        return self._comms.get(comm, comm) if comm else comm

    def frame(self, pfn: int | None) -> int | None:
        return pfn if pfn is None or pfn <= 0 else self._frames.setdefault(pfn, len(self._frames) + 1)

    def event(self, name: str) -> str:
        """The project's own probes keep their names; a probe of the user's may be named after anything."""
        return f"event-{self._events.setdefault(name, len(self._events) + 1)}" if name in self._unknown_events else name

    def clean(self, text: str) -> str:
        text = self._any_comm.sub(lambda found: self._comms[found[0]], text)
        text = self._any_event.sub(lambda found: self.event(found[0]), text)
        text = _PATH.sub("(path)", text)
        text = _FRAME.sub(lambda found: f"{found[1]}{found[2]}#{self.frame(int(found[3], 0))}", text)
        return _HEXADECIMAL.sub(lambda found: self._address(found[0]), text)

    def _address(self, text: str) -> str:
        if int(text, 16) in self._kept:
            return text
        return f"address #{self._addresses.setdefault(text, len(self._addresses) + 1)}"


def _trace(trace: TraceInfo) -> TraceInfo:
    return replace(trace, path="trace", kernel=_version(trace.kernel))


def _version(release: str | None) -> str | None:
    version = _VERSION.match(release or "")
    return version[0] if version else None


def _coverage(coverage: Coverage, names: _Names) -> Coverage:
    unknown: Mapping[str, int] = {names.event(name): number for name, number in coverage.unknown_events.items()}
    return replace(coverage, unknown_events=unknown, notes=tuple(map(names.clean, coverage.notes)))


def _findings(findings: pl.DataFrame, names: _Names) -> pl.DataFrame:
    import polars as pl

    return findings.with_columns(
        pl.Series("comm", [names.comm(comm) for comm in findings["comm"]], pl.String),
        pl.Series("pfn", [names.frame(pfn) for pfn in findings["pfn"]], pl.Int64),
        pl.Series("summary", [text and names.clean(text) for text in findings["summary"]], pl.String),
    )


def _story(story: Story, names: _Names) -> Story:
    return replace(
        story,
        title=names.clean(story.title),
        owners={letter: names.clean(name) for letter, name in story.owners.items()},
        pages={page: names.clean(what) for page, what in story.pages.items()},
        steps=tuple(replace(step, text=names.clean(step.text)) for step in story.steps),
        outcome=names.clean(story.outcome),
    )
