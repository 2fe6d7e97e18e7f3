"""Damaged and cut-off files: what is whole is read, the rest is said, and nothing but a TraceError is raised."""

from __future__ import annotations

import functools
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.writer import (
    PAGE,
    PING_FORMAT,
    VERSIONS,
    Instance,
    Trace,
    common,
    data,
    format_text,
    long_data,
    pack,
    ping,
    pings,
    subbuffer,
    taken_back,
    time_extend,
    time_stamp,
)
from tracetool_parsers import ParseError, RawTrace, TraceError, open_trace


def opened(folder: Path, content: bytes, *, strict: bool = False) -> RawTrace:
    path = folder / "trace.dat"
    path.write_bytes(content)
    return open_trace(path, strict=strict)


def values(trace: RawTrace) -> list[int]:
    return list(trace.table("ping")["value"].to_pylist())


def losses(trace: RawTrace) -> list[tuple[object, ...]]:
    return [tuple(row.values())[:5] for row in trace.losses.to_pylist()]


GOOD = [subbuffer(10, data(ping(1)), data(ping(2), delta=1)), subbuffer(20, data(ping(3)))]
LAST = subbuffer(40, data(ping(9)))


@pytest.mark.parametrize(
    ("page", "read", "source"),
    [
        (subbuffer(30, data(ping(4)), commit=PAGE), [], "damaged sub-buffer"),
        (subbuffer(30, data(ping(4)), commit=(1 << 27) - 4), [], "damaged sub-buffer"),
        (subbuffer(30, data(ping(4)), data(ping(5))[:12]), [4], "damaged record"),
        (subbuffer(30, data(ping(4)), struct.pack("<II", 0, 0)), [4], "damaged record"),
        (subbuffer(30, data(ping(4)), struct.pack("<II", 0, 0xFFFFFFFF)), [4], "damaged record"),
        (subbuffer(30, data(ping(4)), struct.pack("<I", 1) + bytes(4)), [4], "damaged record"),
        (subbuffer(30, data(ping(4)), struct.pack("<I", 30)), [4], "damaged record"),
        (subbuffer(1 << 63, data(ping(4))), [], "damaged time stamp"),
        (subbuffer((1 << 62) - 1, data(ping(4)), time_extend(5), data(ping(5))), [4], "damaged time stamp"),
    ],
)
def test_damaged_sub_buffer_is_read_up_to_the_damage_and_the_next_one_after_it(
    tmp_path: Path, page: bytes, read: list[int], source: str
) -> None:
    content = pings(*GOOD, page, LAST).write("v6")
    trace = opened(tmp_path, content)
    assert values(trace) == [1, 2, 3, *read, 9]
    times = trace.table("ping")["ts"].to_pylist()
    assert [(row[0], row[3], row[4]) for row in losses(trace)] == [(0, None, source)]
    before, after = losses(trace)[0][1:3]
    # A damaged record may be later than what follows.
    assert before == times[len(read) + 2]
    assert after == 40
    offset = content.index(page)
    assert trace.metadata.notes == (f"{source}: CPU 0 at byte {offset}",)
    with pytest.raises(ParseError, match=source) as caught:
        opened(tmp_path, content, strict=True)
    assert caught.value.offset == offset
    assert caught.value.hint


def test_strict_accepts_losses_that_are_no_damage(tmp_path: Path) -> None:
    trace = opened(tmp_path, pings(subbuffer(10, data(ping(1)), missed=3)).write("v6"), strict=True)
    assert trace.losses.num_rows == 1


@pytest.mark.parametrize("version", ["v6", "v7"])
@pytest.mark.parametrize(
    ("left", "read"), [(0, []), (8, []), (16, []), (16 + 19, []), (16 + 20, [1]), (PAGE, [1, 2]), (PAGE + 40, [1, 2, 3])]
)
def test_event_data_that_are_cut_off_are_read_as_far_as_they_go(tmp_path: Path, version: str, left: int, read: list[int]) -> None:
    content = pings(*GOOD).write(version)
    if version == "v7":
        # Its index comes last: put the data behind it, as trace-cmd does where it appends.
        content = with_data_at_the_end(content)
    cut = content[: content.rindex(GOOD[0]) + left]
    trace = opened(tmp_path, cut)
    assert values(trace) == read
    assert [row[4] for row in losses(trace)] == ["truncated file"]
    assert trace.losses["from_ns"].to_pylist() == [[10, 11, 20][len(read) - 1] if read else None]
    assert trace.losses["to_ns"].to_pylist() == [None]
    assert len(trace.metadata.notes) == 1
    with pytest.raises(ParseError, match="truncated file"):
        opened(tmp_path, cut, strict=True)


