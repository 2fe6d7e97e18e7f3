"""The parts of docs/ that are made from the code, each between `<!-- NAME ARGUMENT: ... -->` and `<!-- end -->`.

`make docs-parts` writes them anew; tests/test_docs_complete.py fails where one is stale.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import typer.main

from tracetool import schema
from tracetool.cli.app import application
from tracetool.policies import POLICIES, Page, Policy, Request, SwapIn
from tracetool.probes import PROBES, Probe
from tracetool.rules import RULES

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
#: A part: its begin with name and argument, what lies within, its end.
PART: Final = re.compile(
    r"(?P<begin>^<!-- (?P<name>[a-z-]+)(?: (?P<argument>[^:\n]+))?: `make docs-parts` writes this -->\n)"
    r"(?P<within>.*?)(?P<end>^<!-- end -->$)",
    re.MULTILINE | re.DOTALL,
)


def commands() -> list[str]:
    """Every command as a user types it, those of groups too: `replay`, `costs calibrate`."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[str]:
        yield " ".join(words)
        for name, further in getattr(command, "commands", {}).items():
            yield from below(further, (*words, name))

    top = typer.main.get_command(application())
    return [told for name, command in getattr(top, "commands").items() for told in below(command, (name,))]  # noqa: B009  (not in its type)


def help_of(command: str) -> str:
    """What `tracetool COMMAND --help` prints into a file."""
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="100", NO_COLOR="1"),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        application()([*command.split(), "--help"], prog_name="tracetool")
    return printed.getvalue()


def _help(command: str) -> str:
    return f"```text\n{help_of(command)}```\n"


