"""The report as one HTML file that needs no network: tables, the story step by step, and one picture."""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, get_args

from tracetool.analysis import Analysis, Step, Story
from tracetool.foreign import printable
from tracetool.report import figures, storyline, summary
from tracetool.report.geometry import STEPS_SHOWN, Spacing, spacing
from tracetool.report.redact import redacted
from tracetool.report.words import counted, duration, hexadecimal, since, size

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

FINDINGS_SHOWN: Final = 500
RECORDS_SHOWN: Final = 8


def render(analysis: Analysis, command: str = "", redact: bool = False) -> str:
    """A whole HTML document. `command` is the command line that made it; `redact` leaves out names, paths, frames and kernel addresses.

    Every string of the trace is escaped, and shown with control characters as escapes. At most FINDINGS_SHOWN findings and
    `geometry.BARS_SHOWN` bars are shown; the document says so.
    """
    if redact:
        analysis, command = redacted(analysis), ""
    template = _environment().get_template("report.html.j2")
    return template.render(
        analysis=analysis,
        command=command,
        redact=redact,
        version=_version(),
        coverage=summary.coverage(analysis),
        answer=summary.answer(analysis),
        rows=summary.rows(analysis),
        rules=_rules(analysis),
        stories=[_told(analysis, story) for story in analysis.stories],
        owners=storyline.owners(analysis.stories[0]) if analysis.stories else "",
        pages=storyline.page_names(analysis.stories),
        colours=figures.COLOURS,
        spacing=spacing(analysis.stories),
        findings=list(_findings(analysis)),
        no_findings=summary.why_no_findings(analysis),
        style=_own("style.css"),
        script=_own("report.js"),
        figures=_figures(analysis),
        bundle=_bundle() if analysis.stories else "",
    )


@dataclass(frozen=True)
class Told:
    """A story as the template shows it; `first` is the one that is shown at the start."""

    story: Story
    first: bool
    steps: tuple[ToldStep, ...]
    left_out: str


@dataclass(frozen=True)
class ToldStep:
    """A step with its time since the first event of the page; `parts` where the policy parts from the observed kernel."""

    at: str
    text: Markup
    danger: storyline.Danger | None
    parts: bool


def _told(analysis: Analysis, story: Story) -> Told:
    begin, end = storyline.span(analysis.stories)
    unsafe = storyline.dangers(analysis, story)
    parted = storyline.parting(analysis.stories[0], story)
    pages = storyline.page_names(analysis.stories)

    def told(step: Step) -> ToldStep:
        return ToldStep(since(step.ts - begin, end - begin), _chips(step.text, pages), storyline.danger_of(step, unsafe), step in parted)

    # What goes wrong needs the picture most.
    shown_first = next((s for s in analysis.stories if not s.safe), analysis.stories[0])
    return Told(story, story is shown_first, tuple(map(told, story.steps[:STEPS_SHOWN])), figures.left_out(story))


def _chips(text: str, pages: tuple[str, ...]) -> Markup:
    """Names of pages in the colours of the picture."""
    from markupsafe import Markup, escape

    parts = re.split(r"\b(P\d+)\b", printable(text))
    shown = (
        Markup('<span class="page page-{}">{}</span>').format(pages.index(part) % figures.COLOURS, part) if part in pages else escape(part)
        for part in parts
    )
    return Markup("").join(shown)


def _findings(analysis: Analysis) -> Iterator[dict[str, Any]]:
    length = analysis.trace.to_ns - analysis.trace.from_ns
    for found in summary.worst_first(analysis).head(FINDINGS_SHOWN).iter_rows(named=True):
        records = [analysis.evidence[event] for event in found["evidence"] or () if event in analysis.evidence]
        at, until = found["from_ns"], found["to_ns"]
        yield found | {
            "at": None if at is None else since(at - analysis.trace.from_ns, length),
            "lasted": None if at is None or until is None else duration(until - at),
            "records": [f"{event} #{row}" for event, _, row in records[:RECORDS_SHOWN]],
            "more_records": max(len(records) - RECORDS_SHOWN, 0),
        }


def _rules(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Rule -> policy -> verdict."""
    rules: dict[str, dict[str, Any]] = {}
    for verdict in analysis.verdicts:
        rules.setdefault(verdict.rule, {})[verdict.policy] = verdict
    return rules


def _figures(analysis: Analysis) -> Markup:
    drawn = [
        {kind: figures.picture(story, analysis.stories, storyline.dangers(analysis, story), kind) for kind in get_args(Spacing)}
        for story in analysis.stories
    ]
    return _script_data(drawn)


def _script_data(values: Any) -> Markup:
    """JSON that cannot end the script element it stands in; in ASCII, so that no line separator of JavaScript's is in it."""
    from markupsafe import Markup

    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped above


@cache
def _bundle() -> str:
    """The plotly script, compressed and in base64: 2 MB instead of 4.8."""
    script = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, mtime=0)).decode()


def _own(name: str) -> Markup:
    from markupsafe import Markup

    return Markup((files(__package__) / "templates" / name).read_text("utf-8"))  # noqa: S704 - a file of this package


def _version() -> str:
    try:
        return importlib.metadata.version("tracetool")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tracetool.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        # Markup is ours; a plain string may be the trace's.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters |= {"size": size, "duration": duration, "hexadecimal": hexadecimal, "counted": counted}
    return environment