def with_data_at_the_end(content: bytes) -> bytes:
    at = content.index(GOOD[0])
    moved = len(content) + -len(content) % PAGE
    content = content.replace(struct.pack("<IQQ", 0, at, 2 * PAGE), struct.pack("<IQQ", 0, moved, 2 * PAGE))
    return content.ljust(moved, b"\0") + b"".join(GOOD)


@pytest.mark.parametrize("codec", ["zstd", "zlib"])
def test_damaged_chunk_is_left_out_and_those_after_it_are_read(tmp_path: Path, codec: str) -> None:
    pages = [subbuffer(100 * i, data(ping(i))) for i in range(25)]
    content = Trace([Instance({0: pages, 1: [LAST]})], {"test": [PING_FORMAT]}).write(f"v7-{codec}")
    second = pack(codec, b"".join(pages[10:20]))
    offset = content.index(second)
    trace = opened(tmp_path, content.replace(second, b"\xff" * len(second)))
    assert sorted(values(trace)) == sorted([*range(10), *range(20, 25), 9])
    assert losses(trace) == [(0, 900, 2000, None, "damaged chunk")]
    assert trace.losses["offset"].to_pylist() == [offset - 8]
    assert trace.metadata.notes == (f"damaged chunk: CPU 0 at byte {offset - 8}",)


@pytest.mark.parametrize("codec", ["zstd", "zlib"])
@pytest.mark.parametrize("lie", [0, 4, 4096 * 9, 4096 * 11, 4096 * 65, 0xFFFFFFFC])
def test_chunk_that_states_another_size_is_damaged(tmp_path: Path, codec: str, lie: int) -> None:
    content = pings(*(subbuffer(i, data(ping(i))) for i in range(10))).write(f"v7-{codec}")
    trace = opened(tmp_path, content.replace(struct.pack("<I", 10 * PAGE), struct.pack("<I", lie)))
    assert values(trace) == []
    assert losses(trace) == [(0, None, None, None, "damaged chunk")]


@pytest.mark.parametrize("version", ["v6", "v7", "v7-zstd"])
def test_cpus_that_share_their_bytes_are_refused(tmp_path: Path, version: str) -> None:
    trace = Trace([Instance({0: GOOD[:1], 1: GOOD[1:]})], {"test": [PING_FORMAT]})
    content = trace.write(version)
    if version == "v7-zstd":
        first, second = (content.index(pack("zstd", page)) - 12 for page in GOOD)
    else:
        first, second = (content.index(page) for page in GOOD)
    old, new = ((struct.pack("<QQ", at, PAGE) if version == "v6" else struct.pack("<IQ", 1, at)) for at in (second, first))
    assert content.count(old) == 1
    with pytest.raises(ParseError, match="overlap"):
        opened(tmp_path, content.replace(old, new))


