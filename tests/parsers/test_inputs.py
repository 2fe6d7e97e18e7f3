"""Bytes come from files, pipes and devices, plain or compressed; what is whole of them is there, and memory stays bounded."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tempfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tracetool_parsers import ParseError, TraceError
from tracetool_parsers.inputs import read_input

Pack = Callable[[bytes], bytes]

# Not compressible, so that a cut leaves about as much of it as of the packed bytes; larger than every step of the unpackers.
CONTENT = b"not a magic" + os.urandom(300_000)


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def plain_zstd_stream(content: bytes) -> bytes:
    """A frame without the size of its content, as `zstd < pipe` writes."""
    writer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return writer.compress(content) + writer.flush()


PACKS: dict[str, Pack] = {"gzip": gzip.compress, "xz": lzma.compress, "zstd": zstd}
each_pack = pytest.mark.parametrize("name", PACKS)


def test_a_file_is_mapped_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    given_ = read_input(str(path))
    assert (bytes(given_.data), given_.packings, given_.broken) == (CONTENT, (), None)


@each_pack
def test_a_compressed_file_is_unpacked_whatever_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.dat"
    path.write_bytes(PACKS[name](CONTENT))
    given_ = read_input(str(path))
    assert bytes(given_.data) == CONTENT
    assert given_.packings == (name,)
    assert given_.broken is None


@each_pack
def test_members_in_a_row_are_one_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    pack = PACKS[name]
    path.write_bytes(pack(b"first, ") + pack(b"") + pack(CONTENT) + pack(b" last"))
    assert bytes(read_input(str(path)).data) == b"first, " + CONTENT + b" last"


@pytest.mark.parametrize("name", ["gzip", "xz"])
def test_zero_bytes_after_a_member_are_padding(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    pack = PACKS[name]
    path.write_bytes(pack(b"first, ") + bytes(100_000) + pack(b"last") + bytes(8))
    given_ = read_input(str(path))
    assert bytes(given_.data) == b"first, last"
    assert given_.broken is None


def test_zstd_frames_without_a_size_and_frames_to_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    skipped = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    path.write_bytes(skipped + plain_zstd_stream(CONTENT) + skipped + plain_zstd_stream(b"end"))
    given_ = read_input(str(path))
    assert bytes(given_.data) == CONTENT + b"end"
    assert given_.packings == ("zstd",)


@each_pack
@pytest.mark.parametrize("inside", PACKS)
def test_a_compressed_file_in_a_compressed_file(name: str, inside: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKS[name](PACKS[inside](CONTENT)))
    given_ = read_input(str(path))
    assert bytes(given_.data) == CONTENT
    assert given_.packings == (name, inside)


def test_deeper_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(gzip.compress(gzip.compress(CONTENT))))
    with pytest.raises(ParseError, match="more than 2 times") as caught:
        read_input(str(path))
    assert caught.value.hint


@each_pack
@pytest.mark.parametrize("share", [0.4, 0.7, 0.999])
def test_what_is_whole_of_a_truncated_file_is_there(name: str, share: float, tmp_path: Path) -> None:
    packed = PACKS[name](CONTENT)
    cut = int(len(packed) * share)
    path = tmp_path / "file"
    path.write_bytes(packed[:cut])
    given_ = read_input(str(path))
    assert CONTENT.startswith(bytes(given_.data))
    # A block of zstd, the largest unit that cannot be unpacked in part, is 128 KiB.
    assert len(given_.data) > len(CONTENT) * share - (1 << 17)
    assert given_.broken is not None
    assert (given_.broken.source, given_.broken.offset) == ("truncated file", cut)
    with pytest.raises(ParseError, match="truncated file") as caught:
        read_input(str(path), strict=True)
    assert caught.value.offset == cut


@each_pack
def test_a_truncated_second_member_is_told(name: str, tmp_path: Path) -> None:
    first, second = PACKS[name](b"first"), PACKS[name](b"second")
    path = tmp_path / "file"
    path.write_bytes(first + second[:-1])
    given_ = read_input(str(path))
    assert bytes(given_.data).startswith(b"first")
    assert given_.broken is not None
    assert given_.broken.offset == len(first + second) - 1


@each_pack
def test_damage_inside_ends_what_is_read(name: str, tmp_path: Path) -> None:
    packed = bytearray(PACKS[name](CONTENT))
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(64)
    path = tmp_path / "file"
    path.write_bytes(packed)
    given_ = read_input(str(path))
    assert given_.broken is not None
    assert given_.broken.source == f"damaged {name} data"
    assert len(given_.data) > 100_000
    assert CONTENT[:100_000] == given_.data[:100_000]


def test_a_wrong_checksum_keeps_the_content(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"small"))
    packed[-8] ^= 1
    path = tmp_path / "file"
    path.write_bytes(packed)
    given_ = read_input(str(path))
    assert bytes(given_.data) == b"small"
    assert given_.broken is not None
    assert given_.broken.source == "damaged gzip data"


@each_pack
def test_something_else_after_the_last_member_is_damage(name: str, tmp_path: Path) -> None:
    packed = PACKS[name](CONTENT)
    path = tmp_path / "file"
    path.write_bytes(packed + b"something else that is long enough")
    given_ = read_input(str(path))
    assert bytes(given_.data) == CONTENT
    assert given_.broken is not None
    assert given_.broken.source == f"damaged {name} data"


@each_pack
@given(st.data())
def test_no_mutation_gives_anything_but_content_damage_or_an_error(name: str, data: st.DataObject) -> None:
    content = CONTENT[:3000]
    packed = bytearray(PACKS[name](content) + PACKS[name](b"more"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packed) - 1))
        packed[at] ^= data.draw(st.integers(1, 255))
    with tempfile.NamedTemporaryFile() as file:
        file.write(packed)
        file.flush()
        try:
            given_ = read_input(file.name)
        except ParseError as error:
            place = (error.path, error.offset is None)
            given_ = None
    if given_ is None:
        assert place == (file.name, False)
        return
    if not given_.packings:
        assert given_.data == packed
    elif given_.broken is None:
        # A header's name or time may have changed, and zeros become padding; the checks see everything else.
        assert (content + b"more").startswith(bytes(given_.data)) or bytes(given_.data) == b"more"


def test_nothing_to_unpack_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(CONTENT)[:8])
    with pytest.raises(ParseError, match="truncated file: its gzip data") as caught:
        read_input(str(path))
    assert caught.value.offset == 8


@each_pack
def test_memory_stays_bounded(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKS[name](bytes(50_000_000)))
    tracemalloc.start()
    try:
        given_ = read_input(str(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(given_.data) == 50_000_000
    assert peak < 40_000_000


def test_what_was_made_to_fill_a_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    # 200 MB in about 6 kB; a second layer makes it 200 bytes.
    path.write_bytes(zstd(zstd(bytes(200_000_000))))
    with pytest.raises(ParseError, match="unpacks to more than"):
        read_input(str(path))


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(gzip.compress(CONTENT)))
    writer.start()
    given_ = read_input(str(fifo))
    writer.join()
    assert bytes(given_.data) == CONTENT
    assert given_.packings == ("gzip",)


def test_a_file_that_has_no_size_is_read_to_its_end() -> None:
    # As the files of tracefs, those of /proc have content and no size.
    assert os.stat("/proc/version").st_size == 0
    assert bytes(read_input("/proc/version").data) == Path("/proc/version").read_bytes()


def test_an_empty_pipe_has_no_bytes(tmp_path: Path) -> None:
    assert len(read_input(os.devnull).data) == 0


def test_no_room_for_a_temporary_file_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(CONTENT))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(TraceError, match="temporary file") as caught:
        read_input(str(path))
    assert "TMPDIR" in str(caught.value.hint)


def test_a_full_disk_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(CONTENT))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: io.FileIO("/dev/full", "wb"))
    with pytest.raises(TraceError, match="No space left") as caught:
        read_input(str(path))
    assert "TMPDIR" in str(caught.value.hint)
