"""Fields of every kind become columns of their own type."""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.writer import Instance, Trace, common, data, format_text, long_data, one_event, subbuffer
from tracetool_parsers import RawTrace, UnknownEvent, open_trace


def opened(folder: Path, trace: Trace) -> RawTrace:
    path = folder / "trace.dat"
    path.write_bytes(trace.write("v6"))
    return open_trace(path)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("signed", [0, 1])
def test_integers_keep_width_and_sign(tmp_path: Path, size: int, signed: int) -> None:
    values = [-1, -(1 << (8 * size - 1)), 5] if signed else [0, (1 << 8 * size) - 1, 5]
    payloads = [value.to_bytes(size, "little", signed=bool(signed)).ljust(8, b"\xee") for value in values]
    column = opened(tmp_path, one_event("it", [("some_type x", 8, size, signed)], *payloads)).table("it")["x"]
    assert column.type == getattr(pa, f"{'' if signed else 'u'}int{8 * size}")()
    assert column.to_pylist() == values


@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_integers_may_lie_at_any_byte(tmp_path: Path, offset: int, size: int) -> None:
    body = bytes(range(0x81, 0x91))
    column = opened(tmp_path, one_event("it", [("u64 x", 8 + offset, size, 0)], body, body)).table("it")["x"]
    assert column.to_pylist() == [int.from_bytes(body[offset : offset + size], "little")] * 2


def test_pointers_are_unsigned(tmp_path: Path) -> None:
    trace = opened(tmp_path, one_event("it", [("const struct iovec * vec", 8, 8, 0)], struct.pack("<Q", 0xFFFF888000000000)))
    assert trace.table("it")["vec"].to_pylist() == [0xFFFF888000000000]


def test_char_arrays_are_text_up_to_the_nul(tmp_path: Path) -> None:
    payloads = [b"some name\0junk..", b"\0" * 16, b"sixteen letters!", b"caf\xc3\xa9 \xff\0".ljust(16, b"\0")]
    trace = opened(tmp_path, one_event("it", [("char name[16]", 8, 16, 1)], *payloads))
    assert trace.table("it")["name"].to_pylist() == ["some name", "", "sixteen letters!", "café �"]
    assert trace.table("it").schema.field("name").type == pa.string()


def test_text_at_an_odd_byte(tmp_path: Path) -> None:
    trace = opened(tmp_path, one_event("it", [("u8 x", 8, 1, 0), ("char func[31]", 9, 31, 0)], b"\x07do_page_fault".ljust(32, b"\0")))
    assert trace.table("it").select(["x", "func"]).to_pylist() == [{"x": 7, "func": "do_page_fault"}]


def test_arrays_of_numbers_are_lists(tmp_path: Path) -> None:
    fields = [("u8 raw[4]", 8, 4, 0), ("unsigned long caller[2]", 16, 16, 0), ("s16 pair[PAIRS]", 32, 4, 1)]
    payload = bytes([1, 0, 255, 3]) + bytes(4) + struct.pack("<QQ", 1 << 63, 2) + struct.pack("<hh", -1, 300)
    trace = opened(tmp_path, one_event("it", fields, payload))
    table = trace.table("it").select(["raw", "caller", "pair"])
    assert table.schema.types == [pa.list_(pa.uint8()), pa.list_(pa.uint64()), pa.list_(pa.int16())]
    assert table.to_pylist() == [{"raw": [1, 0, 255, 3], "caller": [1 << 63, 2], "pair": [-1, 300]}]


def test_unsigned_char_arrays_are_numbers(tmp_path: Path) -> None:
    trace = opened(tmp_path, one_event("it", [("unsigned char mac[6]", 8, 6, 0)], bytes([1, 2, 0, 4, 5, 6])))
    assert trace.table("it")["mac"].to_pylist() == [[1, 2, 0, 4, 5, 6]]


def test_data_loc_points_from_the_start_of_the_record(tmp_path: Path) -> None:
    fields = [("__data_loc char[] filename", 8, 4, 0), ("pid_t pid", 12, 4, 1)]
    payload = struct.pack("<Ii", 16 | 8 << 16, 99) + b"/bin/sh\0"
    assert opened(tmp_path, one_event("it", fields, payload)).table("it").select(["filename", "pid"]).to_pylist() == [
        {"filename": "/bin/sh", "pid": 99}
    ]


def test_rel_loc_points_from_the_end_of_its_descriptor(tmp_path: Path) -> None:
    fields = [("__rel_loc char[] filename", 8, 4, 0), ("pid_t pid", 12, 4, 1)]
    payload = struct.pack("<Ii", 4 | 8 << 16, 99) + b"/bin/sh\0"
    assert opened(tmp_path, one_event("it", fields, payload)).table("it")["filename"].to_pylist() == ["/bin/sh"]


def test_dynamic_arrays_of_numbers(tmp_path: Path) -> None:
    fields = [("__data_loc u32[] ids", 8, 4, 0)]
    payloads = [struct.pack("<III", 12 | 8 << 16, 7, 8), struct.pack("<I", 12 | 0 << 16)]
    assert opened(tmp_path, one_event("it", fields, *payloads)).table("it")["ids"].to_pylist() == [[7, 8], []]


def test_dynamic_field_that_points_outside_its_record_is_clamped(tmp_path: Path) -> None:
    fields = [("__data_loc char[] name", 8, 4, 0)]
    payloads = [struct.pack("<I", 0xFFFF | 8 << 16), struct.pack("<I", 12 | 0xFFFF << 16) + b"abcd"]
    assert opened(tmp_path, one_event("it", fields, *payloads)).table("it")["name"].to_pylist() == ["", "abcd"]


