"""The text of event formats."""

from __future__ import annotations

import pytest

from parsers.writer import COMMON, format_text
from tracetool_parsers import EventFormat, Field, ParseError
from tracetool_parsers.eventformat import bare_names, common_layout, parse_format


def parsed(text: str, system: str = "test") -> EventFormat:
    return parse_format(text, system, path="x.dat", offset=10)


def field(declaration: str, size: int = 8, signed: int = 0) -> Field:
    return parsed(format_text("it", 1, [(declaration, 8, size, signed)])).fields[0]


def test_name_id_and_fields() -> None:
    event = parsed(format_text("ping", 300, [("u64 value", 8, 8, 0)], '"value=%llu", REC->value'), "kmem")
    assert (event.system, event.name, event.id, event.full_name) == ("kmem", "ping", 300, "kmem:ping")
    assert [each.name for each in event.common] == [declaration.split()[-1] for declaration, *_ in COMMON]
    assert [(each.name, each.type, each.offset, each.size, each.signed) for each in event.fields] == [("value", "u64", 8, 8, False)]
    assert event.print_format == '"value=%llu", REC->value'


@pytest.mark.parametrize(
    ("declaration", "kind", "name"),
    [
        ("unsigned long address", "unsigned long", "address"),
        ("const struct iovec * vec", "struct iovec *", "vec"),
        ("const char *name", "char *", "name"),
        ("void *ptr", "void *", "ptr"),
        ("const char __attribute__((user)) * filename", "char *", "filename"),
        ("enum zone_type zone", "enum zone_type", "zone"),
        ("unsigned int flags:3", "unsigned int flags:", "3"),
    ],
)
def test_declarations(declaration: str, kind: str, name: str) -> None:
    if name == "3":
        with pytest.raises(ParseError, match="declares a field as"):
            field(declaration)
        return
    made = field(declaration)
    assert (made.type, made.name, made.place, made.element) == (kind, name, "here", 0)


@pytest.mark.parametrize(
    ("declaration", "size", "place", "element", "is_string"),
    [
        ("char comm[16]", 16, "here", 1, True),
        ("char comm[TASK_COMM_LEN]", 16, "here", 1, True),
        ("char file[20+1]", 21, "here", 1, True),
        ("unsigned char mac[6]", 6, "here", 1, False),
        ("u8 x[16]", 16, "here", 1, False),
        ("unsigned long caller[8]", 64, "here", 8, False),
        ("struct pair p[4]", 16, "here", 4, False),
        ("__data_loc char[] name", 4, "data_loc", 1, True),
        ("__data_loc u32[] ids", 4, "data_loc", 4, False),
        ("__data_loc cpumask_t mask", 4, "data_loc", 0, False),
        ("__rel_loc char[] name", 4, "rel_loc", 1, True),
        ("char buf[]", 0, "rest", 1, True),
        ("u32 buf[]", 0, "rest", 4, False),
    ],
)
def test_arrays(declaration: str, size: int, place: str, element: int, is_string: bool) -> None:
    made = field(declaration, size)
    assert (made.place, made.element, made.is_string) == (place, element, is_string)


def test_sign_is_told_from_the_type_where_an_old_kernel_does_not_say() -> None:
    text = "name: old\nID: 5\nformat:\n\tfield:int a;\toffset:8;\tsize:4;\n\tfield:unsigned int b;\toffset:12;\tsize:4;\n"
    assert [each.signed for each in parsed(text).fields] == [True, False]


def test_special_fields_are_fields() -> None:
    text = "name: old\nID: 5\nformat:\n\tfield special:char buf[];\toffset:8;\tsize:0;\n"
    assert [each.name for each in parsed(text).fields] == ["buf"]


def test_fields_in_the_print_format_are_none() -> None:
    text = format_text("it", 1, [("u64 a", 8, 8, 0)], '"field:u64 b;\toffset:9;\tsize:8;\tsigned:0;", REC->a')
    assert [each.name for each in parsed(text).fields] == ["a"]


def test_two_fields_of_one_name_get_two_columns() -> None:
    event = parsed(format_text("it", 1, [("u64 a", 8, 8, 0), ("u64 a", 16, 8, 0)]))
    assert [each.column for each in event.fields] == ["a", "a_2"]


@pytest.mark.parametrize("text", ["", "ID: 5\nformat:\n", "name: x\nformat:\n", "name: x\nID: 70000\n", "name: x\nID: five\n"])
def test_format_without_name_or_possible_id(text: str) -> None:
    with pytest.raises(ParseError, match="no name and possible ID") as caught:
        parsed(text)
    assert (caught.value.path, caught.value.offset) == ("x.dat", 10)


def test_events_of_one_name_in_two_systems_are_told_apart() -> None:
    events = [parsed(format_text(name, number, []), system) for system, name, number in (("a", "x", 1), ("b", "x", 2), ("b", "y", 3))]
    assert list(bare_names(events)) == ["a:x", "b:x", "y"]


def test_common_fields_are_where_the_format_says() -> None:
    text = "name: it\nID: 5\nformat:\n\tfield:unsigned short common_type;\toffset:2;\tsize:2;\tsigned:0;\n"
    text += "\tfield:int common_pid;\toffset:8;\tsize:4;\tsigned:1;\n"
    common = common_layout([parsed(text)], path="x.dat")
    assert (common.type_at, common.pid_at, common.size) == (2, 8, 12)


@pytest.mark.parametrize(("offset", "size"), [(1, 2), (0, 4), (4096, 2)])
def test_common_type_at_an_unusual_place(offset: int, size: int) -> None:
    text = f"name: it\nID: 5\nformat:\n\tfield:unsigned short common_type;\toffset:{offset};\tsize:{size};\tsigned:0;\n"
    text += "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n"
    with pytest.raises(ParseError, match="common fields at unusual places"):
        common_layout([parsed(text)], path="x.dat")
