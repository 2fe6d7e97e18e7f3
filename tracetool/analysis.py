"""Analysis: the results of one replay under the observed kernel and any policies, ready to be reported or asked."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from tracetool import notebook
from tracetool.outcomes import Agreement, Kernel, RecordedDecision
from tracetool.replay import Replay
from tracetool.trace import Trace

__all__ = [
    "Agreement", "Analysis", "Coverage", "Held", "Kernel", "Known", "PolicyResult", "RecordedDecision", "Stay", "Step", "Story",
    "TraceInfo", "Verdict",
]  # fmt: skip


@dataclass(frozen=True)
class TraceInfo:
    """What was traced: `from_ns` and `to_ns` are the first and last time stamp on the clock `clock`."""

    path: str
    format: str
    kernel: str | None
    clock: str | None
    cpus: int
    events: int
    from_ns: int
    to_ns: int


@dataclass(frozen=True)
class Coverage:
    """What the trace cannot say: lost events (None: an unknown number), time under doubt in ns, events that no probe of ours names."""

    lost_events: int | None
    uncertain_ns: int
    unknown_events: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PolicyResult:
    """One policy: decisions, and what they cost beyond `mapcount` (times in ns, `time` says measured or assumed)."""

    name: str
    checked_on: str
    cow_faults: int
    copies: int
    reuses: int
    early_copies: int
    unshares: int
    zero_fills: int
    splits: int
    extra_copies: int
    extra_bytes: int
    extra_ns: int
    time: Literal["measured", "assumed"]
    peak_pages: int
    agreement: Agreement


@dataclass(frozen=True)
class Verdict:
    """What a trace says of one rule under one policy; `missing` says what an inconclusive one lacks."""

    rule: str
    policy: str
    verdict: Literal["defect", "clean", "inconclusive"]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stay:
    """A bar of the picture: `owner` maps page `page` from `from_ns` to `to_ns` (None: to the end of the trace)."""

    owner: str
    page: str
    from_ns: int
    to_ns: int | None
    began: str
    ended: str


@dataclass(frozen=True)
class Held:
    """A reference of the picture: taken by `owner` on `page`, `via` an interface, released at `to_ns` (None: not in the trace)."""

    owner: str
    page: str
    from_ns: int
    to_ns: int | None
    kind: str
    access: str
    via: str
    released: str


@dataclass(frozen=True)
class Step:
    """One sentence of a story: what happened at `ts`; `act` is one of map, fork, reference, copy, reuse, store, unmap, exit, release, swap.

    reuse: a fault that the kernel resolved in place; store: one that does not fault under the policy, as its entry is writable.
    """

    ts: int
    owner: str
    act: str
    page: str
    text: str
    evidence: tuple[int, ...] = ()


@dataclass(frozen=True)
class Story:
    """One page family told as the mail tells it: A, B are address spaces (`owners`: letter -> "name pid"), P0, P1 pages.

    `pages` maps P0, P1... to what is known of the frame ("frame 0x299d", or "a frame that only this policy makes"); `outcome` says what the
    holders of references see in the end, `safe` whether that is what the kernel owes them; `settled` is False where nothing unsafe is in
    the trace, but events that would show it cannot be: `outcome` then says what is lacking.
    """

    title: str
    policy: str
    address: int
    owners: Mapping[str, str]
    pages: Mapping[str, str]
    stays: tuple[Stay, ...]
    references: tuple[Held, ...]
    steps: tuple[Step, ...]
    outcome: str
    safe: bool
    settled: bool = True

    @property
    def standing(self) -> Literal["clean", "defect", "inconclusive"]:
        """As a verdict is called."""
        return "defect" if not self.safe else "clean" if self.settled else "inconclusive"


@dataclass(frozen=True)
class Known:
    """Findings that are left out because an earlier run had them, too: what file says so, and how many there are here.

    `everything` has all findings, those that are left out, too, as stories tell them (columns as in `Analysis.findings`).
    """

    path: str
    findings: int
    everything: pl.DataFrame | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Analysis:
    """Everything that a report says, and the replays to ask further.

    `observed` counts by decision (keys: cow_faults, copies, reuses, early_copies, zero_fills, unshares, splits); `findings` is the table
    of that name; `stories` holds for the most telling page family one story a policy, `observed` first. Where findings were compared with
    those of an earlier run, `known` says which, and `findings` and `verdicts` are about what is new. `recorded` is the trace itself (None:
    not at hand); `names` are all that its threads ever had, for what leaves them out. `observed_peak`: the most page frames at once as the
    traced kernel decided (None: not known).

    `findings` is a polars DataFrame (`schema.FINDINGS`), one row a page and cause: `id`, `rule`, `policy`, `certainty`, `severity`; `pid`,
    `comm` of the holder, `mm`, `address` (bytes), `pfn`, `page_id`; `from_ns`, the act that makes it unsafe, and `to_ns`, the end of the
    danger (ns of the trace's clock; null: not known); `by_pid`, `via`, `area`, `call_site`, `fingerprint`, `summary`, `evidence` (rows of
    the memory events).

    Example:
        >>> import tracetool
        >>> analysis = tracetool.analyse("fixtures/mail-6.1.dat")
        >>> defects = analysis.findings.filter(severity="defect", certainty="certain")
        >>> defects.filter(policy="mapcount").select("rule", "pid", "by_pid", "via").rows()
        [('missed-cow', 115, 116, 'vmsplice')]
        >>> defects.filter(policy="observed").height
        0
    """

    trace: TraceInfo
    coverage: Coverage
    observed: Mapping[str, int]
    policies: tuple[PolicyResult, ...]
    verdicts: tuple[Verdict, ...]
    findings: pl.DataFrame
    evidence: Mapping[int, tuple[str, int, int]]
    stories: tuple[Story, ...]
    replays: Mapping[str, Replay]
    known: Known | None = None
    kernel: Kernel | None = None
    observed_peak: int | None = None
    recorded: Trace | None = field(default=None, repr=False, compare=False)
    names: tuple[str, ...] = field(default=(), repr=False)

    @functools.cached_property
    def costs(self) -> pl.DataFrame:
        """What each replay decided and what that costs, `observed` first, then every policy, as a polars DataFrame (`schema.COSTS`).

        `policy`; decisions: `cow_faults`, `copies`, `reuses`, `early_copies`, `unshares`, `zero_fills` (copies in pages); beyond mapcount,
        which shares the most: `extra_copies` (pages), `extra_bytes` (bytes), `extra_ns` (ns); `time` (measured or assumed: where the price
        of a copy comes from); `peak_pages` (page frames). Extra copies are negative where less is copied than under mapcount.

        Example:
            >>> import tracetool
            >>> costs = tracetool.analyse("fixtures/mail-6.1.dat").costs
            >>> costs.filter(policy="page-count").select("extra_copies", "extra_bytes").rows()
            [(1, 4096)]
        """
        from tracetool.costs.table import costs_table

        return costs_table(self.observed, self.policies, self.replays)

    def to_html(self, path: str | os.PathLike[str], *, redact: bool = False) -> None:
        """Write the report that `tracetool replay --html` writes: one HTML file that needs no network; what is there is overwritten.

        Args:
            path: the file.
            redact: whether names, paths, frame numbers and kernel addresses are left out.

        Raises:
            OSError: the file cannot be written.

        Example:
            >>> import tempfile, tracetool
            >>> analysis = tracetool.analyse("fixtures/mail-6.1.dat")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     analysis.to_html(Path(folder, "report.html"))
            ...     Path(folder, "report.html").read_text("utf-8")[:15]
            '<!doctype html>'
        """
        from tracetool.report import details, html

        found = details.gather(self.recorded, self) if self.recorded is not None else None
        Path(path).write_text(html.render(self, redact=redact, details=found), encoding="utf-8")

    def _repr_html_(self) -> str:
        rules = list(dict.fromkeys(verdict.rule for verdict in self.verdicts))
        said = {(verdict.policy, verdict.rule): verdict.verdict for verdict in self.verdicts}
        counted = ("cow_faults", "copies", "reuses", "early_copies", "extra_copies", "extra_bytes")
        rows = [(*row, *(said.get((row[0], rule)) for rule in rules)) for row in self.costs.select("policy", *counted).iter_rows()]
        found = self.findings.select("id", "rule", "policy", "certainty", "severity", "summary").rows()
        kernel = self.kernel.text if self.kernel else None
        return notebook.fragment(
            f"Analysis of {self.trace.path}",
            notebook.facts({"kernel": self.trace.kernel, "its own policy": kernel, "not told": "; ".join(self.coverage.notes)}),
            notebook.table("Decisions, costs beyond mapcount, and verdicts", ("policy", *counted, *rules), rows),
            notebook.table("Findings", ("id", "rule", "policy", "certainty", "severity", "summary"), found) if found else "",
        )