def rows(heads: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [heads, tuple("---" for _ in heads), *cells]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def code(*names: str) -> str:
    """Names as code, in a list."""
    return ", ".join(f"`{name}`" for name in names)


def _table(name: str) -> str:
    def meaning(column: schema.Column) -> str:
        return column.meaning + (f": {code(*column.values)}" if column.values else "")

    told = [(f"`{name}`", f"`{column.type}`", column.unit, meaning(column)) for name, column in schema.TABLES[name].items()]
    return rows(("column", "type", "unit", "meaning"), told)


def _is_call(probe: Probe) -> bool:
    return probe.site.startswith("syscalls:")


def _events(which: str) -> str:
    """`probes` on functions of the kernel, `tracepoints`, or system `calls`."""
    if which == "calls":
        names = [probe.event.removeprefix("sys_enter_") for probe in PROBES if probe.event.startswith("sys_enter_")]
        return f"{code(*names)}.\n"
    listed = [probe for probe in PROBES if probe.site != "-" and not _is_call(probe)]
    if which == "probes":
        told = [(f"`{p.event}`", _site(p), _fields(p), p.meaning, _rules(p)) for p in listed if ":" not in p.site]
        return rows(("event", "function", "fields that are read", "meaning", "needed by"), told)
    # Those that mean the same and have nothing more to say stand together.
    alike = itertools.groupby((p for p in listed if ":" in p.site), lambda p: (_fields(p), p.meaning))
    return rows(
        ("tracepoint", "fields that are read", "meaning"),
        [(code(*(p.site for p in these)), fields, meaning) for (fields, meaning), these in alike],
    )


def _fields(probe: Probe) -> str:
    return code(*filter(None, (probe.mm, probe.other_mm, *probe.args)))


def _site(probe: Probe) -> str:
    returns = " returns" if probe.site.endswith(" returns") else ""
    site = probe.site.removesuffix(" returns")
    return site + returns if site == "the same" else code(*site.split(", ")) + returns


def _rules(probe: Probe) -> str:
    lacking = [rule.name for rule in RULES.values() if probe.event not in rule.needs]
    if not lacking:
        return "all rules"
    needing = [name for name in RULES if name not in lacking]
    return f"all but {code(*lacking)}" if len(lacking) < len(needing) else code(*needing)


def _rule(name: str) -> str:
    rule = RULES[name]
    return rows(
        ("", ""),
        [
            ("what it finds", rule.title),
            ("events that it needs", code(*rule.needs)),
            ("what avoids it", rule.remedy),
        ],
    )


_PINNED: Final = {"referenced": True, "maybe_pinned": True, "mm_has_pinned": True}
#: What policies are asked about a store to a read-only entry: in words, and as facts.
STORES: Final = (
    ("nothing else refers to it, not marked exclusive", Page()),
    ("it is marked exclusive", Page(exclusive=True)),
    ("another page table maps it", Page(mapped_elsewhere=True)),
    ("a FOLL_GET reference is held, not marked exclusive", Page(referenced=True)),
    ("a FOLL_GET reference is held, marked exclusive", Page(referenced=True, exclusive=True)),
    ("a FOLL_PIN is held, not marked exclusive", Page(**_PINNED)),
    ("a FOLL_PIN is held, marked exclusive", Page(**_PINNED, exclusive=True)),
    ("it is in the swap cache", Page(swap_cached=True)),
    ("it waits in this CPU's LRU batch", Page(lru_batch=True)),
    ("it waits in another CPU's LRU batch", Page(lru_batch_elsewhere=True)),
    ("KSM merged it, nothing else refers to it", Page(ksm=True)),
    ("KSM merged it, a FOLL_GET reference is held", Page(ksm=True, referenced=True)),
    ("another process has unmapped it and not let go yet", Page(unmapping=True)),
    ("part of a larger page, other parts are mapped here", Page(large=True, neighbours=True)),
    ("part of a larger page, another process maps other parts", Page(large=True, another_mm=True)),
)
HUGE: Final = (
    ("huge page mapped whole, nothing else refers to it", Page(large=True, neighbours=True)),
    ("huge page mapped whole, a FOLL_GET reference is held", Page(large=True, neighbours=True, referenced=True)),
    (
        "huge page mapped whole, another process maps it, too",
        Page(large=True, neighbours=True, mapped_elsewhere=True, part_shared=True, another_mm=True),
    ),
)
FORKS: Final = (
    ("a FOLL_GET reference is held", Page(referenced=True, exclusive=True)),
    ("a FOLL_PIN is held", Page(**_PINNED, exclusive=True)),
)
SHARED: Final = Page(mapped_elsewhere=True)
SWAPS: Final = (
    ("store", "nothing else refers to it; left in the swap cache", Page(swap_cached=True), SwapIn(True, False, False)),
    ("store", "another entry refers to it", Page(swap_cached=True, mapped_elsewhere=True), SwapIn(True, False, False)),
    ("read", "its entry says that it is exclusive", Page(swap_cached=True), SwapIn(False, True, False)),
)


def _policy(name: str) -> str:
    policy: Policy = POLICIES[name]
    told: list[tuple[str, ...]] = []
    for words, page in STORES:
        said = policy.write_fault(page)
        told.append(("store", words, "copy" if said.copy else "write in place", f"`{said.reason}`"))
    for words, page in HUGE:
        said = policy.huge_write_fault(page)
        otherwise = "copy all of it" if policy.copies_huge else "split the mapping, then as a part"
        told.append(("store", words, otherwise if said.copy else "write in place", f"`{said.reason}`"))
    for words, page in FORKS:
        told.append(("fork", words, "copy for the child" if policy.fork(page).copy else "share", ""))
    taken = {"take": "take it as it is", "unshare": "copy it first (unshare)", "write": "first what a store would get"}
    for words, request in (("FOLL_GET", Request(False, False)), ("FOLL_PIN", Request(True, False))):
        told.append((f"read by {words}", "another page table maps it", taken[policy.gup(SHARED, request)], ""))
    mapped = {"shared": "map it read-only", "exclusive": "map it read-only, exclusive", "writable": "map it writable"}
    told.extend((f"{access} of a swapped page", words, mapped[policy.swap_in(page, fault)], "") for access, words, page, fault in SWAPS)
    return rows(("access", "of the page", "decision", "reason"), told) + f"\nChecked on real kernels: {policy.checked_on}.\n"


PARTS: Final[dict[str, Callable[[str], str]]] = {
    "help": _help,
    "table": _table,
    "events": _events,
    "rule": _rule,
    "policy": _policy,
}


def parts(page: Path) -> list[tuple[str, str, str]]:
    """Name, argument and text of each part of a page."""
    return [(found["name"], found["argument"] or "", found["within"]) for found in PART.finditer(page.read_text("utf-8"))]


def written(text: str) -> str:
    """The same page with all its parts made anew."""

    def anew(found: re.Match[str]) -> str:
        return f"{found['begin']}\n{PARTS[found['name']](found['argument'] or '')}\n{found['end']}"

    return PART.sub(anew, text)


def main() -> None:
    """Write the parts of all pages, or of those that are named."""
    for page in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(DOCS.rglob("*.md")):
        before = page.read_text("utf-8")
        after = written(before)
        if after != before:
            page.write_text(after, "utf-8")
            print(f"wrote the parts of {page}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
