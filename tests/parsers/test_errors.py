"""Errors are one line with the place, and a hint apart."""

from __future__ import annotations

from tracetool_parsers import ParseError, TraceError, UnknownEvent


def test_the_line_has_path_message_and_byte() -> None:
    assert str(ParseError("is cut off", path="a.dat", offset=12, hint="copy it")) == "a.dat: is cut off (at byte 12)"


def test_the_line_is_one_line() -> None:
    assert str(TraceError("a\nb", path="c\nd")) == "c d: a b"


def test_parts_are_kept_apart() -> None:
    error = ParseError("bad", path="a", offset=0, event="fork", hint="do")
    assert (error.message, error.path, error.offset, error.event, error.hint) == ("bad", "a", 0, "fork", "do")
    assert error.exit_code == 1


def test_unknown_name_lists_what_there_is_and_the_nearest() -> None:
    error = UnknownEvent.among("event", "gpu", ["gup", "fork"], path="a.dat")
    assert str(error) == "a.dat: no event 'gpu'"
    assert error.hint == "did you mean 'gup'? there is: fork, gup"


def test_the_list_is_bounded() -> None:
    error = UnknownEvent.among("event", "zzz", [f"event{i:04}" for i in range(5000)])
    assert error.hint is not None
    assert error.hint.endswith("event0011 and 4988 more")
    assert len(error.hint) < 200


def test_nothing_to_list() -> None:
    assert UnknownEvent.among("event", "x", []).hint == "there is none"
