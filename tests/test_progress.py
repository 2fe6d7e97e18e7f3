"""Stages of work, and the line that tells of them."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import tracetool
from conftest import fixture_path
from tracetool import progress
from tracetool_parsers import progress as hook
from tracetool_parsers.inputs import read_input
from tracetool_parsers.progress import Stage, current, stage, watch


class Screen(io.StringIO):
    """A terminal that keeps what it got."""

    def isatty(self) -> bool:
        return True


def waited_for(screen: Screen, text: str) -> bool:
    end = time.monotonic() + 10
    while text not in screen.getvalue() and time.monotonic() < end:
        time.sleep(0.005)
    return text in screen.getvalue()


def test_the_innermost_stage_is_current() -> None:
    assert current() is None
    with stage("outer"), stage("inner", 5, "events", lambda: 2):
        inner = current()
        assert inner is not None
        assert (inner.name, inner.total, inner.unit) == ("inner", 5, "events")
    assert current() is None


def test_a_stage_ends_with_an_error_too_and_watchers_know_it() -> None:
    left: list[Stage | None] = []

    def broken() -> None:
        with stage("outer"):
            with stage("inner"):
                pass
            raise ValueError("broken")

    with watch(lambda: left.append(current())), pytest.raises(ValueError, match="broken"):
        broken()
    assert [each.name if each else None for each in left] == ["outer", None]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (Stage("reading", 94_000_000, "bytes", lambda: 58_100_000), "reading [##############..........]  61 %  58.1 of 94.0 MB"),
        (Stage("reading", 10, "bytes", lambda: 10), "reading [########################] 100 %  10 of 10 bytes"),
        (Stage("reading", 10, "bytes", lambda: 999), "reading [########################] 100 %  10 of 10 bytes"),
        (Stage("reading", 10, "bytes", lambda: -5), "reading [........................]   0 %  0 of 10 bytes"),
        (Stage("taking in", 0, "bytes", lambda: 2_500_000_000), "taking in  2.5 GB ..."),
        (Stage("taking in", 0, "bytes", lambda: 0), "taking in ..."),
        (Stage("rules", 1_000, "events"), "rules  1,000 events ..."),
        (Stage("rules"), "rules ..."),
        (Stage("rules \x1b[2J"), "rules \\x1b[2J ..."),
    ],
)
def test_a_stage_in_words(what: Stage, told: str) -> None:
    assert progress.described(what, 200) == told


@pytest.mark.parametrize("columns", [1, 10, 40])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    assert len(progress.described(Stage("reading", 94_000_000, "bytes", lambda: 5), columns)) <= columns


def test_the_line_comes_after_the_delay_and_goes_with_the_last_stage() -> None:
    screen = Screen()
    with progress.shown(screen, delay=0.05, period=0.001):
        with stage("quick"):
            assert screen.getvalue() == ""
        with stage("outer"):
            with stage("slow", 4, "events", lambda: 1):
                assert waited_for(screen, "slow [######")
            assert waited_for(screen, "outer ...")
        left = screen.getvalue()
        assert left.endswith("\r\x1b[K")
        time.sleep(0.05)
        assert screen.getvalue() == left


def test_what_fails_when_asked_does_no_harm() -> None:
    screen = Screen()
    with progress.shown(screen, delay=0, period=0.001):
        with stage("odd", 4, "events", lambda: 1 // 0):
            time.sleep(0.03)
        with stage("even"):
            assert waited_for(screen, "even ...")


def test_a_message_takes_the_place_of_the_line() -> None:
    screen = Screen()
    with progress.shown(screen, delay=0, period=0.001), stage("slow"):
        assert waited_for(screen, "slow ...")
        progress.BehindTheLine(screen).write("compiled\n")
        at = screen.getvalue().index("compiled\n")
        assert screen.getvalue()[:at].endswith("\r\x1b[K")
        assert waited_for(screen, "compiled\n\rslow ...")


def test_no_thread_stays() -> None:
    with progress.shown(Screen(), delay=3600):
        assert any(thread.name == "progress" for thread in threading.enumerate())
    assert not any(thread.name == "progress" for thread in threading.enumerate())


def ended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every stage that could say how far it was, when it was over: its name, how far, of how much."""
    reached: list[tuple[str, int, int]] = []

    class Stages(list[Stage]):
        def remove(self, what: Stage, /) -> None:
            if what.done is not None:
                reached.append((what.name, what.done(), what.total))
            super().remove(what)

    monkeypatch.setattr(hook, "_stages", Stages())
    return reached


@pytest.mark.parametrize("name", ["mail-6.1.dat", "random1-6.1.dat", "mail-6.1.perf.data", "snapshot-zstd-6.1.perf.data"])
def test_stages_come_to_their_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = ended(monkeypatch)
    tracetool.open(str(fixture_path(name))).replay("mapcount")
    names = {told for told, _, _ in reached}
    assert {"events to memory events", "replaying as recorded", "replaying under mapcount", "reading"} <= names
    for told, done, total in reached:
        # A replay is as far as its last step or decision, of which a policy may make none.
        least = 0.9 if not told.startswith("replaying") else 0.1 if told.endswith("as recorded") else 0
        assert total * least <= done <= total, told


def test_text_is_told_by_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = tmp_path / "trace.txt"
    line = "            bash-101   [000] ..... {}.000001: page_fault_user: address=0x7f0 ip=0x1 error_code=0x7\n"
    text.write_text("# tracer: nop\n#\n" + "".join(line.format(n) for n in range(2000)))
    reached = ended(monkeypatch)
    assert tracetool.open(str(text)).events("page_fault_user").collect().height == 2000
    size = text.stat().st_size
    assert ("reading", size, size) in reached
    assert [told for told, _, total in reached if told == "decoding" and total == size]


def test_packed_records_are_told_by_bytes_and_exported_events_by_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tracetool.export import export

    reached = ended(monkeypatch)
    trace = tracetool.open(str(fixture_path("snapshot-zstd-6.1.perf.data")))
    events = sum(trace.raw.counts().values())
    assert [done == total > 0 for told, done, total in reached if told == "unpacking records"] == [True]
    export(trace.raw, str(tmp_path / "trace.parquet"), "parquet", None)
    reached.clear()
    exported = tracetool.open(str(tmp_path / "trace.parquet"))
    assert sum(exported.raw.counts().values()) == events
    assert ("reading", events, events) in reached


@pytest.mark.parametrize("packing", ["gzip", "xz", "zstd"])
def test_unpacking_is_told_by_what_was_read(packing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "xz": lzma.compress, "zstd": zstandard.compress}
    content = fixture_path("mail-6.1.dat").read_bytes()
    path = tmp_path / "packed"
    path.write_bytes(packers[packing](content))
    reached = ended(monkeypatch)
    assert bytes(read_input(str(path)).data) == content
    size = path.stat().st_size
    assert reached == [(f"unpacking {packing}", size, size)]


def test_what_comes_from_a_pipe_is_told_as_far_as_it_came(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = fixture_path("mail-6.1.dat").read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    reached = ended(monkeypatch)
    assert len(read_input(str(pipe)).data) == len(content)
    writer.join()
    assert reached == [("taking in", len(content), 0)]
