"""Results as text: one table in Markdown, for the terminal and for README.md alike."""

from __future__ import annotations

import re
from typing import Final

from benchmarks.results import Figure, Results, Speed

_MARKERS: Final = ("<!-- speed: `make bench` writes this part -->\n", "<!-- end of speed -->\n")
_HEAD: Final = ("what", "time", "million events", "million events/s", "GB/s", "times as fast as (target)", "memory (bound)")


def render(results: Results) -> str:
    """What was measured on what, then the table, then what is missing; ends in a newline."""
    text = f"{_machine(results)}\n\n"
    if results.traces:
        made = [
            f"{each['form']}: `{each['recording']}` {each['rounds']} times over, {each['size'] / 1e6:.0f} MB" for each in results.traces
        ]
        text += (
            f"The large traces: {'; '.join(made)}. Times are medians of {max(len(figure.seconds) for figure in results.figures)} runs; "
            "reading and replay run warm, with all loops compiled. Memory is the greatest RssAnon of a process that does it once; "
            "its bound is the tables, 16 bytes for each event in them, and 256 MiB.\n\n"
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
    versions += [f"{name} {machine[name]}" for name in ("libtracecmd", "trace-cmd", "perf") if machine[name]]
    return (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores (load {machine['load']} before); {', '.join(versions)}."
    )


def _table(figures: list[Figure]) -> str:
    rows = [_HEAD, ("---",) + ("---:",) * (len(_HEAD) - 1), *(_row(figure) for figure in figures)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(figure: Figure) -> tuple[str, ...]:
    events = (f"{figure.events / 1e6:.2f}", f"{figure.events / figure.median / 1e6:.3g}") if figure.events else ("", "")
    bandwidth = f"{figure.size / figure.median / 1e9:.2f}" if figure.size else ""
    against = "; ".join(_speed(speed) for speed in figure.against)
    return figure.what, f"{figure.median:.3g} s", *events, bandwidth, against, _memory(figure)


def _speed(speed: Speed) -> str:
    wanted = "" if speed.target is None else f" ({speed.target:g}: {_met(speed.met)})"
    return f"{speed.than} {speed.times:.2f}{wanted}"


def _memory(figure: Figure) -> str:
    if figure.max_anon is None:
        return ""
    wanted = "" if figure.bound is None else f" ({_megabytes(figure.bound)}: {_met(figure.max_anon <= figure.bound)})"
    return _megabytes(figure.max_anon) + wanted


def _met(met: bool) -> str:
    return "met" if met else "missed"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
