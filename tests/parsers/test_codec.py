"""Decompression is bounded by what is stated."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from parsers.writer import pack
from tracetool_parsers import ParseError
from tracetool_parsers.codec import unpack, unpack_section, unpacked_start
from tracetool_parsers.cursor import Cursor

CODECS = ["zstd", "zlib"]


@pytest.mark.parametrize("codec", CODECS)
@given(st.binary(max_size=500))
def test_what_was_packed_is_unpacked(codec: str, block: bytes) -> None:
    if block or codec == "zlib":
        assert unpack(codec, memoryview(pack(codec, block)), len(block), path="x", offset=0) == block


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("stated", [0, 99, 101, 1 << 20])
def test_another_size_than_stated_is_refused(codec: str, stated: int) -> None:
    with pytest.raises(ParseError) as caught:
        unpack(codec, memoryview(pack(codec, bytes(100))), stated, path="x", offset=9)
    assert (caught.value.path, caught.value.offset) == ("x", 9)


@pytest.mark.parametrize("codec", CODECS)
def test_bomb_yields_no_more_than_it_states(codec: str) -> None:
    block = bytes(64 << 20)
    packed = zlib.compress(block) if codec == "zlib" else zstandard.ZstdCompressor(write_content_size=True).compress(block)
    tracemalloc.start()
    with pytest.raises(ParseError):
        unpack(codec, memoryview(packed), 4096, path="x", offset=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_zstd_frame_that_names_its_size_is_read() -> None:
    packed = zstandard.ZstdCompressor(write_content_size=True).compress(b"metadata")
    assert unpack("zstd", memoryview(packed), 8, path="x", offset=0) == b"metadata"


def section(packed: bytes, size: int) -> Cursor:
    return Cursor(memoryview(struct.pack("<II", len(packed), size) + packed), "x")


def test_section_is_unpacked() -> None:
    cursor = section(pack("zstd", b"text" * 100), 400)
    assert bytes(unpack_section("zstd", cursor, cursor.end)) == b"text" * 100


def test_section_that_states_more_than_text_shrinks_to_is_refused() -> None:
    cursor = section(pack("zstd", b"text"), 1 << 31)
    with pytest.raises(ParseError, match="states 2147483648 unpacked"):
        unpack_section("zstd", cursor, cursor.end)


def test_section_longer_than_its_header_says_is_refused() -> None:
    cursor = section(pack("zstd", b"text"), 4)
    with pytest.raises(ParseError, match="needs"):
        unpack_section("zstd", cursor, cursor.end - 1)


@pytest.mark.parametrize("codec", CODECS)
@given(st.binary(min_size=1, max_size=200), st.integers(0, 99), st.integers(0, 255))
def test_start_of_a_block_is_unpacked_alone(codec: str, block: bytes, place: int, byte: int) -> None:
    packed = pack(codec, block)
    assert unpacked_start(codec, memoryview(packed), 8) == block[:8]
    damaged = bytearray(packed)
    damaged[place % len(damaged)] = byte
    assert len(unpacked_start(codec, memoryview(damaged), 8)) <= 8
