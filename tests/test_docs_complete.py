"""Every command, rule, policy, table, event and format has its page, and what pages take from the code is what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import splices
from conftest import PROJECT
from tracetool import schema
from tracetool.policies import POLICIES
from tracetool.probes import BY_EVENT
from tracetool.rules import RULES
from tracetool_parsers.sniff import Format

DOCS = PROJECT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
#: What typer says of types, which differs by its version: what is left are names and sentences, wherever lines end.
TYPES = re.compile(r"<(?:list\[)?(?:str|int|float|path)\]?(?: range)?>|\b(?:TEXT|INTEGER|FLOAT|PATH)(?: RANGE)?\b|\.\.\.|[\[\]<>{}\s]")


def said(text: str) -> str:
    """A help text without what the version of typer makes of it."""
    return TYPES.sub("", text)


def parts_of(page: Path) -> dict[tuple[str, str], str]:
    return {(name, argument): text for name, argument, text in splices.parts(page)}


def sections(page: Path) -> dict[str, str]:
    """The text under each heading of the second level."""
    parted = re.split(r"^## (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parted[1::2], parted[2::2], strict=True))


@pytest.mark.parametrize("command", splices.commands())
def test_every_command_has_a_page_with_its_help(command: str) -> None:
    page = DOCS / f"{command.split(maxsplit=1)[0]}.md"
    assert page.is_file(), f"docs/{page.name} is missing: what {command!r} is for, an example, its help"
    assert ("help", command) in parts_of(page)
    assert re.search(rf"^tracetool {command}\b", page.read_text("utf-8"), re.MULTILINE), "no example"


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_page(rule: str) -> None:
    page = DOCS / "rules" / f"{rule}.md"
    assert page.is_file()
    assert ("rule", rule) in parts_of(page)
    told = sections(page)
    assert {"How it comes about", "History", "Worked example", "Certain or possible", "What to do"} <= set(told)
    assert "Linux commit" in told["History"]
    assert "```text" in told["Worked example"]
    assert f"rules/{rule}.md" in (DOCS / "rules.md").read_text("utf-8")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_has_a_page(policy: str) -> None:
    page = DOCS / "policies" / f"{policy}.md"
    assert page.is_file()
    assert ("policy", policy) in parts_of(page)
    told = sections(page)
    assert {"Where it comes from", "What it gets right and wrong", "An example"} <= set(told)
    assert "Linux commit" in told["Where it comes from"]
    assert "```text" in told["An example"]
    assert f"policies/{policy}.md" in (DOCS / "policies.md").read_text("utf-8")


@pytest.mark.parametrize("table", schema.TABLES)
def test_every_table_is_told(table: str) -> None:
    assert ("table", table) in parts_of(DOCS / "tables.md")
    assert table in sections(DOCS / "tables.md")


def test_every_event_is_told() -> None:
    assert {("events", which) for which in ("probes", "tracepoints", "calls")} <= set(parts_of(DOCS / "recording.md"))
    listed = (DOCS / "recording.md").read_text("utf-8")
    for rule in RULES.values():
        assert [event for event in rule.needs if f"`{event}`" not in listed] == []


@pytest.mark.parametrize("form", Format)
def test_every_format_has_a_page(form: Format) -> None:
    listed = (DOCS / "formats.md").read_text("utf-8")
    row = re.search(rf"^\|[^|]*\| `{re.escape(form.value)}` \|[^|]*\| \[[^\]]*\]\((formats/[^)]+)\) \|$", listed, re.MULTILINE)
    assert row
    assert (DOCS / row[1]).is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if splices.parts(page)], ids=lambda page: page.relative_to(DOCS).as_posix())
def test_parts_from_the_code_are_not_stale(page: Path) -> None:
    made = {(name, argument): text for name, argument, text in map(_part, splices.PART.finditer(splices.written(page.read_text("utf-8"))))}
    there = parts_of(page)
    assert made.keys() == there.keys()
    for key, text in there.items():
        same = said(text) == said(made[key]) if key[0] == "help" else text == made[key]
        assert same, f"{page.name}: {' '.join(key)} is stale: make docs-parts writes it anew"


def _part(found: re.Match[str]) -> tuple[str, str, str]:
    return found["name"], found["argument"] or "", found["within"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_mark_begins_a_part(page: Path) -> None:
    assert page.read_text("utf-8").count("`make docs-parts` writes this") == len(splices.parts(page))


def test_help_texts_differ_where_words_do() -> None:
    told = splices.help_of("info")
    assert "Exit 3 if events were lost." in told
    assert "\x1b" not in told
    assert said(told) == said(told.replace("TRACE <str>", "TRACE").replace("{TRACE}", "TRACE").replace("\n  ", "\n      "))
    for word in ("lost", "--check", "TRACE"):
        assert said(told.replace(word, "", 1)) != said(told)
    assert said(splices.help_of("replay").replace("[default: text]", "[default: json]")) != said(splices.help_of("replay"))


def test_every_page_is_in_the_index() -> None:
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    entries = [re.sub(r"^.*<(.+)>$", r"\1", line) for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    assert sorted(entries) == sorted(page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES if page.name != "index.md")


def citations(text: str) -> list[tuple[str, str | None, bool]]:
    """The commits that a text names: hash, subject, and whether a release follows within some lines."""
    flat = re.sub(r"\s+", " ", text)
    return [
        (cited[1], cited[2], "(in v" in flat[cited.end() : cited.end() + 300])
        for cited in re.finditer(r"(?<!0x)\b(?=\d*[a-f])([0-9a-f]{12})\b(?: \(\"(.+?)\"\)(?=[ .,;:|]))?", flat)
    ]


def test_kernel_history_is_cited_in_one_form() -> None:
    pages = [*(DOCS / "rules").glob("*.md"), *(DOCS / "policies").glob("*.md")]
    cited = {page: citations(re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)) for page in pages}
    assert sum(map(len, cited.values())) > 20
    for page, each in cited.items():
        assert [commit for commit, subject, release in each if not subject or not release] == [], page.name
    code = "\n".join(path.read_text("utf-8") for path in (PROJECT / "tracetool").rglob("*.py"))
    subjects: dict[str, set[str]] = {}
    for commit, subject, _ in [*(one for each in cited.values() for one in each), *citations(code)]:
        if subject:
            subjects.setdefault(commit, set()).add(subject)
    assert {commit: names for commit, names in subjects.items() if len(names) > 1} == {}


def offline() -> Any:
    """The script that looks for requests in a built site."""
    spec = importlib.util.spec_from_file_location("offline", PROJECT / ".ci" / "offline.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        "<img alt='' src=http://example.org/x.png>",
        "body { background: url( 'https://example.org/x.png') }",
        '@import "https://example.org/x.css";',
        'fetch("https://example.org/x.json")',
    ],
)
def test_a_site_that_asks_the_network_is_found(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text(text)
    assert offline().main(str(tmp_path)) == 1
    assert "index.html: asks the network for" in capsys.readouterr().err


def test_links_that_somebody_follows_ask_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<a href="https://example.org">there</a><script src="_static/x.js"></script>')
    assert offline().main(str(tmp_path)) == 0
    assert offline().main(str(tmp_path / "none")) == 1


# --- lines of kprobe_events that are given away ---------------------------------------------------------------------------------------

#: What a line reads: a name, the register of an argument or what lies behind it.
LINE = re.compile(r"([pr])(?:64)?:tracetool/(\w+) (\w+) (.+)")
RELEASES = ("5.10", "6.1", "6.12", "7.2")


def defined(release: str) -> dict[str, tuple[str, str, dict[str, str]]]:
    """The probes of a file: by event, `p` or `r`, the function, and the fields with what they read."""
    lines = (DOCS / "probes" / f"{release}.txt").read_text().splitlines()
    matches = [LINE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(matches)
    found = [match.groups() for match in matches if match]
    assert len({event for _, event, _, _ in found}) == len(found)
    return {event: (kind, function, dict(part.split("=", 1) for part in fields.split())) for kind, event, function, fields in found}


@pytest.mark.parametrize("release", RELEASES)
def test_lines_of_probes_define_what_the_tool_reads(release: str) -> None:
    """Whether a kernel takes them was tried on the kernels; that they have all fields is looked at here."""
    for event, (kind, function, fields) in defined(release).items():
        probe = BY_EVENT[event]
        assert function in probe.site or (kind == "r" and "returns" in probe.site), event
        optional = {"nr", "flags", "compound", "nr_pages"}
        assert {name for name in (probe.mm, probe.other_mm, *probe.args) if name} - optional - {"mm"} <= set(fields), event
    assert {event for rule in RULES.values() for event in rule.needs} <= set(defined(release))


@pytest.mark.parametrize("release", RELEASES)
def test_offsets_of_probes_are_those_of_the_page(release: str) -> None:
    table = re.findall(r"^\| `(\w+)`: `(\w+)` \|(.+)\|$", (DOCS / "recording.md").read_text(), re.MULTILINE)
    offsets = {(of, field): int(cells.split("|")[RELEASES.index(release)]) for of, field, cells in table}
    lines = {event: fields for event, (_, _, fields) in defined(release).items()}
    assert lines["cow_fault"] == {
        "mm": f"+{offsets['vm_area_struct', 'vm_mm']}(+{offsets['vm_fault', 'vma']}($arg1)):u64",
        "address": f"+{offsets['vm_fault', 'address']}($arg1):u64",
        "vm_flags": f"+{offsets['vm_area_struct', 'vm_flags']}(+{offsets['vm_fault', 'vma']}($arg1)):u64",
        "fault_flags": f"+{offsets['vm_fault', 'flags']}($arg1):u32",
        "pte": f"+{offsets['vm_fault', 'orig_pte']}($arg1):u64",
    }
    assert lines["fork_range"]["anon_vma"] == f"+{offsets['vm_area_struct', 'anon_vma']}($arg2):u64"
    assert lines["mm_fault"]["vm_ops"] == f"+{offsets['vm_area_struct', 'vm_ops']}($arg1):u64"
