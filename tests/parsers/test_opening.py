"""Opening: what reads a file, what it was unpacked from, which buffers, and what strict makes of damage."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import fixture_path
from parsers.writer import PING_FORMAT, Instance, Trace, data, ping, pings, subbuffer
from tracetool.export import export
from tracetool_parsers import ParseError, TraceError, UnknownEvent, open_trace, reading
from tracetool_parsers.workers import spread

GOOD = pings(subbuffer(10, data(ping(1)), data(ping(2), delta=1)))


def two_buffers(folder: Path) -> Path:
    path = folder / "two.dat"
    instances = [Instance({0: [subbuffer(10, data(ping(1)))]}), Instance({0: [subbuffer(20, data(ping(2)))]}, name="second")]
    path.write_bytes(Trace(instances, {"test": [PING_FORMAT]}).write("v7"))
    return path


def test_what_it_was_unpacked_from_is_said(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(gzip.compress(gzip.compress(GOOD.write("v6"))))
    trace = open_trace(path)
    assert trace.metadata.details["unpacked from"] == "gzip, then gzip"
    assert trace.metadata.path == str(path)
    assert trace.table("ping")["value"].to_pylist() == [1, 2]
    assert trace.tables(positions=True)["ping"]["position"].to_pylist() == [0, 1]
    assert trace.timeline()["ts"].to_pylist() == [10, 11]
    assert trace.span() == (10, 11)
    assert trace.losses.num_rows == 0


def test_a_cut_inside_the_compressed_data_is_to_blame(tmp_path: Path) -> None:
    """The format inside says where it ends; the hint says why."""
    path = tmp_path / "trace.dat"
    packed = gzip.compress(GOOD.write("v6"))
    path.write_bytes(packed[: len(packed) // 4])
    with pytest.raises(ParseError) as caught:
        open_trace(path)
    assert f"its gzip data break off at byte {len(packed) // 4}" in str(caught.value.hint)


def test_a_compressed_text_that_is_cut_after_a_line_has_a_loss(tmp_path: Path) -> None:
    """Nothing in the text shows that lines are missing."""
    lines = "".join(f"  task-7 [001]     6.{i:09}: tick: x={i * i}\n" for i in range(1, 100))
    path = tmp_path / "report.txt"
    packed = gzip.compress(b"cpus=2\n" + lines.encode(), 0)[:-8]
    path.write_bytes(packed)
    trace = open_trace(path)
    assert trace.counts() == {"tick": 99}
    (loss,) = trace.losses.to_pylist()
    assert loss == {"cpu": -1, "from_ns": None, "to_ns": None, "events": None, "source": "truncated file", "offset": len(packed)}
    assert any("its gzip data break off" in note for note in trace.metadata.notes)
    with pytest.raises(ParseError, match="truncated file"):
        open_trace(path, strict=True)


def test_buffers_are_chosen_by_name(tmp_path: Path) -> None:
    path = two_buffers(tmp_path)
    assert open_trace(path, buffers=["second"]).table("ping")["value"].to_pylist() == [2]
    with pytest.raises(UnknownEvent, match="no buffer 'third'"):
        open_trace(path, buffers=["third"])


def test_buffers_of_an_export_are_read_together(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(open_trace(two_buffers(tmp_path)), out, "arrow")
    assert open_trace(out, buffers=["", "second"]).table("ping")["value"].to_pylist() == [1, 2]
    with pytest.raises(TraceError, match="all buffers"):
        open_trace(out, buffers=["second"])
    with pytest.raises(UnknownEvent, match="no buffer 'third'"):
        open_trace(out, buffers=["third"])


def test_a_folder_of_perf_record_has_its_trace_inside(tmp_path: Path) -> None:
    content = fixture_path("snapshot-sw-6.1.perf.data").read_bytes()
    (tmp_path / "data").write_bytes(content)
    (tmp_path / "alone").write_bytes(content)
    assert open_trace(tmp_path).counts() == open_trace(tmp_path / "alone").counts()
    with pytest.raises(TraceError, match="is a directory"):
        open_trace(tmp_path, input_format="trace.dat")


@pytest.mark.parametrize("form", ["ftrace-text", "trace-cmd-text", "perf-script"])
def test_text_that_no_tracer_wrote_is_not_forced_through(form: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("hello\nworld\n")
    with pytest.raises(ParseError, match=f"has no line of {form}"):
        open_trace(path, input_format=form)


def test_a_text_that_does_not_look_like_one_at_first_can_be_forced(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("a log of something else\n" * 10_000 + "cpus=2\n  task-7 [001]     6.000000001: tick: x=1\n")
    with pytest.raises(ParseError, match="is a text file"):
        open_trace(path)
    assert open_trace(path, input_format="trace-cmd-text").counts() == {"tick": 1}


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(UnknownEvent, match="no format 'tracedat'"):
        open_trace(tmp_path, input_format="tracedat")


def test_strict_looks_at_event_data_at_once(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(pings(subbuffer(10, data(ping(1))), subbuffer(30, data(ping(4)), commit=(1 << 27) - 4)).write("v6"))
    assert open_trace(path).losses.num_rows == 1
    with pytest.raises(ParseError, match="damaged sub-buffer"):
        open_trace(path, strict=True)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_makes_no_difference(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fixture_path("random1-6.1.dat")
    monkeypatch.setattr(reading, "_LEAST_PART", 1 << 12)
    asked = []

    def counted(work: Callable[[Any], object], parts: Sequence[Any], count: int) -> list[object]:
        asked.append(count)
        return spread(work, parts, count)

    monkeypatch.setattr(reading, "spread", counted)
    tables = open_trace(path, threads=threads).tables()
    assert asked == [threads]
    assert tables == open_trace(path, threads=1).tables()
