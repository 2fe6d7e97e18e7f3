"""The long report for a terminal (`replay --full`): every policy's decisions, the stories, the findings with what avoids them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from tracetool.analysis import Analysis, Step, Story
from tracetool.foreign import printable
from tracetool.outcomes import OLDER
from tracetool.report import storyline, summary
from tracetool.report.neighbours import Neighbours, neighbours, together
from tracetool.report.terminal import CALLED, STYLES, console, count, hanging, line, plain, written
from tracetool.report.words import counted, duration, hexadecimal, since, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

FINDINGS_SHOWN: Final = 10
STEPS_SHOWN: Final = 20
PARTINGS_SHOWN: Final = 6
TELLING_SHOWN: Final = 3
MISSING_SHOWN: Final = 4
DEFAULT_WIDTH: Final = 80

_COLUMNS: Final = (
    "policy", "COW\nfaults", "copies", "re-\nuses", "early\ncopies", "un-\nshares", "extra\ncopies", "extra\nbytes", "extra\ntime",
    "defects",
)  # fmt: skip


def render(analysis: Analysis, width: int | None = None, color: bool = False) -> str:
    """The report as lines of at most `width` columns (None: 80; commands to copy are not folded), with terminal colours if asked for.

    Strings of the trace are shown as text: control characters as escapes, never as commands to the terminal.
    """
    out = console(width or DEFAULT_WIDTH, color)
    for block in _blocks(analysis):
        out.print(block)
    for command in _next(analysis, out.width):
        # Commands are for copying: they are not folded.
        out.print(command, soft_wrap=True)
    return written(out)


def _blocks(analysis: Analysis) -> Iterator[RenderableType]:
    yield from _traced(analysis)
    empty = summary.why_empty(analysis)
    if empty:
        yield line(f"\n{empty}", "bold")
    else:
        yield line("")
        yield _policies(analysis)
        yield from _legend(analysis)
        yield from _checked(analysis)
        yield from _kernel(analysis)
    yield from _story(analysis)
    yield from _findings(analysis)


def _traced(analysis: Analysis) -> Iterator[Text]:
    trace = analysis.trace
    facts = (
        f"{trace.format}, kernel {trace.kernel or 'not named'}, {counted(trace.cpus, 'CPU')}, {counted(trace.events, 'event')} "
        f"in {duration(trace.to_ns - trace.from_ns)} (clock {trace.clock or 'not named'})"
    )
    yield line(trace.path, "bold")
    yield line(facts)
    lacks = summary.coverage(analysis)
    yield line(
        f"Coverage: {'; '.join(lack.removesuffix('.') for lack in lacks)}." if lacks else "Coverage: no events lost.",
        "yellow" if lacks else "",
    )


def _policies(analysis: Analysis) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in {"policy", "defects"} else "right", no_wrap=name != "policy")
    for row in summary.rows(analysis):
        counts = [row.cow_faults, row.copies, row.reuses, row.early_copies, row.unshares]
        extra = ["-"] * 3
        if row.result and row.result.extra_copies == 0:
            extra = ["0"] * 3
        elif row.result:
            extra = [count(row.result.extra_copies), size(row.result.extra_bytes), duration(row.result.extra_ns)]
        defects = plain(_defects(row.safety), STYLES[row.safety.standing])
        table.add_row(plain(row.name), *map(count, counts), *extra, defects)
    return table


def _defects(safety: summary.Safety) -> str:
    if safety.certain or safety.possible:
        return f"{count(safety.certain)} / {count(safety.possible)}"
    return {"clean": "none", "inconclusive": "unclear"}.get(safety.standing, "yes")


def _legend(analysis: Analysis) -> Iterator[Text]:
    told = []
    times = sorted({p.time for p in analysis.policies})
    if analysis.policies:
        told.append(f"extra: beyond mapcount, which shares the most; its time is {' or '.join(times)}.")
    zero_fills = analysis.observed.get("zero_fills", 0)
    unasked = max((p.agreement.reasons.get(OLDER, 0) for p in analysis.policies), default=0)
    if zero_fills or unasked:
        parts = [f"zero-fills ({zero_fills:,})"] * bool(zero_fills)
        parts += [f"under policies, decisions on pages older than the trace, which they cannot be asked ({unasked:,})"] * bool(unasked)
        told.append(f"COW faults also count {', and '.join(parts)}.")
    standings = {row.safety.standing for row in summary.rows(analysis)}
    if any(row.safety.certain or row.safety.possible for row in summary.rows(analysis)):
        told.append("defects: certain / possible; a possible one needs an access that the trace cannot show.")
    if "inconclusive" in standings:
        missing = sorted({m for v in analysis.verdicts if v.verdict == "inconclusive" for m in v.missing})
        shown = "; ".join(missing[:MISSING_SHOWN]) + (f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else "")
        told.append(f"unclear: the trace cannot tell{f'; it lacks {shown}' if missing else ''}.")
    if told:
        yield line(" ".join(told), "dim")


def _kernel(analysis: Analysis) -> Iterator[RenderableType]:
    """Which policy the traced kernel had, and where that would have decided otherwise."""
    kernel = analysis.kernel
    if kernel is None or not kernel.agreement.faults:
        return
    yield line(f"The kernel's own policy: {printable(kernel.text)}.")
    begin, length = analysis.trace.from_ns, analysis.trace.to_ns - analysis.trace.from_ns
    for each in kernel.told_by[:TELLING_SHOWN]:
        did = "copied" if each.copied else "wrote in place"
        told = f"told by: thread {each.tid} {did} at {each.address:#x} at {since(each.ts - begin, length)} ({each.because})"
        yield line(f"  {told}", "dim")
    for each in kernel.disagreements[:TELLING_SHOWN]:
        did = "copied" if each.copied else "wrote in place"
        yield line(f"  otherwise: thread {each.tid} {did} at {each.address:#x}: {each.because}", "yellow")
    if len(kernel.disagreements) > TELLING_SHOWN:
        yield line(
            f"  and {len(kernel.disagreements) - TELLING_SHOWN:,} more decisions that it would have made otherwise (--json)", "yellow"
        )
    if kernel.agreement.reasons:
        reasons = "; ".join(f"{number:,}: {why}" for why, number in kernel.agreement.reasons.items())
        yield line(f"  not judged: {reasons}", "dim")


def _checked(analysis: Analysis) -> Iterator[RenderableType]:
    """On which real kernels each policy was compared with what the kernel did."""
    names: dict[str, list[str]] = {}
    for policy in analysis.policies:
        names.setdefault(policy.checked_on or "not checked", []).append(policy.name)
    if names:
        yield line("Checked on real kernels:", "dim")
    for checked, alike in names.items():
        yield hanging("  ", f"{', '.join(alike)}: {checked}", "dim")


def _story(analysis: Analysis) -> Iterator[RenderableType]:
    if not analysis.stories:
        return
    first, *others = analysis.stories
    yield line(f"\n{first.title}", "bold")
    yield line(f"{storyline.owners(first)}; address {hexadecimal(first.address)}; {first.policy}:")
    yield from _steps(first.steps, STEPS_SHOWN, analysis, first)
    yield _outcome(first, f"{first.policy}: ")
    for names, story in _alike(first, others):
        parted = storyline.parting(first, story)
        yield line(f"{', '.join(names)}:" if parted else f"{', '.join(names)}: as {first.policy}.", "bold")
        yield from _steps(parted, PARTINGS_SHOWN, analysis, story)
        if parted or story.outcome != first.outcome:
            yield _outcome(story, "")


def _alike(first: Story, others: list[Story]) -> Iterator[tuple[list[str], Story]]:
    """Policies that part from the observed story in the same way are told once."""
    groups: dict[Any, tuple[list[str], Story]] = {}
    for story in others:
        key = (tuple((step.ts, step.text) for step in storyline.parting(first, story)), story.outcome, story.safe)
        groups.setdefault(key, ([], story))[0].append(story.policy)
    yield from groups.values()


def _steps(steps: tuple[Step, ...], limit: int, analysis: Analysis, story: Story) -> Iterator[RenderableType]:
    begin, end = storyline.span(analysis.stories)
    unsafe = storyline.dangers(analysis, story)
    for step in steps[:limit]:
        danger = storyline.danger_of(step, unsafe)
        mark = f"  <- UNSAFE ({danger.rule}, {danger.certainty})" if danger else ""
        yield hanging(f"  {since(step.ts - begin, end - begin):>12}  ", f"{step.text}{mark}", STYLES["defect"] if danger else "")
    if len(steps) > limit:
        yield line(f"  ... showing {limit} of {len(steps):,} steps; --html and --json have more")


def _outcome(story: Story, prefix: str) -> Table:
    return hanging("  => ", f"{prefix}{CALLED[story.standing]}. {story.outcome}", STYLES[story.standing])


def _findings(analysis: Analysis) -> Iterator[RenderableType]:
    total = analysis.findings.height
    if not total:
        yield line(f"\n{summary.why_no_findings(analysis)}")
    else:
        rows = together(summary.worst_first(analysis))
        shown = rows.head(FINDINGS_SHOWN)
        groups = f" in {rows.height:,} groups of neighbours" if rows.height < total else ""
        showing = f", showing {shown.height} of {rows.height:,} (worst first)" if rows.height > shown.height else ""
        new = "new " if analysis.known else ""
        yield line(f"\n{counted(total, f'{new}finding')}{groups}{showing}", "bold")
        for found in neighbours(shown):
            yield from _finding(analysis, found)
    if known := summary.known(analysis):
        yield line(known)


def _finding(analysis: Analysis, found: Neighbours) -> Iterator[RenderableType]:
    row, start, length = found.first, analysis.trace.from_ns, analysis.trace.to_ns - analysis.trace.from_ns
    at = "time not known" if row["from_ns"] is None else f"{since(row['from_ns'] - start, length)} into the trace"
    head = f"{found.name}  {row['certainty']} {row['rule']} under {row['policy']} ({row['severity']}), {at}"
    yield hanging("  ", head, STYLES["defect"] if (row["certainty"], row["severity"]) == ("certain", "defect") else "")
    yield hanging("      ", found.told, "")
    if remedy := summary.remedy(row["rule"], row["severity"]):
        yield hanging("      ", f"remedy: {remedy}", "")
    if found.fingerprints:
        yield hanging("      ", f"fingerprint: {', '.join(found.fingerprints)}", "dim")


def _next(analysis: Analysis, width: int) -> Iterator[Text]:
    path = shlex.quote(printable(analysis.trace.path))
    moments = summary.worst_first(analysis)["from_ns"].drop_nulls()
    verbs = [(f"replay {path} --html report.html", "the picture, all findings")]
    if len(moments):
        verbs.append((f"pages {path} --at {moments[0]}", "who maps what then"))
    verbs.append((f"events {path} --memory", "the records"))
    if summary.coverage(analysis) or any(v.verdict == "inconclusive" for v in analysis.verdicts):
        verbs.append((f"info {path}", "what the trace cannot tell"))
    yield line("\nNext", "bold")
    for verb, why in verbs:
        command = line(f"  tracetool {verb}")
        if len(command) + len(why) + 3 <= width:
            command.append(f"  # {why}", "dim")
        yield command
