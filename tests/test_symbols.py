"""Names of instructions: a real position-independent program where it really was loaded, as records and lists of maps tell."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from engine.build import Machine, address
from handmade import HandMade
from tracetool.costs.attribution import decisions
from tracetool.trace import Trace
from tracetool.where.maps import ancestors, maps
from tracetool.where.sites import instructions
from tracetool.where.symbols import NOT_RANDOMISED, Programs, Symbols
from tracetool_parsers import RawTrace
from tracetool_parsers.metadata import ProcessMaps

A, B = 10, 11
SOURCE = """
#include <stdio.h>
int stores(int *to) { *to = 1; return 0; }
int main(void) {
    char line[4096];
    FILE *maps = fopen("/proc/self/maps", "r");
    printf("%p\\n", (void *)stores);
    while (fgets(line, sizeof line, maps)) fputs(line, stdout);
    return 0;
}
"""


@dataclass(frozen=True)
class Ran:
    """A program that ran: where `stores` was, and what was mapped (start, end, offset, path; "" where there is none)."""

    program: Path
    stores: int
    maps: tuple[tuple[int, int, int, str], ...]


def compiled(folder: Path, name: str, *flags: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make a program with")
    source = folder / "a.c"
    source.write_text(SOURCE)
    subprocess.run(["gcc", "-O0", *flags, "-o", folder / name, source], check=True)
    return folder / name


def run(program: Path, *before: str) -> Ran:
    told = subprocess.run([*before, program], check=True, capture_output=True, text=True).stdout.splitlines()
    listed = []
    for line in told[1:]:
        span, _, offset, _, _, *path = line.split(maxsplit=5)
        begin, end = (int(number, 16) for number in span.split("-"))
        listed.append((begin, end, int(offset, 16), path[0] if path else ""))
    return Ran(program, int(told[0], 16), tuple(each for each in listed if each[1] < 1 << 57))


def trace_of(*ran: Ran, how: str) -> Trace:
    """Each program stores to a page that it shares with a child, by the first instruction of `stores`."""
    m = Machine()
    lists = []
    for number, each in enumerate(ran):
        tid = A + 10 * number
        p = m.spawn(tid)
        if how == "records":
            for begin, end, offset, path in each.maps:
                m.event("mmap2", tid, pid=tid, addr=begin, len=end - begin, pgoff=offset, filename=path or "//anon")
        if how == "lists":
            lists.append(ProcessMaps(tid, str(each.program), tuple((begin, end, path) for begin, end, _, path in each.maps if path)))
        m.touch(p, address(number), 0x50 + number)
        m.fork(p, tid + 1, [(address(number), 1)])
        m.event("page_fault_user", tid, address=address(number), ip=each.stores, error_code=7)
        m.cow(p, address(number), 0x50 + number, 0x60 + number, flags=0x255)
    raw = HandMade(m, {}, [], [])
    raw.metadata = replace(raw.metadata, maps=tuple(lists))
    return Trace(cast(RawTrace, raw))


def sites(trace: Trace, *files: str) -> list[str]:
    rows = decisions(trace, trace.replay(), Programs.of(files))
    return rows.filter(pl.col("decision") == "copy")["site"].to_list()


@pytest.mark.parametrize("how", ["records", "lists"])
def test_a_program_is_found_where_it_was_loaded(how: str, tmp_path: Path) -> None:
    """Two runs of it, at different addresses where they are randomised."""
    program = compiled(tmp_path, "moved", "-pie", "-fPIE")
    trace = trace_of(run(program), run(program), how=how)
    assert sites(trace, str(program)) == ["stores+0x0", "stores+0x0"]
    assert Programs.of([str(program)]).assumptions(trace) == []


def test_two_programs_are_named_each_by_its_own_symbols(tmp_path: Path) -> None:
    """Both are not movable, so that their addresses mean either; what is mapped says which it is."""
    first = compiled(tmp_path, "first", "-no-pie")
    (tmp_path / "other").mkdir()
    second = compiled(tmp_path / "other", "second", "-no-pie", "-Dstores=saves")
    trace = trace_of(run(first), run(second), how="records")
    assert sites(trace, str(first), str(second)) == ["stores+0x0", "saves+0x0"]
    assert sites(trace, str(second)) == [f"{run(first).stores:#x}", "saves+0x0"]


def test_a_program_of_which_the_trace_says_nothing_is_assumed_where_nothing_is_randomised(tmp_path: Path) -> None:
    program = compiled(tmp_path, "moved", "-pie", "-fPIE")
    (assumed,) = Programs.of([str(program)]).assumptions(trace_of(run(program), how="nothing"))
    assert f"assumed {NOT_RANDOMISED:#x}" in assumed
    assert f"--symbols {program}@BASE" in assumed
    try:
        ran = run(program, "setarch", "-R")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"addresses cannot be made to stay: {error}")
    if ran.maps[0][0] != NOT_RANDOMISED:
        pytest.skip(f"this machine loads it at {ran.maps[0][0]:#x}")
    assert sites(trace_of(ran, how="nothing"), str(program)) == ["stores+0x0"]


def test_what_the_user_says_holds(tmp_path: Path) -> None:
    program = compiled(tmp_path, "moved", "-pie", "-fPIE")
    ran = run(program)
    base = min(begin for begin, _, _, path in ran.maps if path == str(program))
    trace = trace_of(ran, how="nothing")
    assert sites(trace, f"{program}@{base:#x}") == ["stores+0x0"]
    assert Programs.of([f"{program}@{base:#x}"]).assumptions(trace) == []


def test_records_of_a_real_recording_are_those_of_the_program_that_ran() -> None:
    """perf tells of cowlab's code before the first event in its memory; all its stores come from there."""
    trace = tracetool.open(fixture_path("snapshot-zstd-6.1.perf.data"))
    rows = trace.replay().fault_rows.filter(pl.col("comm") == "cowlab")
    stores = rows.select("mm", "event").with_columns(address=instructions(rows["event"], trace)["ip"]).drop_nulls()
    code = stores.filter(pl.col("address").is_between(0x401000, 0x47D000, closed="left"))
    assert code.height > 10
    found = maps(trace).over(code, ancestors(code["mm"].unique(), trace))
    assert set(found["file"]) == {"/bin/cowlab"}
    assert set(found["offset"]) == {0x1000}


def test_code_may_begin_in_the_page_of_the_file_that_the_segment_before_it_ends_in() -> None:
    """As lld links: the code begins at byte 0x5f0 of the file, and at 0x15f0 of memory."""
    base, parts = 0x5555_5555_4000, ((0, 0, 0x5F0), (0x5F0, 0x15F0, 0x1200))
    program = Symbols("/x", (0x15F0, 0x25F0), (0x100, 0), ("work", "last"), None, parts, runs=True, said=False, code=parts[1:])
    assert program.loaded_at(base + 0x1000, 0) == base
    assert program.name(base + 0x15F4, base) == "work+0x4"
    # A function without a length reaches no further than the code.
    assert program.name(base + 0x15F0 + 0x11FF, base) == "last+0x1ff"
    assert program.name(base + 0x15F0 + 0x1200, base) is None
