"""The project as files: fixtures, versions, the shape of modules, and what must not stand in any of them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import FIXTURES, PROJECT, fixture_path, fixture_traces, truth_of

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
PACKAGES = (PROJECT / "tracetool", PROJECT / "parsers" / "tracetool_parsers")
MODULES = sorted(module for package in PACKAGES for module in package.rglob("*.py"))
#: Folders that tools fill on the spot; the other generated ones begin with a dot.
GENERATED = frozenset({"__pycache__", "build", "dist"})
#: Absolute paths that name a place on one machine only. Recordings are not read: what was traced may have such a path.
MACHINE_PATH = re.compile(r"(?<![\w.~}/-])/(?:work|root|home/\w+|opt|Users|tmp)/[\w.]+")


def relative(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def project_files() -> list[Path]:
    """Files that git tracks; without git, as in an unpacked source archive, all but hidden and generated ones."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=False).stdout.decode()
    names = [Path(name) for name in listed.split("\0") if name] or [path.relative_to(PROJECT) for path in PROJECT.rglob("*")]
    plain = [name for name in names if listed or not any(part in GENERATED or re.match(r"\.(?!ci)", part) for part in name.parts)]
    return [PROJECT / name for name in plain if (PROJECT / name).is_file()]


def test_fixtures_are_small() -> None:
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < 8_000_000


def test_every_fixture_has_its_line_and_its_truth() -> None:
    described = re.findall(r"^\| `([^`]+\.dat)`", (FIXTURES / "README.md").read_text(), flags=re.MULTILINE)
    traces = sorted(FIXTURES.rglob("*.dat"))
    assert sorted(described) == sorted(trace.relative_to(FIXTURES).as_posix() for trace in traces)
    truths = [truth_of(trace) for trace in traces]
    assert [each.name for each in truths if not (each.is_file() or each.with_name(f"{each.name}.gz").is_file())] == []


@pytest.mark.parametrize("trace", fixture_traces(), ids=lambda trace: trace.stem)
def test_truth_file_tells_ten_facts_a_page_of_its_own_scenario(trace: Path) -> None:
    rows = [line.split("\t") for line in truth_of(trace).read_text().splitlines()]
    assert {len(row) for row in rows if row[1] != "RESULT"} == {10}
    assert {row[0] for row in rows} == {trace.stem.rpartition("-")[0].rstrip("0123456789")}


def test_version_is_the_same_everywhere() -> None:
    import tracetool

    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (PROJECT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == PYPROJECT["project"]["version"] == tracetool.__version__


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_module_says_what_it_is_and_stays_short(module: Path) -> None:
    text = module.read_text()
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= 500


def test_what_is_imported_is_declared() -> None:
    named = {re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in PYPROJECT["project"]["dependencies"]}
    optional = {"dask", "distributed", "fsspec"}
    # Packages that are imported by another name than they are installed by.
    named |= {"elftools"} if "pyelftools" in named else set()
    known = named | optional | {package.name for package in PACKAGES} | sys.stdlib_module_names
    foreign = {(relative(module), name) for module in MODULES for name in imported(module) if name not in known}
    assert foreign == set()


def imported(module: Path) -> set[str]:
    """Top-level names of the packages that a module imports, anywhere in it; relative imports are the package's own."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_no_file_names_a_place_on_one_machine() -> None:
    texts = {path: path.read_bytes().decode("utf-8", "replace") for path in project_files() if path.suffix not in (".dat", ".data")}
    found = [f"{relative(path)}: {match[0]}" for path, text in texts.items() for match in MACHINE_PATH.finditer(text)]
    assert found == []


def strip(recording: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, FIXTURES / "strip.py", recording, out], capture_output=True, text=True, check=False)


def report(trace: Path) -> list[str]:
    """What trace-cmd prints of a trace, without the addresses that it names where it has symbols."""
    done = subprocess.run(["trace-cmd", "report", "-t", "-R", trace], capture_output=True, text=True, check=True)
    return re.sub(r" ip=\S+", " ip=?", done.stdout).splitlines()


@pytest.mark.parametrize("fixture", fixture_traces(), ids=lambda trace: trace.stem)
def test_fixture_is_its_recording_stripped(fixture: Path, traces: Path, tmp_path: Path) -> None:
    scenario, _, kernel = fixture.stem.rpartition("-")
    recording = traces / kernel / f"{scenario}.dat"
    assert strip(recording, tmp_path / "out.dat").returncode == 0
    assert (tmp_path / "out.dat").read_bytes() == fixture.read_bytes()


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="needs trace-cmd")
def test_trace_cmd_prints_the_same_of_a_fixture_and_of_its_recording(traces: Path) -> None:
    lines = report(fixture_path("mail-6.1.dat"))
    assert len(lines) > 1000
    assert lines == report(traces / "6.1" / "mail.dat")


def test_what_is_stripped_stays_as_it_is(tmp_path: Path) -> None:
    fixture = fixture_path("mail-7.2.dat")
    assert strip(fixture, tmp_path / "again.dat").returncode == 0
    assert (tmp_path / "again.dat").read_bytes() == fixture.read_bytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x17\x08\x44tracing6\0\0\x08", "not a little-endian trace.dat of version 7"),
        (fixture_path("mail-6.1.dat").read_bytes()[:40], "requires a buffer of at least"),
    ],
    ids=["version 6", "cut short"],
)
def test_strip_refuses_what_it_cannot_read(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.dat").write_bytes(data)
    done = strip(tmp_path / "in.dat", tmp_path / "out.dat")
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "out.dat").exists()
