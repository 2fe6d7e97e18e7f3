"""The big-endian twin of a recording gives the same tables, and is what perf takes it for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import fixture_path
from parsers.perfswap import Twin
from tracetool_parsers import RawTrace
from tracetool_parsers.perfdata import open_perf_data

FILES = ["mail-6.1.perf.data", "snapshot-sw-6.1.perf.data"]


@pytest.mark.parametrize("name", FILES)
def test_the_twin_has_the_same_tables(name: str) -> None:
    data = fixture_path(name).read_bytes()
    twin, trace = (RawTrace(open_perf_data(memoryview(each), name, strict=True)) for each in (Twin(data).made(), data))
    assert twin.counts() == trace.counts()
    assert sum(trace.counts().values()) > 600
    assert twin.timeline().equals(trace.timeline())
    for event in trace.event_names():
        every = [field.column for field in (*trace.formats()[event].common, *trace.formats()[event].fields)]
        assert twin.table(event, every).equals(trace.table(event, every)), event
    assert twin.metadata == trace.metadata
    assert trace.metadata.kernel is not None


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed: nothing to compare with")
@pytest.mark.parametrize("name", FILES)
def test_perf_reads_the_twin_as_it_reads_the_recording(name: str, tmp_path: Path) -> None:
    twin = tmp_path / "twin.perf.data"
    twin.write_bytes(Twin(fixture_path(name).read_bytes()).made())
    shown = [
        subprocess.run(
            ["perf", "script", "--ns", "-F", "comm,pid,tid,cpu,time,event", "-i", path], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for path in (twin, fixture_path(name))
    ]
    assert len(shown[1]) > 100
    assert shown[0] == shown[1]
