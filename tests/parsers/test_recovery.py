"""A version 7 file whose index is damaged or cut off is read without it."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import FIXTURES, fixture_traces
from parsers.writer import PING_FORMAT, Instance, Trace, common, data, format_text, pack, ping, subbuffer
from tracetool_parsers import ParseError, RawTrace, open_trace
from tracetool_parsers.tracedat import Recording, read_recording

VERSIONS = ["v7", "v7-zstd", "v7-zlib"]


def whole(version: str, *, order: str = "little") -> bytes:
    """Two CPUs of 25 sub-buffers, and a second buffer; event n is made at time 10 n."""
    cpus = {cpu: [subbuffer(10 * n, data(ping(n, cpu + 1))) for n in range(25)] for cpu in range(2)}
    trace = Trace([Instance(cpus), Instance({0: [subbuffer(5, data(ping(99)))]}, name="small")], {"test": [PING_FORMAT]})
    trace.cmdlines = "1 one\n2 two\n"
    return trace.write(version)


def recording(content: bytes) -> Recording:
    return read_recording(memoryview(content), "trace.dat")


def opened(folder: Path, content: bytes) -> RawTrace:
    path = folder / "trace.dat"
    path.write_bytes(content)
    return open_trace(path)


def sections(content: bytes) -> list[tuple[int, int]]:
    """Id and byte of each section, one after the other."""
    at = content.index(b"\0", content.index(b"\0", 18) + 1) + 9
    found = []
    while at < len(content):
        kind, _, _, size = struct.unpack_from("<HHIQ", content, at)
        found.append((kind, at))
        at += 16 + size
    return found


def table_of(trace: RawTrace) -> list[tuple[int, ...]]:
    """Time, CPU, thread and value of all events."""
    table = trace.table("ping")
    return list(zip(*(table[name].to_pylist() for name in ("ts", "cpu", "tid", "value")), strict=True))


@pytest.mark.parametrize("version", VERSIONS)
def test_without_an_index_all_events_are_found(tmp_path: Path, version: str) -> None:
    content = whole(version)
    at = next(at for kind, at in sections(content) if kind == 0)
    cut = opened(tmp_path, content[:at])
    assert cut.metadata.buffers == ("", "buffer 1")
    events = table_of(cut)
    assert events == table_of(opened(tmp_path, content))
    assert len(events) == 51
    assert cut.losses.num_rows == 0
    assert [f"buffer {name!r}" in note for note, name in zip(cut.metadata.notes, ("", "buffer 1"), strict=False)] == [True, True]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pointer", [0, 1 << 62, 5])
def test_an_index_that_cannot_be_found_is_looked_for(version: str, pointer: int) -> None:
    content = bytearray(whole(version))
    at = content.index(b"\0", content.index(b"\0", 18) + 1) + 1
    struct.pack_into("<Q", content, at, pointer)
    read, expected = recording(bytes(content)), recording(whole(version))
    assert read.buffers == expected.buffers
    assert (read.uname, read.clock, read.cmdlines, read.cpus) == (expected.uname, expected.clock, expected.cmdlines, expected.cpus)
    assert expected.damage == ()
    (damage,) = read.damage
    assert f"{damage.what} (at byte {damage.offset})" in read.notes


def test_options_that_follow_themselves_are_damage() -> None:
    content = bytearray(whole("v7"))
    (_, last), (_, first) = [section for section in sections(bytes(content)) if section[0] == 0]
    end = content.index(struct.pack("<HIQ", 0, 8, last), first)
    struct.pack_into("<Q", content, end + 6, first)
    read = recording(bytes(content))
    assert read.buffers == recording(whole("v7")).buffers
    assert ["follow themselves" in damage.what for damage in read.damage] == [True]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_that_is_cut_off_in_its_event_data_is_read_up_to_there(tmp_path: Path, version: str) -> None:
    content = whole(version)
    (second,) = (cpu.offset for cpu in recording(content).buffers[0].cpus if cpu.cpu == 1)
    size = 10 * 4096 if version == "v7" else 4 + 8 + struct.unpack_from("<I", content, second + 4)[0]
    # The first ten sub-buffers of CPU 1 are whole, the eleventh has no more than its header.
    trace = opened(tmp_path, content[: second + size + 12])
    expected = [(10 * n, cpu, cpu + 1, n) for n in range(25) for cpu in range(2) if cpu == 0 or n < 10]
    assert table_of(trace) == expected
    (loss,) = trace.losses.to_pylist()
    assert (loss["cpu"], loss["from_ns"], loss["source"]) == (1, 90, "truncated file")


def test_a_cpu_of_which_nothing_is_left_is_a_loss(tmp_path: Path) -> None:
    content = whole("v7-zstd")
    first, second = recording(content).buffers[0].cpus
    trace = opened(tmp_path, content[: first.offset + first.size])
    assert {row[1] for row in table_of(trace)} == {0}
    assert len(table_of(trace)) == 25
    assert [(row["cpu"], row["source"]) for row in trace.losses.to_pylist()] == [(1, "truncated file")]
    assert second.offset > first.offset + first.size


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_that_is_cut_off_before_its_event_data_is_an_error(version: str) -> None:
    content = whole(version)
    (at, *_) = (at for kind, at in sections(content) if kind == 3)
    for length in [*range(18, at, 29), at, at + 15]:
        with pytest.raises(ParseError) as caught:
            recording(content[:length])
        assert caught.value.path == "trace.dat"
        assert caught.value.offset is not None
        assert caught.value.offset <= length
        assert caught.value.hint


@pytest.mark.parametrize("path", fixture_traces(), ids=lambda path: path.stem)
def test_recordings_lose_nothing_with_their_index(tmp_path: Path, path: Path) -> None:
    content = path.read_bytes()
    after = max(at for kind, at in sections(content) if kind == 0)
    cut, expected = opened(tmp_path, content[:after]), open_trace(path)
    assert cut.timeline().equals(expected.timeline())
    assert cut.losses.equals(expected.losses)
    assert cut.metadata.cmdlines == expected.metadata.cmdlines


def test_a_section_of_another_kind_ends_the_search() -> None:
    content = whole("v7")
    at = max(at for kind, at in sections(content) if kind == 3)
    damaged = content[:at] + struct.pack("<HHIQ", 77, 0, 0, 9) + content[at + 16 :]
    read = recording(damaged[:-40])
    assert [buffer.name for buffer in read.buffers] == [""]
    assert ["no section is of kind 77" in damage.what for damage in read.damage] == [False, True]


@given(st.integers(0, (1 << 32) - 1), st.binary(min_size=1, max_size=16))
def test_garbage_anywhere_gives_a_recording_or_an_error(place: int, garbage: bytes) -> None:
    content = bytearray((FIXTURES / "mail-6.1.dat").read_bytes()[:-300])
    at = place % (len(content) - 16)
    content[at : at + len(garbage)] = garbage
    with contextlib.suppress(ParseError):
        assert recording(bytes(content)).damage


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_a_format_that_cannot_be_read_costs_the_names_of_its_events(tmp_path: Path, version: str) -> None:
    other = format_text("pong", 301, [("u64 value", 8, 8, 0)])
    page = subbuffer(0, data(ping(1), 1), data(common(301, 7) + bytes(8), 1), data(ping(2), 1))
    content = Trace([Instance({0: [page]})], {"test": [other, PING_FORMAT]}).write(version)
    trace = opened(tmp_path, content.replace(b"ID: 301", b"ID: 3x1"))
    assert trace.counts() == {"ping": 2, "unknown:301": 1}
    assert trace.table("ping")["value"].to_pylist() == [1, 2]
    (note,) = trace.metadata.notes
    assert note.endswith(f"its events have no names (at byte {content.index(other.encode()) - 8})")


@pytest.mark.parametrize("version", ["v7-zstd", "v7-zlib"])
def test_command_lines_that_are_damaged_cost_the_names_of_threads(tmp_path: Path, version: str) -> None:
    content = whole(version)
    packed = pack(version[3:], struct.pack("<Q", 12) + b"1 one\n2 two\n")
    assert content.count(packed) == 1
    trace = opened(tmp_path, content.replace(packed, b"\xff" * len(packed)))
    assert trace.metadata.cmdlines == {}
    assert trace.counts() == {"ping": 51}
    (note,) = trace.metadata.notes
    assert note.startswith("saved command lines: damaged ")
