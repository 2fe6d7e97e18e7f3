"""Values as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracetool.foreign import printable
from tracetool.report.words import counted, duration, hexadecimal, listed, since, size


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_whatever_a_trace_says_becomes_printable_and_stays_so(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode("utf-8")


@given(st.text().filter(str.isprintable))
def test_what_is_printable_is_left_alone(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [("\x1b[2J", r"\x1b[2J"), ("a\nb", r"a\nb"), ("\u202eevil", r"\u202eevil"), ("\udcff", r"\udcff"), ("\u2028", r"\u2028")],
)
def test_control_direction_and_broken_characters_are_shown_as_escapes(foreign: str, shown: str) -> None:
    assert printable(foreign) == shown


@pytest.mark.parametrize(
    ("ns", "shown"),
    [(0, "0 ns"), (999, "999 ns"), (2000, "2.00 µs"), (39_600_000, "39.6 ms"), (-1500, "-1.50 µs"), (7_200_000_000_000, "7,200 s")],
)
def test_durations_have_three_digits(ns: int, shown: str) -> None:
    assert duration(ns) == shown


@pytest.mark.parametrize(
    ("ns", "span", "shown"),
    [(5_936_000, 9_000_000, "+5.936 ms"), (5_936, 900_000, "+5.936 µs"), (5_936_000, 20_000_000_000, "+0.005936 s"), (0, 0, "+0.000 µs")],
)
def test_moments_of_a_span_share_its_unit(ns: int, span: int, shown: str) -> None:
    assert since(ns, span) == shown


@pytest.mark.parametrize(
    ("length", "shown"), [(0, "0 bytes"), (4096, "4 KiB"), (6 * 1024**2, "6 MiB"), (1023 * 1024, "1.0 MiB"), (1536, "1.5 KiB")]
)
def test_sizes_are_in_binary_units(length: int, shown: str) -> None:
    assert size(length) == shown


def test_small_words() -> None:
    assert [counted(1, "copy", "copies"), counted(1200, "fault")] == ["1 copy", "1,200 faults"]
    assert [listed([]), listed(["a"]), listed(["a", "b", "c"])] == ["", "a", "a, b and c"]
    assert [hexadecimal(None), hexadecimal(0x1000)] == ["?", "0x1000"]
