"""The cost table: what is shipped is what was measured and published, and a user's own takes its place, or says which line is wrong."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pytest

from tracetool.costs import prices
from tracetool.costs.prices import Price, Prices
from tracetool.errors import TraceError, UnknownName, Unusable

US: Final = 1_000
MS: Final = 1_000_000

#: What was measured, in the units and words of the measurements: entry -> least, default, most (us; of fork ms for a GiB).
MEASURED: Final = {
    "reuse_fault": (0.83 * US, 0.9 * US, 1.5 * US),
    "copy_fault": (2.6 * US, 2.9 * US, 6.1 * US),
    "zero_fill_fault": (2.1 * US, 2.2 * US, 5.9 * US),
    "read_zero_fault": (0.75 * US, 0.9 * US, 1.8 * US),
    "copy_4k": (0.12 * US, 0.4 * US, 0.54 * US),
    "copy_2m": (330 * US, 330 * US, 330 * US),
    "huge_split_fault": (13 * US, 20 * US, 116 * US),
    "huge_reuse_fault": (0.8 * US, 0.9 * US, 1.0 * US),
    "hugetlb_copy_fault": (350 * US, 350 * US, 2.1 * MS),
    "vmsplice_page": (0.08 * US, 0.08 * US, 0.08 * US),
    "process_vm_readv_page": (0.57 * US, 0.57 * US, 0.57 * US),
    "fork_gib": (9 * MS, 28 * MS, 32 * MS),
    "fork_huge_gib": (0.9 * MS, 1.25 * MS, 1.6 * MS),
    "tlb_shootdown": (1 * US, 1.5 * US, 3 * US),
    "tlb_shootdown_cpu": (0.2 * US, 0.2 * US, 0.2 * US),
}


def user_table(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_shipped_table_is_what_was_measured() -> None:
    table = prices.load(None)
    found = {field.name: getattr(table, field.name) for field in fields(Prices)}
    rounded = {name: tuple(round(ns) for ns in (price.low_ns, price.value_ns, price.high_ns)) for name, price in found.items()}
    assert rounded == {name: tuple(round(ns) for ns in measured) for name, measured in MEASURED.items()}
    assert all(price.source for price in found.values())


def test_the_shipped_file_has_the_entries_of_the_table_and_no_other() -> None:
    text = resources.files("tracetool.costs").joinpath("costs.toml").read_text("utf-8")
    assert list(tomllib.loads(text)) == [field.name for field in fields(Prices)]


def test_one_more_copy_is_a_copy_less_a_reuse() -> None:
    """2.9 us less 0.9 us; at the least the fastest copy less the slowest reuse, at the most the other way round."""
    extra = prices.load(None).extra_copy
    assert (extra.value_ns, extra.low_ns, extra.high_ns) == pytest.approx((2_000, 1_100, 5_270))


def test_one_more_copy_never_costs_less_than_nothing() -> None:
    slow = Price(9_000, 9_000, 9_000, "made up")
    extra = replace(prices.load(None), reuse_fault=slow).extra_copy
    assert (extra.low_ns, extra.value_ns, extra.high_ns) == (0, 0, 0)


@pytest.mark.parametrize(
    ("threads", "cpus", "ns"),
    [
        pytest.param(1, 8, 0, id="one thread tells nobody"),
        pytest.param(0, 8, 0, id="no thread known"),
        pytest.param(2, 8, 1_500 + 200, id="two threads, on two CPUs"),
        pytest.param(4, 8, 1_500 + 3 * 200, id="four threads, on four CPUs"),
        pytest.param(64, 8, 1_500 + 7 * 200, id="no more CPUs than there are"),
        pytest.param(64, 1, 0, id="one CPU has nobody to tell"),
        pytest.param(3, 0, 1_500 + 2 * 200, id="CPUs not known: one a thread"),
    ],
)
def test_telling_other_cpus(threads: int, cpus: int, ns: float) -> None:
    assert prices.load(None).shootdown_ns([threads], cpus).tolist() == [ns]


def test_a_users_entries_take_the_place_of_the_shipped_ones_alone(tmp_path: Path) -> None:
    path = user_table(
        tmp_path,
        'copy_4k = 250\n[copy_fault]\nvalue_ns = 2_500.5\nlow_ns = 2_400\nhigh_ns = 2_700\nsource = "db7"\n[reuse_fault]\nvalue_ns = 700\n',
    )
    table, shipped = prices.load(path), prices.load(None)
    assert table.copy_fault == Price(2_500.5, 2_400, 2_700, "db7")
    assert table.reuse_fault == Price(700, 700, 700, path)
    assert table.copy_4k == Price(250, 250, 250, path)
    same = [field.name for field in fields(Prices) if getattr(table, field.name) == getattr(shipped, field.name)]
    assert set(same) == set(MEASURED) - {"copy_fault", "reuse_fault", "copy_4k"}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        pytest.param("\n\nreuse_fault = -1", 3, "reuse_fault is -1", id="below 0"),
        pytest.param("reuse_fault = inf", 1, "reuse_fault is inf", id="infinite"),
        pytest.param("reuse_fault = nan", 1, "reuse_fault is nan", id="no number"),
        pytest.param(f"reuse_fault = {'9' * 400}", 1, "reuse_fault is 9", id="past all floats"),
        pytest.param("reuse_fault = true", 1, "reuse_fault is True", id="a truth"),
        pytest.param('reuse_fault = "1 us"', 1, "reuse_fault is '1 us'", id="a text"),
        pytest.param("reuse_fault = [1]", 1, "reuse_fault is [1]", id="a list"),
        pytest.param("[copy_4k]\nvalue_ns = 1\n\n[reuse_fault]\nlow_ns = 3\nvalue_ns = 2", 5, "reuse_fault.low_ns is 3, above", id="low"),
        pytest.param("[reuse_fault]\nvalue_ns = 2\nhigh_ns = 1", 3, "reuse_fault.high_ns is 1, below", id="high"),
        pytest.param("[reuse_fault]\nlow_ns = 2", 1, "reuse_fault has no value_ns", id="no value"),
        pytest.param("[reuse_fault]\nvalue_ns = 2\nsource = 7", 3, "reuse_fault.source is 7", id="a source that is a number"),
        pytest.param("[reuse_fault]\nvalue_ns = -0.5", 2, "reuse_fault.value_ns is -0.5", id="a table's value"),
        pytest.param("reuse_fault.value_ns = 'x'", 1, "reuse_fault.value_ns is 'x'", id="a dotted key"),
        pytest.param("copy_4k = 1\nreuse_fault = {value_ns = -3}", 2, "reuse_fault.value_ns is -3", id="an inline table"),
    ],
)
def test_what_cannot_be_a_price_is_named_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    path = user_table(tmp_path, text)
    with pytest.raises(Unusable) as raised:
        prices.load(path)
    assert str(raised.value).startswith(f"{path}: line {line}: {says}")
    assert raised.value.exit_code == 2
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "line", "says", "near"),
    [
        ("a = 1\nreuse_falt = 5", 1, "no entry of the cost table 'a'", None),
        ("copy_4k = 1\nreuse_falt = 5", 2, "no entry of the cost table 'reuse_falt'", "reuse_fault"),
        ("[reuse_fault]\nvalue_ns = 1\nhihg_ns = 5", 3, "no key of reuse_fault 'hihg_ns'", "high_ns"),
    ],
)
def test_names_that_are_not_known_get_the_nearest(tmp_path: Path, text: str, line: int, says: str, near: str | None) -> None:
    with pytest.raises(UnknownName) as raised:
        prices.load(user_table(tmp_path, text))
    assert f": line {line}: {says}" in str(raised.value)
    assert near is None or f"did you mean {near!r}?" in str(raised.value.hint)


@pytest.mark.parametrize("content", [b"reuse_fault = ", b"[reuse_fault", b"\xff\xfe"])
def test_what_is_no_toml_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(Unusable, match="is no TOML"):
        prices.load(str(path))


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        prices.load(str(tmp_path / name))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert prices.load(user_table(tmp_path, "")) == prices.load(None)


def test_the_example_of_the_module_can_be_loaded(tmp_path: Path) -> None:
    example = str(prices.__doc__).split(":\n\n", 1)[1]
    table: dict[str, Any] = tomllib.loads(example)
    loaded = prices.load(user_table(tmp_path, example))
    assert loaded.reuse_fault.value_ns == table["reuse_fault"] == 800
    assert loaded.copy_fault.source == table["copy_fault"]["source"] == "measured on db7"
