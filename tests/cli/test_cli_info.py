"""`tracetool info` says what a trace is and what it lost, and `--check` makes a loss an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.command import run
from conftest import fixture_path
from parsers.writer import PING_FORMAT, Instance, Trace, data, ping, pings, subbuffer
from tracetool_parsers.writing import cpu_stats

MAIL = fixture_path("mail-6.1.dat")


def written(folder: Path, trace: Trace) -> Path:
    path = folder / "trace.dat"
    path.write_bytes(trace.write("v7"))
    return path


def test_a_whole_trace_is_told_to_be_whole(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "info", "--check", MAIL)
    assert result.code == 0
    assert "losses: none are known\n" in result.out
    assert "trace.dat v7" in result.out
    assert "written by: trace-cmd 3.1.6" in result.out
    assert "kernel:     6.1.0-53-amd64" in result.out


def test_a_loss_is_told_by_cpu_and_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cpu0 = [
        subbuffer(10, data(ping(1))),
        subbuffer(20, data(ping(2)), missed=1200),
        subbuffer(40, data(ping(3)), missed=34),
    ]
    cpu2 = [subbuffer(15, data(ping(4))), subbuffer(35, data(ping(5)), missed=-1)]
    path = written(tmp_path, Trace([Instance({0: cpu0, 2: cpu2})], {"test": [PING_FORMAT]}))
    result = run(capfd, "info", "--check", path)
    assert result.code == 3
    lines = result.out.splitlines()
    at = lines.index("losses: 1,234 events and an unknown number more missing")
    assert lines[at + 1] == "  CPU 0: 1,234 events between 10 and 40 ns"
    assert lines[at + 2].startswith("    1,200 events between 10 and 20 ns (")
    assert lines[at + 3].startswith("    34 events between 20 and 40 ns (")
    assert lines[at + 4].startswith("  CPU 2: an unknown number of events between 15 and 35 ns (")
    assert run(capfd, "info", path).code == 0


def test_a_count_without_a_time_has_no_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trace = Trace([Instance({0: [subbuffer(10, data(ping(1)))]}, stats=[cpu_stats(0, dropped=5)])], {"test": [PING_FORMAT]})
    result = run(capfd, "info", "--check", written(tmp_path, trace))
    assert result.code == 3
    assert "  CPU 0: 5 events after 10 ns (cpustat dropped events)" in result.out


def test_damage_is_told_with_its_byte(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = subbuffer(30, data(ping(4)), commit=(1 << 27) - 4)
    path = written(tmp_path, pings(subbuffer(10, data(ping(1))), bad, subbuffer(50, data(ping(2)))))
    result = run(capfd, "info", "--check", path)
    assert result.code == 3
    assert f"at byte {path.read_bytes().index(bad)}" in result.out
    assert "  CPU 0: an unknown number of events between 10 and 50 ns (damaged sub-buffer)" in result.out


def test_a_text_that_cannot_tell_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "script.txt"
    path.write_text("sleep   115/115   [001]     6.200671677: exceptions:page_fault_user: address=0x7f00 ip=0x7f00 error_code=0x14\n")
    result = run(capfd, "info", "--check", path)
    assert result.code == 0
    assert "losses: none are known; this format cannot tell" in result.out
    assert run(capfd, "export", path, "--to", "arrow", "-o", tmp_path / "out").code == 0
    assert "losses: none are known; this format cannot tell" in run(capfd, "info", tmp_path / "out").out


def test_events_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, pings(subbuffer(10, data(ping(1)), data(ping(2), delta=5))))
    result = run(capfd, "info", path)
    assert "events:     2 of 1 kinds" in result.out
    assert "10 to 15 ns" in result.out
    assert "\n  2  ping\n" in result.out


def test_what_it_says_as_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, pings(subbuffer(10, data(ping(1))), subbuffer(20, data(ping(2)), missed=7)))
    result = run(capfd, "info", "--check", "--json", path)
    assert result.code == 3
    said = json.loads(result.out)
    assert (said["schema_version"], said["path"], said["format"]) == (1, str(path), "trace.dat v7")
    assert (said["events"], said["from_ns"], said["to_ns"], said["counts"]) == (2, 10, 20, {"ping": 2})
    (loss,) = said["losses"]
    assert (loss["cpu"], loss["from_ns"], loss["to_ns"], loss["events"]) == (0, 10, 20, 7)
    assert "cow_fault" in said["missing_events"]["missed-cow"]


def test_no_field_is_decoded(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from tracetool_parsers.tracedat_source import TraceDat

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("fields were decoded")

    monkeypatch.setattr(TraceDat, "read", unexpected)
    monkeypatch.setattr(TraceDat, "read_all", unexpected)
    assert run(capfd, "info", MAIL).code == 0


def test_a_trace_cannot_write_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, Trace([Instance({0: [subbuffer(10, data(ping(1)))]})], {"test": [PING_FORMAT]}, writer="\x1b[2J"))
    result = run(capfd, "info", path)
    assert "\x1b" not in result.out
    assert "\\x1b[2J" in result.out
