"""Every format is read from a file, from a pipe, and out of .gz, .xz and .zst; a format can be forced."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from cli.command import Result, run
from conftest import fixture_path

MAIL = fixture_path("mail-6.1.dat")

FTRACE = b"""# tracer: nop
#
# entries-in-buffer/entries-written: 2/2   #P:2
#
           sleep-115     [001] d..2.     1.500000: sched_waking: comm=a pid=7
          <idle>-0       [001] d..2.     1.500003: sched_waking: comm=c pid=8
"""
REPORT = b"""cpus=2
           sleep-115   [001]     6.200671677: page_fault_user:      address=0x7f00 ip=0x7f00 error_code=0x14
"""
SCRIPT = b"sleep   115/115   [001]     6.200671677: exceptions:page_fault_user: address=0x7f00 ip=0x7f00 error_code=0x14\n"

#: Of each format: its name for --input-format, and what the format is called.
FORMATS = {
    "trace.dat": "trace.dat v7",
    "perf.data": "perf.data",
    "ftrace-text": "ftrace text",
    "trace-cmd-text": "trace-cmd report text",
    "perf-script": "perf script text",
    "parquet": "Parquet",
    "arrow": "Arrow file",
}
each_format = pytest.mark.parametrize("form", FORMATS)
PACKS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "xz": lzma.compress, "zstd": zstandard.ZstdCompressor().compress}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trace of each format."""
    from tracetool.export import export
    from tracetool_parsers import open_trace

    folder = tmp_path_factory.mktemp("traces")
    made = {"trace.dat": MAIL, "perf.data": fixture_path("snapshot-sw-6.1.perf.data")}
    for form, content in {"ftrace-text": FTRACE, "trace-cmd-text": REPORT, "perf-script": SCRIPT}.items():
        made[form] = folder / form
        made[form].write_bytes(content)
    export(open_trace(MAIL), folder / "parquet", "parquet")
    export(open_trace(MAIL), folder / "arrow", "arrow")
    return {**made, "parquet": folder / "parquet", "arrow": folder / "arrow"}


@contextlib.contextmanager
def standard_input(content: bytes) -> Iterator[None]:
    """Standard input is a pipe that gives `content`."""
    reading, writing = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    kept = os.dup(0)
    feeder = threading.Thread(target=feed)
    feeder.start()
    os.dup2(reading, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)
        feeder.join()


def told(result: Result) -> dict[str, object]:
    """What `info --json` says."""
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert isinstance(said, dict)
    return said


def test_all_formats_are_here(capfd: pytest.CaptureFixture[str]) -> None:
    from tracetool_parsers.sniff import Format

    assert set(FORMATS) == {form.value for form in Format}


@each_format
def test_a_pipe_is_read_as_the_file_is(form: str, files: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    by_name = told(run(capfd, "info", "--json", files[form]))
    with standard_input(files[form].read_bytes()):
        piped = told(run(capfd, "info", "--json", "-"))
    assert by_name["format"] == piped["format"] == FORMATS[form]
    assert by_name["events"]
    assert piped == {**by_name, "path": "-"}
    events = run(capfd, "events", files[form], "--format", "csv")
    with standard_input(files[form].read_bytes()):
        assert run(capfd, "events", "-", "--format", "csv").out == events.out
    assert len(events.out.splitlines()) == int(str(by_name["events"])) + 1


@each_format
@pytest.mark.parametrize("pack", PACKS)
def test_a_compressed_file_is_read_as_the_plain_one_is(
    form: str, pack: str, files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(PACKS[pack](files[form].read_bytes()))
    plain, unpacked = told(run(capfd, "info", "--json", files[form])), told(run(capfd, "info", "--json", packed))
    details = plain["details"]
    assert isinstance(details, dict)
    assert unpacked == {**plain, "path": str(packed), "details": {**details, "unpacked from": pack}}
    assert run(capfd, "events", packed, "--format", "csv").out == run(capfd, "events", files[form], "--format", "csv").out


@each_format
def test_the_format_can_be_forced(form: str, files: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    assert told(run(capfd, "info", "--json", "--input-format", form, files[form]))["format"] == FORMATS[form]


@each_format
@pytest.mark.parametrize("verb", ["info", "events", "replay"])
def test_another_format_cannot_be_forced(verb: str, form: str, files: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    texts = ("ftrace-text", "trace-cmd-text")
    for other in FORMATS:
        # The texts of tracefs and of trace-cmd have one reader.
        if other == form or (other in texts and form in texts):
            continue
        result = run(capfd, verb, "--input-format", other, files[form])
        assert result.code == 1, (other, result.out)
        lines = result.err.splitlines()
        assert lines[0].startswith(f"error: {files[form]}: ")
        assert other in lines[0]
        assert lines[1].startswith("hint: ")


def test_a_format_that_does_not_exist_is_wrong_usage(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, "info", "--input-format", "perfdata", MAIL)
    assert result.code == 2
    assert "trace-cmd-text" in result.err


@pytest.mark.parametrize("verb", ["replay", "info", "events", "pages", "export"])
def test_every_verb_that_reads_takes_a_format_and_strict(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    help_text = run(capfd, verb, "--help").out
    assert "--input-format" in help_text
    assert "--strict" in help_text


def test_a_folder_of_perf_record_is_read(files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "perf.data"
    folder.mkdir()
    (folder / "data").write_bytes(files["perf.data"].read_bytes())
    alone = told(run(capfd, "info", "--json", files["perf.data"]))
    assert told(run(capfd, "info", "--json", folder))["counts"] == alone["counts"]


@pytest.mark.parametrize("pack", PACKS)
def test_a_compressed_file_that_is_cut_is_read_with_a_loss(pack: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Random names keep the codecs from packing lines into so few bytes that the cut leaves none.
    lines = "".join(f"  {os.urandom(6).hex()}-{i} [001]     6.{i:09}: tick: x={os.urandom(8).hex()}\n" for i in range(1, 20_000))
    content = PACKS[pack](f"cpus=2\n{lines}".encode())
    packed = tmp_path / "packed"
    packed.write_bytes(content[: len(content) // 2])
    result = run(capfd, "info", "--check", packed)
    assert result.code == 3
    assert f"its {pack} data break off at byte {len(content) // 2}" in result.out
    assert "truncated file" in result.out
    strict = run(capfd, "info", "--check", "--strict", packed)
    assert strict.code == 1
    assert f"(at byte {len(content) // 2})" in strict.err


def test_strict_makes_damage_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from parsers.writer import data, ping, pings, subbuffer

    path = tmp_path / "trace.dat"
    path.write_bytes(pings(subbuffer(10, data(ping(1))), subbuffer(30, data(ping(4)), commit=(1 << 27) - 4)).write("v6"))
    assert run(capfd, "info", path).code == 0
    for verb in (["info"], ["events"], ["replay"], ["pages", "--at", "1"], ["export", "--to", "arrow", "-o", tmp_path / "out"]):
        result = run(capfd, *verb, "--strict", path)
        assert result.code == 1
        assert "damaged sub-buffer" in result.err
        assert "at byte" in result.err


def test_an_empty_pipe_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with standard_input(b""):
        result = run(capfd, "info", "-")
    assert result.code == 1
    assert "error: -: is empty" in result.err
