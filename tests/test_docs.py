"""What the documents show does run, what they link is there, and what they list is complete."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from cli.command import run
from conftest import FIXTURES, PROJECT, fixture_path
from tracetool.cli.app import application
from tracetool_parsers.losses import SCHEMA, SOURCES
from tracetool_parsers.sniff import Format

PAGES = [PROJECT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "fixtures/README.md")] + sorted(
    (PROJECT / "docs").rglob("*.md")
)
#: What the examples read, by the names that they use.
EXAMPLES = {"trace.dat": "mail-6.1.dat", "perf.data": "mail-6.1.perf.data"}
#: For pipes: the tool of this source tree, whatever is installed.
TOOL = f"""tracetool() {{ {sys.executable} -c 'from tracetool.cli import main; main()' "$@"; }}; set -o pipefail; """


def blocks(language: str) -> list[ParameterSet]:
    """The code of each block of that language, and the block of text that follows it (None: none), with page and line."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(match[1], match[2], id=f"{page.relative_to(PROJECT)}:{line}"))
    return found


def told_wrong(shown: str, printed: str) -> str | None:
    """The first shown line that is not what was printed there; None: all are. A line `...` stands for any number of lines."""
    there = iter([line.rstrip() for line in printed.splitlines()])
    skipping = False
    for line in shown.splitlines():
        if line == "...":
            skipping = True
        elif line != (next((each for each in there if each == line), None) if skipping else next(there, None)):
            return line
        else:
            skipping = False
    left = None if skipping else next(there, None)
    return None if left is None else f"(the end), but there is: {left}"


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ("a\nb\nc\n", None),
        ("a\n...\n", None),
        ("...\nb\nc\n", None),
        ("a\n...\nc\n", None),
        ("a\nb\n", "(the end), but there is: c"),
        ("a\nx\nc\n", "x"),
        ("a\nc\n", "c"),
        ("a\n...\nx\n...\n", "x"),
        ("a\nb\nc\nd\n", "d"),
        ("...\nc\nb\n", "b"),
    ],
)
def test_shown_lines_are_those_that_were_printed(shown: str, wrong: str | None) -> None:
    assert told_wrong(shown, "a\nb  \nc\n") == wrong


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the traces that the examples read."""
    for name, fixture in EXAMPLES.items():
        shutil.copy(fixture_path(fixture), tmp_path / name)
    (tmp_path / "fixtures").symlink_to(FIXTURES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("code", "shown"), blocks("sh"))
@pytest.mark.usefixtures("folder")
def test_commands_run(code: str, shown: str | None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They end as they should, and print what is shown below them."""
    monkeypatch.setenv("TRACETOOL_LOOPS", "python")
    printed = ""
    for command in code.splitlines():
        # Codes that the comment beside a command names are its answers.
        answers = {0, *map(int, re.findall(r"# exit (\d)", command))}
        program, *arguments = shlex.split(command, comments=True)
        if "|" in arguments:
            code_of, errors = piped(command, program)
        else:
            assert program == "tracetool"
            result = run(capfd, *arguments)
            code_of, errors, printed = result.code, result.err, printed + result.out
        assert code_of in answers, f"{command}\n{errors}"
    assert shown is None or told_wrong(shown, printed) is None, printed


def piped(command: str, program: str) -> tuple[int, str]:
    """Exit code and errors of a command with a pipe; 0 where its first program is missing."""
    if shutil.which(program) is None:
        return 0, ""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "parsers")))}
    done = subprocess.run(["bash", "-c", TOOL + command], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("code", "shown"), blocks("python"))
def test_python_runs(code: str, shown: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    """It fails nowhere, and prints what is shown below it."""
    exec(compile(code, "<example>", "exec"), {"__name__": "example"})
    printed = capfd.readouterr().out
    assert shown is None or told_wrong(shown, printed) is None, printed


def test_there_are_examples() -> None:
    assert len(blocks("sh")) >= 5
    assert len(blocks("python")) >= 5
    assert sum(block.values[1] is not None for language in ("sh", "python") for block in blocks(language)) >= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_every_page_is_linked() -> None:
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s#]+)\)", page.read_text())
        if "://" not in target
    }
    assert [page for page in PAGES if page.name != "README.md" and page not in linked] == []


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:^    |`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)}
    assert {"test", "fuzz"} <= named <= targets


def section(page: Path, title: str) -> str:
    """The text under a heading."""
    return page.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_format_and_every_loss_is_explained() -> None:
    page = PROJECT / "docs" / "formats.md"
    names = re.findall(r"^\|[^|]*\| `([^`]+)` \|", page.read_text().partition("\n## ")[0], re.MULTILINE)
    assert names[1:] == [form.value for form in Format]
    explained = {
        name for cell in re.findall(r"^\| (`.*?) \|", section(page, "Losses"), re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)
    }
    assert explained == {*SCHEMA.names, *SOURCES}


def test_every_verb_is_named() -> None:
    verbs = {command.name for command in application().registered_commands}
    row = next(line for line in (PROJECT / "README.md").read_text().splitlines() if line.startswith("| commands |"))
    assert verbs == set(re.findall(r"`([a-z]+)`", row.split("|")[2]))
