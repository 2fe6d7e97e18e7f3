"""`tracetool cost`: as text, as tables, and what it refuses."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest

from cli.command import run
from conftest import fixture_path
from tracetool.costs.attribution import KEYS

MAIL = str(fixture_path("mail-6.1.dat"))


def test_the_price_says_where_it_is_from(capfd: pytest.CaptureFixture[str]) -> None:
    told = run(capfd, "cost", MAIL)
    assert told.code == 0
    assert "One more copy: 2.00 µs" in told.out
    assert ", assumed." in told.out
    assert "Recorded on " in told.out
    for policy in ("observed", "mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive"):
        assert f"\n{policy}: " in told.out


def test_policies_as_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    told = run(capfd, "cost", MAIL, "--format", "csv", "--policy", "mapcount", "--policy", "page-count")
    table = pl.read_csv(io.StringIO(told.out))
    assert table["policy"].to_list() == ["observed", "mapcount", "page-count"]
    # B's store: in place under mapcount, as nobody else maps P0; copied by the others, as a reference holds it.
    assert table["extra_copies"].to_list() == [1, 0, 1]
    assert table["extra_bytes"].to_list() == [4096, 0, 4096]
    assert table["extra_ns"].to_list() == [2000, 0, 2000]
    assert set(table["time"]) == {"assumed"}
    assert table["extra_copies_over_kernel"].to_list() == [0, -1, 0]


@pytest.mark.parametrize("key", KEYS)
def test_sums_by_each_key(key: str, capfd: pytest.CaptureFixture[str]) -> None:
    told = run(capfd, "cost", MAIL, "--by", key, "--format", "csv")
    table = pl.read_csv(io.StringIO(told.out))
    if key == "fork":
        assert sum(table["parent_copies"].to_list() + table["child_copies"].to_list()) > 0
    else:
        assert table["copies"].sum() == 11


def test_a_reference_that_forced_a_copy_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    told = run(capfd, "cost", MAIL, "--by", "reference", "--format", "csv")
    assert "vmsplice get read by cowlab,1,1," in told.out


def test_a_cost_table_of_the_user(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("reuse_fault = 1000\ncopy_fault = 5000\n")
    told = run(capfd, "cost", MAIL, "--costs", str(prices), "--format", "csv", "--policy", "page-count")
    assert pl.read_csv(io.StringIO(told.out))["extra_ns"].to_list() == [4000, 4000]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--costs", "missing.toml"], "missing.toml"),
        (["--symbols", "missing"], "no file 'missing'"),
        (["--scale", "many"], "many"),
        (["--policy", "nothing"], "no policy 'nothing'"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    told = run(capfd, "cost", MAIL, *arguments)
    assert told.code != 0
    assert message in told.err
    assert not told.out


def test_functions_have_names(tmp_path: Path) -> None:
    """A C program of which the address of a function is known to the linker, too."""
    import subprocess

    from tracetool.where.symbols import Symbols

    source = tmp_path / "a.c"
    source.write_text("int stores(int *to) { *to = 1; return 0; }\nint main(void) { int here; return stores(&here); }\n")
    program = tmp_path / "a"
    subprocess.run(["gcc", "-O0", "-no-pie", "-o", program, source], check=True)
    listed = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    at = next(int(line.split()[0], 16) for line in listed.splitlines() if line.endswith(" T stores"))
    symbols = Symbols.of(str(program))
    assert symbols.name(at) == "stores+0x0"
    assert symbols.name(at + 4) == "stores+0x4"
    assert symbols.name(0) is None
    moved = tmp_path / "moved"
    subprocess.run(["gcc", "-O0", "-pie", "-fPIE", "-o", moved, source], check=True)
    assert Symbols.of(str(moved)).base is None
    assert Symbols.of(f"{moved}@0x555555554000").name(0) is None