def test_metadata_that_are_cut_off_are_an_error_with_the_place(tmp_path: Path) -> None:
    content = pings(*GOOD).write("v6")
    end = content.index(GOOD[0]) - 200
    for length in [*range(1, end, 37), end - 1]:
        if not any(content[length:end]):
            break
        with pytest.raises(ParseError) as caught:
            opened(tmp_path, content[:length])
        assert caught.value.path is not None
        assert caught.value.offset is not None
        assert caught.value.offset <= length
        assert caught.value.hint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (struct.pack("<Q", 205), struct.pack("<Q", 1 << 62)),
        (struct.pack("<I", 1) + b"test\0", struct.pack("<I", 0xFFFFFFFF) + b"test\0"),
        (b"test\0" + struct.pack("<I", 1), b"test\0" + struct.pack("<I", 0xFFFFFFFF)),
        (struct.pack("<I", 1) + b"options  \0", struct.pack("<I", 0xFFFFFFFF) + b"options  \0"),
        (b"size:4080", b"size:4081"),
        (b"size:4080", b"size:999999999"),
        (b"header_page", b"header_pagE"),
    ],
)
def test_impossible_numbers_are_refused_before_anything_is_allocated(tmp_path: Path, old: bytes, new: bytes) -> None:
    content = pings(*GOOD).write("v6")
    content = content.replace(old, new, 1) if old in content else pytest.fail(f"{old!r} is not in the file")
    tracemalloc.start()
    with pytest.raises(ParseError):
        opened(tmp_path, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(content) + 1_000_000


@functools.cache
def sample(version: str) -> bytes:
    """A file with every kind of record, field and option, small enough for many examples."""
    page = functools.partial(subbuffer, page=1024)
    payload = common(400, 9) + struct.pack("<QB7sI", 5, 6, b"seven", 28 | 4 << 16) + b"abc\0"
    times = (taken_back(16, 5), time_extend(1 << 30), data(payload), time_stamp(1 << 31))
    first = page(1000, data(ping(1)), long_data(payload, 3), *times)
    cpus = {0: [first, page(1 << 33, data(ping(2)), missed=4)], 1: [page(900, *(data(ping(i), 2) for i in range(40)))]}
    fields = [
        ("u64 a", 8, 8, 0),
        ("u8 b", 16, 1, 0),
        ("char name[7]", 17, 7, 0),
        ("__data_loc char[] text", 24, 4, 0),
        ("u16 l[]", 28, 0, 0),
    ]
    trace = Trace(
        [Instance(cpus), Instance({1: [page(950, data(payload))]}, name="small")],
        {"test": [PING_FORMAT, format_text("it", 400, fields)]},
        [format_text("print", 5, [("char buf[]", 8, 0, 0)])],
        "7 seven\n9 nine\n",
        page=1024,
        options=[(2, b"CPU: 0\noverrun: 9\n\0"), (7, b"5\0"), (14, struct.pack("<IIQ", 2, 1, 0)), (99, b"?")],
    )
    return trace.write(version)


def read_everything(path: Path, *, strict: bool) -> None:
    """Ask all that a trace can be asked, and check that the answers fit together."""
    trace = open_trace(path, strict=strict)
    events = sum(trace.counts().values())
    assert trace.timeline().num_rows == events
    tables = trace.tables(trace.event_names())
    assert sum(table.num_rows for table in tables.values()) == events
    for table in tables.values():
        table.validate(full=True)
    trace.losses.validate(full=True)
    assert isinstance(trace.metadata.notes, tuple)


def check_damaged(folder: Path, content: bytes) -> None:
    """The file is read, or a TraceError names it; nothing else is raised."""
    path = folder / "trace.dat"
    path.write_bytes(content)
    for strict in (False, True):
        caught = None
        try:
            read_everything(path, strict=strict)
        except TraceError as error:
            caught = error
        assert caught is None or caught.path == str(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_sample_itself_is_whole(tmp_path: Path, version: str) -> None:
    trace = opened(tmp_path, sample(version), strict=True)
    assert trace.counts() == {"ping": 42, "it": 3}
    assert (
        trace.table("it", ["a", "b", "name", "text", "l"]).drop_columns(["ts", "cpu", "tid", "comm", "buffer"]).to_pylist()
        == [{"a": 5, "b": 6, "name": "seven", "text": "abc", "l": [0x6261, 0x63]}] * 3
    )


@pytest.mark.parametrize("version", VERSIONS)
@given(cut=st.floats(0, 1))
def test_any_truncation_gives_tables_or_a_trace_error(tmp_path_factory: pytest.TempPathFactory, version: str, cut: float) -> None:
    content = sample(version)
    check_damaged(tmp_path_factory.mktemp("cut"), content[: int(cut * len(content))])


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=150)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_any_flipped_bits_give_tables_or_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, version: str, flips: list[tuple[float, int]]
) -> None:
    content = bytearray(sample(version))
    for place, bits in flips:
        content[int(place * len(content))] ^= bits
    check_damaged(tmp_path_factory.mktemp("flipped"), bytes(content))


@pytest.mark.parametrize("version", VERSIONS)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
def test_any_number_made_extreme_gives_tables_or_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, version: str, place: int, size: int, byte: int
) -> None:
    content = bytearray(sample(version))
    at = place % (len(content) - size)
    content[at : at + size] = bytes([byte]) * size
    check_damaged(tmp_path_factory.mktemp("extreme"), bytes(content))
