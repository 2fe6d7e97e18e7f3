"""The report for a terminal in one screen: what was traced, the answer, the policies, the worst findings, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracetool.analysis import Analysis, Step, Story
from tracetool.foreign import printable
from tracetool.policies import POLICIES
from tracetool.report import storyline, summary
from tracetool.report.neighbours import Neighbours, neighbours, together
from tracetool.report.terminal import CALLED, PLAIN_WIDTH, SHAPES, STYLES, console, count, folded, in_ascii, line, plain, written
from tracetool.report.words import counted, duration, since, size
from tracetool.schema import PAGE_SIZE

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console, RenderableType
    from rich.text import Text

#: Lines of a screen, at PLAIN_WIDTH columns.
HEIGHT: Final = 40
POLICIES_SHOWN: Final = 8
FINDINGS_SHOWN: Final = 5
#: Lines that a sentence, the coverage, what a finding says may take.
_SENTENCE, _COVERAGE, _SUMMARY, _STEPS = 3, 2, 2, 12
_COLUMNS: Final = ("policy", "verdict", "certain /\npossible", "\ncopies", "extra\ncopies", "extra\nbytes", "extra\ntime", "peak\nmemory")
#: What makes findings one and the same thing, whoever they happen to, and under whatever policy.
_CAUSE: Final = ("rule", "severity", "certainty", "via", "call_site")


def render(analysis: Analysis, width: int | None = None, color: bool = False, *, ascii_only: bool = False) -> str:
    """The report in HEIGHT lines of at most `width` columns (None: PLAIN_WIDTH; commands to copy are not folded).

    In a narrow window lines are folded and there are more. Strings of the trace are shown as text: control characters as escapes, never
    as commands to the terminal.

    Args:
        analysis: what is told.
        width: columns.
        color: whether it has the codes of colours.
        ascii_only: whether whatever is not ASCII is replaced.
    """
    out = console(width or PLAIN_WIDTH, color)
    for block in _Screen(analysis, out).blocks():
        # Commands are for copying: they are not folded.
        out.print(block, soft_wrap=bool(getattr(block, "no_wrap", False)))
    told = written(out)
    return in_ascii(told) if ascii_only and not color else told


@dataclass(frozen=True)
class _Cause:
    """The worst finding of a cause, with its neighbours; `findings` of that cause there are, under `policies`."""

    worst: Neighbours
    findings: int
    policies: tuple[str, ...]


class _Screen:
    """One screen; each part is told how many lines are left for it."""

    def __init__(self, analysis: Analysis, out: Console) -> None:
        self._analysis, self._out = analysis, out
        self._begin, self._length = analysis.trace.from_ns, analysis.trace.to_ns - analysis.trace.from_ns
        self._path = "TRACE" if analysis.trace.path == "-" else shlex.quote(printable(analysis.trace.path))
        self._rows = summary.rows(analysis)
        self._causes, self._all_causes = _causes(summary.worst_first(analysis))

    def blocks(self) -> Iterator[RenderableType]:
        top, bottom = [*self._traced(), line(""), *self._answer(), *self._table(), *self._kernel()], self._next()
        left = HEIGHT - self._lines(top) - len(bottom)
        story = self._story(left - 6) if len(self._analysis.policies) <= 1 else []
        yield from top
        yield from story
        yield from self._findings(left - self._lines(story))
        yield from bottom

    def _lines(self, blocks: Sequence[RenderableType]) -> int:
        return sum(len(self._out.render_lines(block)) for block in blocks)

    def _folded(self, text: str, most: int, style: str = "", lead: str = "", head: str = "") -> list[Text]:
        return folded(self._out, text, most, style, lead, head)

    def _traced(self) -> list[Text]:
        trace = self._analysis.trace
        facts = (
            f"{trace.path}: {trace.format}, kernel {trace.kernel or 'not named'}, {counted(trace.cpus, 'CPU')}, "
            f"{counted(trace.events, 'event')} in {duration(self._length)}"
        )
        return [*self._folded(facts, 2, "bold"), *self._coverage()]

    def _coverage(self) -> list[Text]:
        lacks = [lack.removesuffix(".") for lack in summary.coverage(self._analysis)]
        if not lacks:
            return [line("Coverage: no events lost.")]
        for shown in range(len(lacks), 0, -1):
            more = f"; and {len(lacks) - shown} more (--full)" if shown < len(lacks) else "."
            lines = self._folded(f"Coverage: {'; '.join(lacks[:shown])}{more}", _COVERAGE + 1, "yellow")
            if len(lines) <= _COVERAGE:
                return lines
        return self._folded(f"Coverage ({counted(len(lacks), 'note')}, see --full): {lacks[0]}", _COVERAGE, "yellow")

    def _answer(self) -> Iterator[Text]:
        for sentence in summary.answer(self._analysis):
            yield from self._folded(sentence, _SENTENCE)

    def _table(self) -> list[RenderableType]:
        if summary.why_empty(self._analysis):
            return []
        from rich.table import Table

        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
        for name in _COLUMNS:
            table.add_column(
                name, justify="left" if name in {"policy", "verdict"} else "right", no_wrap=name != "policy", vertical="bottom"
            )
        for row in self._shown():
            table.add_row(*self._cells(row))
        return [line(""), table, *self._legend()]

    def _shown(self) -> list[summary.Row]:
        """The observed kernel and the first policies; of many, those with defects first."""
        if len(self._rows) <= POLICIES_SHOWN + 1:
            return list(self._rows)
        worst = sorted(self._rows[1:], key=lambda row: row.safety.standing != "defect")
        return [self._rows[0], *worst[:POLICIES_SHOWN]]

    def _cells(self, row: summary.Row) -> list[Text | str]:
        standing, result = row.safety.standing, row.result
        # What is only possible settles nothing.
        verdict = "inconclusive" if standing == "possible" else standing
        extra = ["-"] * 3
        if result is not None:
            mixed = len({each.time for each in self._analysis.policies}) > 1
            time = f"{duration(result.extra_ns)}{f' {result.time}' if mixed else ''}"
            extra = [count(result.extra_copies), size(result.extra_bytes), time] if result.extra_copies else ["0"] * 3
        peak = summary.peak_pages(self._analysis, row)
        return [
            plain(row.name), plain(f"{SHAPES[standing]} {verdict}", STYLES[standing]),
            f"{count(row.safety.certain)} / {count(row.safety.possible)}", count(row.copies + row.early_copies + row.unshares),
            *extra, "-" if peak is None else size(peak * PAGE_SIZE),
        ]  # fmt: skip

    def _legend(self) -> list[Text]:
        told = ["certain / possible: defects; a possible one needs an access that the trace cannot show."]
        times = sorted({each.time for each in self._analysis.policies})
        if times:
            told.append(f"extra: beyond mapcount; its time is {' or '.join(times)}.")
        missing = sorted({m for v in self._analysis.verdicts if v.verdict == "inconclusive" for m in v.missing})
        if missing and self._causes:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            told.append(f"inconclusive: the trace lacks {missing[0]}{more}.")
        if len(self._rows) > POLICIES_SHOWN + 1:
            told.append(f"{len(self._rows) - POLICIES_SHOWN - 1} more policies: --full.")
        return self._folded(" ".join(told), 3, "dim")

    def _kernel(self) -> list[Text]:
        kernel = self._analysis.kernel
        if kernel is None or not kernel.agreement.faults or summary.why_empty(self._analysis):
            return []
        odd = f" It would have made {counted(len(kernel.disagreements), 'decision')} otherwise." if kernel.disagreements else ""
        return self._folded(f"The kernel's own policy: {kernel.text}.{odd}", 2)

    def _story(self, left: int) -> list[Text]:
        """Of a single policy there is room for what happened, with the records of it."""
        if not self._analysis.stories or left < 5:
            return []
        story = self._analysis.stories[-1]
        under = "as recorded" if story.policy == summary.OBSERVED else f"under {story.policy}"
        title = f"{story.title}, {under}: {storyline.owners(story, 4)}; address {story.address:#x}"
        outcome = SHAPES[story.standing], STYLES[story.standing]
        told = f"{outcome[0]} {CALLED[story.standing]}. {story.outcome}"
        last = self._folded(told, 2, outcome[1], lead="    ", head="  ")
        lines = [line(""), *self._folded(title, 2, "bold")]
        room = min(left - len(lines) - len(last), 2 * _STEPS)
        steps, more = self._steps(story, room)
        return [*lines, *steps, *more, *last]

    def _steps(self, story: Story, room: int) -> tuple[list[Text], list[Text]]:
        """As many steps as there is room for: those that prove the worst finding, then what lies around; and what is said of the rest."""
        begin, end = storyline.span(self._analysis.stories)
        unsafe = storyline.dangers(self._analysis, story)
        at = next((number for number, step in enumerate(story.steps) if storyline.danger_of(step, unsafe)), 0)
        proof = set(self._causes[0].worst.first["evidence"] or ()) if self._causes else set()
        by_need = sorted(range(len(story.steps)), key=lambda number: (proof.isdisjoint(story.steps[number].evidence), abs(number - at)))
        for most in range(min(_STEPS, len(story.steps)), 0, -1):
            chosen = [story.steps[number] for number in sorted(by_need[:most])]
            steps = [each for step in chosen for each in self._step(step, unsafe, since(step.ts - begin, end - begin))]
            further = len(story.steps) - most
            if len(steps) + bool(further) <= room:
                return steps, [line(f"  and {counted(further, 'more step')}: --full", "dim")] if further else []
        return [], []

    def _step(self, step: Step, unsafe: Sequence[storyline.Danger], when: str) -> list[Text]:
        danger = storyline.danger_of(step, unsafe)
        records = list(dict.fromkeys(self._analysis.evidence[row][0] for row in step.evidence if row in self._analysis.evidence))
        record = f" [{', '.join(records)}]" if records else ""
        mark = f"  <- UNSAFE ({danger.rule}, {danger.certainty})" if danger else ""
        lead = f"  {when:>12}  "
        return self._folded(f"{step.text}{record}{mark}", 2, STYLES["defect"] if danger else "", lead=" " * len(lead), head=lead)

    def _findings(self, left: int) -> list[Text]:
        analysis, total = self._analysis, self._analysis.findings.height
        if not total:
            return [line(""), *self._folded(summary.why_no_findings(analysis), 4)]
        new = "new " if analysis.known else ""
        causes = f" of {self._all_causes:,} causes, the worst of each" if self._all_causes > 1 else ""
        lines: list[Text] = [line(""), line(f"{counted(total, f'{new}finding')}{causes}", "bold")]
        shown = 0
        for cause in self._causes:
            told = self._finding(cause)
            last = shown + 1 == self._all_causes
            # The worst is always told.
            if shown and len(lines) + len(told) + (not last) > left:
                break
            lines += told
            shown += 1
        if shown < self._all_causes:
            lines.append(line(f"  and {counted(self._all_causes - shown, 'more cause')}: tracetool replay --full, or --html", "dim"))
        return lines

    def _finding(self, cause: _Cause) -> list[Text]:
        row = cause.worst.first
        kind = "info" if row["severity"] != "defect" else "defect" if row["certainty"] == "certain" else "possible"
        at = "time not known" if row["from_ns"] is None else since(row["from_ns"] - self._begin, self._length)
        what = f"({row['severity']})" if kind == "info" else "defect"
        others = [name for name in cause.policies if name != row["policy"]]
        alike = cause.findings - cause.worst.count
        also = f"; {alike:,} more like it" if alike else ""
        if others:
            also += f", under {', '.join(others[:3])}{f' and {len(others) - 3} more' if len(others) > 3 else ''}"
        head = f"{SHAPES[kind]} {cause.worst.name}  {row['certainty']} {what}, {at}{also}"
        return [*self._folded(head, 2, STYLES[kind], lead="    ", head="  "), *self._folded(cause.worst.told, _SUMMARY, lead="    ")]

    def _next(self) -> list[Text]:
        own = [each.name for each in self._analysis.policies]
        asked = "" if own == list(POLICIES) else "".join(f" --policy {shlex.quote(printable(name))}" for name in own or ["none"])
        verbs = [(f"replay {self._path}{asked} --html report.html", "pictures, all findings, costs")]
        verbs.append((f"replay {self._path}{asked} --full", "stories, all policies, remedies"))
        if self._causes:
            row = self._causes[0].worst.first
            verbs.insert(0, (f"explain {self._path} {row['id']}", "the worst one, with its records"))
            if row["pid"] is not None and row["address"] is not None:
                under = "" if row["policy"] == summary.OBSERVED else f" --policy {shlex.quote(printable(row['policy']))}"
                verbs.append((f"history {self._path} --pid {row['pid']} --address {row['address']:#x}{under}", "the life of its page"))
        found = self._analysis.coverage
        lacking = found.lost_events != 0 or found.unknown_events or any(each.verdict == "inconclusive" for each in self._analysis.verdicts)
        if lacking:
            verbs.append((f"info {self._path}", "what the trace cannot tell"))
        return [line(""), line("Next", "bold"), *(_command(verb, why, self._out.width) for verb, why in verbs)]


def _command(verb: str, why: str, width: int) -> Text:
    command = line(f"  tracetool {verb}")
    command.no_wrap = True
    if len(command) + len(why) + 3 <= width:
        command.append(f"  # {why}", "dim")
    return command


def _causes(findings: pl.DataFrame) -> tuple[list[_Cause], int]:
    """The worst FINDINGS_SHOWN causes, and how many there are in all."""
    import polars as pl

    if not findings.height:
        return [], 0
    rows = together(findings)
    others: list[Any] = [pl.col(name).first() for name in rows.columns if name not in _CAUSE]
    every = [pl.col("count").sum().alias("_findings"), pl.col("policy").unique(maintain_order=True).alias("_policies")]
    grouped = rows.group_by(*_CAUSE, maintain_order=True).agg(*others, *every)
    shown = grouped.head(FINDINGS_SHOWN)
    facts = shown.select("_findings", "_policies").rows()
    return [
        _Cause(worst, number, tuple(policies)) for worst, (number, policies) in zip(neighbours(shown), facts, strict=True)
    ], grouped.height
