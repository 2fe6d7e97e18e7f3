"""The report as one HTML file that needs no network: coverage, the answer, findings with their stories, pictures, costs, a glossary."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from tracetool.analysis import Analysis, Story
from tracetool.foreign import printable
from tracetool.report import figures, found, pictures, storyline, summary, tables
from tracetool.report.details import Details
from tracetool.report.masking import masked
from tracetool.report.sketch import sketch
from tracetool.report.words import counted, duration, hexadecimal, listed, size
from tracetool.schema import PAGE_SIZE

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

#: The script of the page, part by part in the order in which they need each other.
SCRIPTS: Final = ("page.js", "tables.js", "charts.js", "selection.js", "report.js")


def render(analysis: Analysis, command: str = "", redact: bool = False, details: Details | None = None) -> str:
    """A whole HTML document.

    Every string of the trace is escaped, and shown with control characters as escapes. What is bounded (findings, stories, points, rows) is
    said where it is shown.

    Args:
        analysis: what is reported.
        command: the command line that made it.
        redact: leave out names, paths, frames and kernel addresses.
        details: what pictures, costs and stories of findings need (`details.gather`); None: the report is without them.
    """
    if redact:
        analysis, details = masked(analysis, details)
        command = ""
    script = _script()
    template = _environment().get_template("report.html.j2")
    drawn = bool(analysis.stories or details)
    return template.render(
        analysis=analysis,
        details=details,
        command=command,
        redact=redact,
        version=_version(),
        coverage=summary.coverage(analysis),
        unsaid=_unsaid(analysis),
        answer=summary.answer(analysis),
        rows=[_Row(row, _peak(row, details)) for row in summary.rows(analysis)],
        rules=_rules(analysis),
        stories=list(_stories(analysis)),
        owners=storyline.owners(analysis.stories[0]) if analysis.stories else "",
        pages=storyline.page_names(analysis.stories),
        colours=storyline.COLOURS,
        found=found.findings(analysis, details),
        no_findings=summary.why_no_findings(analysis),
        tables=tables,
        budgets={"findings": found.FINDINGS_SHOWN, "points": pictures.POINTS_SHOWN, "forks": pictures.FORKS_SHOWN},
        style=_own("style.css"),
        script=script,
        policy=_content_policy(script, drawn),
        model=_packed(json.dumps(pictures.model(analysis, details), separators=(",", ":"), allow_nan=False).encode()) if drawn else "",
        bundle=_bundle() if drawn else "",
    )


@dataclass(frozen=True)
class _Row:
    """A row of the answer; `verdict` is one of three, and `peak` the most page frames at once (None: not known)."""

    row: summary.Row
    peak: int | None

    @property
    def verdict(self) -> str:
        """What all rules together come to: what is only possible settles nothing."""
        return "inconclusive" if self.row.safety.standing == "possible" else self.row.safety.standing


@dataclass(frozen=True)
class _Told:
    """A story that one or more policies have alike, in words; `picture` is drawn without a script."""

    policies: tuple[str, ...]
    story: Story
    steps: tuple[found.Mark, ...]
    left_out: str
    picture: Markup


def _stories(analysis: Analysis) -> list[_Told]:
    alike: dict[Any, list[Story]] = {}
    for story in analysis.stories:
        acts = tuple((step.ts, step.owner, step.act, step.page, step.text) for step in story.steps)
        stays = tuple((stay.owner, stay.page, stay.from_ns, stay.to_ns) for stay in story.stays)
        alike.setdefault((acts, stays, story.outcome, story.safe), []).append(story)
    told = []
    for stories in alike.values():
        story = stories[0]
        unsafe = storyline.dangers(analysis, story)
        steps = found.marks(story, analysis.stories, unsafe, parted=storyline.parting(analysis.stories[0], story))
        further = len(story.steps) - found.STEPS_SHOWN
        left_out = [figures.left_out(story)] if figures.left_out(story) else []
        left_out += [f"the first {found.STEPS_SHOWN} of {len(story.steps):,} steps"] if further > 0 else []
        told.append(_Told(tuple(s.policy for s in stories), story, tuple(steps), ", ".join(left_out), sketch(story, unsafe)))
    # What goes wrong is told first: it needs the picture most.
    return sorted(told, key=lambda each: each.story.safe)


def _peak(row: summary.Row, details: Details | None) -> int | None:
    if row.result is not None:
        return row.result.peak_pages
    return details.replays[0].memory.peak if details and details.replays else None


def _rules(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Rule -> policy -> verdict."""
    rules: dict[str, dict[str, Any]] = {}
    for verdict in analysis.verdicts:
        rules.setdefault(verdict.rule, {})[verdict.policy] = verdict
    return rules


def _unsaid(analysis: Analysis) -> list[str]:
    """What cannot be said, and for want of what: a sentence for each thing that is missing."""
    lacking: dict[str, dict[str, list[str]]] = {}
    for verdict in analysis.verdicts:
        if verdict.verdict == "inconclusive":
            for what in verdict.missing or ("certainty: its findings are only possible",):
                lacking.setdefault(what, {}).setdefault(verdict.rule, []).append(verdict.policy)
    policies = len({verdict.policy for verdict in analysis.verdicts})
    said = []
    for what, rules in lacking.items():
        everywhere = all(len(under) == policies for under in rules.values())
        under = "" if everywhere else f" under {listed(list(dict.fromkeys(p for names in rules.values() for p in names)))}"
        said.append(f"Whether {listed(list(rules))} {'is' if len(rules) == 1 else 'are'} clean{under}: it lacks {what}.")
    reasons = analysis.kernel.agreement.reasons if analysis.kernel else {}
    said += [f"How policies would have decided {counted(number, 'decision')}: {why}." for why, number in reasons.items()]
    return said


def _script_data(values: Any) -> Markup:
    """JSON that cannot end the script element it stands in; in ASCII, so that no line separator of JavaScript's is in it."""
    from markupsafe import Markup

    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped above


def _packed(content: bytes) -> str:
    """Compressed, in base64: nothing in it can end the element that it stands in."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _plotly() -> bytes:
    return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()


@cache
def _bundle() -> str:
    """The plotly script: 2 MB instead of 4.8."""
    return _packed(_plotly())


@cache
def _script() -> Markup:
    from markupsafe import Markup

    parts = Markup("\n").join(_own(name) for name in SCRIPTS)
    return Markup('"use strict";\n(() => {{\n{}\n}})();').format(parts)


def _content_policy(script: Markup, drawn: bool) -> Markup:
    """What the page may load: nothing; and the scripts that it may run, by their hashes: its own, and plotly's."""
    from markupsafe import Markup

    allowed = [str(script).encode(), *([_plotly()] if drawn else [])]
    hashes = Markup(" ").join(Markup("'sha256-{}'").format(base64.b64encode(hashlib.sha256(each).digest()).decode()) for each in allowed)
    return Markup(
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; script-src {}"
    ).format(hashes)


def _own(name: str) -> Markup:
    from markupsafe import Markup

    return Markup((files(__package__) / "templates" / name).read_text("utf-8"))  # noqa: S704 - a file of this package


def _version() -> str:
    try:
        return importlib.metadata.version("tracetool")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _pages(number: int) -> str:
    """Pages as memory."""
    return size(number * PAGE_SIZE) if number else "0"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tracetool.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        # Markup is ours; a plain string may be the trace's.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters |= {
        "size": size, "duration": duration, "hexadecimal": hexadecimal, "counted": counted, "memory": _pages, "frame": found.frame,
    }  # fmt: skip
    return environment