def test_text_of_size_zero_goes_on_to_the_end_of_the_record(tmp_path: Path) -> None:
    fields = [("unsigned long ip", 8, 8, 0), ("char buf[]", 16, 0, 0)]
    payloads = [bytes(8) + b"hello world\n\0\0\0\0", bytes(8) + b"to the end..", bytes(8)]
    assert opened(tmp_path, one_event("print", fields, *payloads)).table("print")["buf"].to_pylist() == [
        "hello world\n",
        "to the end..",
        "",
    ]


def test_numbers_of_size_zero_go_on_to_the_end_of_the_record(tmp_path: Path) -> None:
    fields = [("unsigned long func", 8, 8, 0), ("unsigned long args[]", 16, 0, 0)]
    payloads = [bytes(8) + struct.pack("<QQ", 1, 2), bytes(8), bytes(8) + struct.pack("<QI", 3, 4)]
    assert opened(tmp_path, one_event("it", fields, *payloads)).table("it")["args"].to_pylist() == [[1, 2], [], [3]]


def test_field_that_a_record_is_too_short_for_is_null(tmp_path: Path) -> None:
    fields = [("u32 a", 8, 4, 0), ("u64 b", 16, 8, 0), ("u8 c[4]", 24, 4, 0), ("char d[4]", 28, 4, 0)]
    payloads = [bytes(4), struct.pack("<IIQ", 1, 0, 2) + b"\x01\x02\x03\x04abcd"]
    assert opened(tmp_path, one_event("it", fields, *payloads)).table("it").select(["a", "b", "c", "d"]).to_pylist() == [
        {"a": 0, "b": None, "c": None, "d": None},
        {"a": 1, "b": 2, "c": [1, 2, 3, 4], "d": "abcd"},
    ]


def test_field_named_like_a_header_column_gets_a_suffix(tmp_path: Path) -> None:
    fields = [("char comm[4]", 8, 4, 0), ("int cpu", 12, 4, 1)]
    table = opened(tmp_path, one_event("it", fields, b"abc\0" + struct.pack("<i", 9))).table("it")
    assert table.column_names == ["ts", "cpu", "tid", "comm", "comm_field", "cpu_field"]
    assert table.select(["cpu", "comm_field", "cpu_field"]).to_pylist() == [{"cpu": 0, "comm_field": "abc", "cpu_field": 9}]


def test_fields_are_chosen_and_ordered_by_the_caller(tmp_path: Path) -> None:
    fields = [("u32 a", 8, 4, 0), ("u32 b", 12, 4, 0), ("u32 c", 16, 4, 0)]
    trace = opened(tmp_path, one_event("it", fields, struct.pack("<III", 1, 2, 3)))
    assert trace.table("it", ["c", "a"]).column_names == ["ts", "cpu", "tid", "comm", "c", "a"]
    assert trace.table("it", []).column_names == ["ts", "cpu", "tid", "comm"]


def test_fields_of_the_probe_itself_are_there_when_named(tmp_path: Path) -> None:
    fields = [("unsigned long __probe_ip", 8, 8, 0), ("u64 mm", 16, 8, 0)]
    trace = opened(tmp_path, one_event("it", fields, struct.pack("<QQ", 5, 6)))
    assert trace.table("it").column_names == ["ts", "cpu", "tid", "comm", "mm"]
    assert trace.table("it", ["mm", "__probe_ip"])["__probe_ip"].to_pylist() == [5]


def test_unknown_field_names_the_nearest(tmp_path: Path) -> None:
    trace = opened(tmp_path, one_event("it", [("u32 address", 8, 4, 0)], bytes(4)))
    with pytest.raises(UnknownEvent, match="no field of it 'adress'") as caught:
        trace.table("it", ["adress"])
    assert caught.value.hint == "did you mean 'address'? there is: address"


def test_event_without_records_has_an_empty_table_of_its_types(tmp_path: Path) -> None:
    silent = format_text("silent", 401, [("u64 x", 8, 8, 0), ("char y[4]", 16, 4, 0), ("u16 z[2]", 20, 4, 0)])
    trace = one_event("it", [("u32 a", 8, 4, 0)], bytes(4))
    trace.systems = {"test": [*trace.systems["test"], silent]}
    table = opened(tmp_path, trace).table("silent")
    assert table.num_rows == 0
    assert table.select(["x", "y", "z"]).schema.types == [pa.uint64(), pa.string(), pa.list_(pa.uint16())]
    assert table.schema.field("ts").type == pa.int64()


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.lists(st.tuples(texts, st.lists(st.integers(0, 2**16 - 1), max_size=5), st.integers(-(2**63), 2**63 - 1)), max_size=8))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[int], int]]) -> None:
    fields = [("s64 n", 8, 8, 1), ("__data_loc char[] text", 16, 4, 0), ("__rel_loc u16[] list", 20, 4, 0)]
    records = []
    for text, numbers, number in rows:
        body, tail = text.encode() + b"\0", struct.pack(f"<{len(numbers)}H", *numbers)
        located = 24 | len(body) << 16, len(body) | len(tail) << 16
        payload = common(400, 3) + struct.pack("<qII", number, *located) + body + tail
        records.append((data if len(payload) <= 112 else long_data)(payload))
    trace = Trace([Instance({0: [subbuffer(0, *records)]})], {"test": [format_text("it", 400, fields)]})
    table = opened(tmp_path_factory.mktemp("written"), trace).table("it")
    assert list(zip(*(table[name].to_pylist() for name in ("text", "list", "n")), strict=True)) == rows
