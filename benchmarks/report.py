"""Results as text: one table in Markdown, for the terminal and for README.md alike."""

from __future__ import annotations

import re
from typing import Final

from benchmarks.results import Figure, Results

_MARKERS: Final = ("<!-- speed: `make bench` writes this part -->\n", "<!-- end of speed -->\n")
_HEAD: Final = ("what", "time", "million events/s", "GB/s", "time, of ours", "memory: own, with the file's pages")


def render(results: Results) -> str:
    """What was measured on what, then the table, then what is missing; ends in a newline."""
    trace = results.trace
    text = f"{_machine(results)}\n\n"
    if trace:
        text += (
            f"The large trace is `{trace['recording']}` {trace['rounds']} times over: {trace['events'] / 1e6:.1f} million events, "
            f"{trace['bytes'] / 1e6:.0f} MB. Times are medians of {max(len(figure.seconds) for figure in results.figures)} runs; "
            "reading (one thread) and replay run warm, with all loops compiled.\n\n"
        )
    text += _table(results.figures)
    return text + "".join(f"\nNot measured: {reason}.\n" for reason in results.left_out)


def into_readme(readme: str, results: Results) -> str:
    """The text of README.md with its figures taken from `results`; a README without a place for them stays as it is."""
    begin, end = _MARKERS
    place = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return place.sub(lambda _: f"{begin}{render(results)}{end}", readme)


def _machine(results: Results) -> str:
    machine = results.machine
    versions = [f"Python {machine['python']}", *(f"{name} {version}" for name, version in machine["libraries"].items())]
    versions += [f"{name} {machine[name]}" for name in ("libtracecmd", "trace-cmd") if machine[name]]
    return (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores (load {machine['load']} before); {', '.join(versions)}."
    )


def _table(figures: list[Figure]) -> str:
    ours = next((figure for figure in figures if figure.part == "read"), None)
    rows = [_HEAD, ("---",) + ("---:",) * (len(_HEAD) - 1)]
    rows += [_row(figure, ours if figure.part == "read" else None) for figure in figures]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(figure: Figure, ours: Figure | None) -> tuple[str, ...]:
    rate = f"{figure.events / figure.median / 1e6:.3g}" if figure.events else ""
    bandwidth = f"{figure.size / figure.median / 1e9:.2f}" if figure.size else ""
    against = f"{figure.median / ours.median:.1f}" if ours else ""
    memory = f"{_megabytes(figure.max_anon)}, {_megabytes(figure.max_rss)}" if figure.max_rss is not None else ""
    return figure.what, f"{figure.median:.3g} s", rate, bandwidth, against, memory


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:.0f} MB"
