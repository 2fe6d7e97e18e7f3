"""The report as JUnit XML, against the structure that Jenkins' junit-10.xsd describes, and with what XML cannot hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report import example
from tracetool.analysis import Analysis, Known, Verdict
from tracetool.report import junit
from tracetool.rules import RULES

#: Element: its attributes (True: required), and the elements that may be in it.
SHAPE: Final[dict[str, tuple[dict[str, bool], set[str]]]] = {
    "testsuites": (dict.fromkeys(("name", "tests", "failures", "errors"), False), {"testsuite"}),
    "testsuite": (
        {"name": True, "tests": True, "failures": False, "errors": False, "skipped": False},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": ({}, {"property"}),
    "property": ({"name": True, "value": True}, set()),
    "testcase": ({"name": True, "classname": False}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "skipped": ({"message": False}, set()),
    "failure": ({"message": False, "type": False}, set()),
    "system-out": ({}, set()),
}


def read(analysis: Analysis) -> ET.Element:
    document = junit.render(analysis)
    assert document.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    root = ET.fromstring(document.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = SHAPE[element.tag]
        # What some readers count skipped tests of all suites by is no attribute of the schema.
        assert element.attrib.keys() - {"skipped"} <= attributes.keys(), element.tag
        assert {name for name, required in attributes.items() if required} <= element.attrib.keys(), element.tag
        assert {child.tag for child in element} <= children, element.tag
    for element in (root, *root.iter("testsuite")):
        counts = {"tests": "testcase", "failures": "failure", "skipped": "skipped", "errors": "error"}
        assert {name: element.attrib[name] for name in counts} == {name: str(len(list(element.iter(tag)))) for name, tag in counts.items()}
    return root


def cases(analysis: Analysis) -> dict[tuple[str, str], ET.Element]:
    """The cases by policy and rule."""
    return {
        (suite.attrib["name"].removeprefix("tracetool."), case.attrib["name"]): case
        for suite in read(analysis).iter("testsuite")
        for case in suite.iter("testcase")
    }


def test_a_policy_is_a_suite_and_a_rule_a_case() -> None:
    found = cases(example.mail())
    assert list(found) == [(policy, rule) for policy in ("observed", "mapcount", "page-count", "exclusive") for rule in RULES]
    assert all(case.attrib["classname"] == f"tracetool.{policy}" for (policy, _), case in found.items())


def test_a_certain_defect_is_a_failure_with_its_findings() -> None:
    found = cases(example.mail())
    (failed,) = [key for key, case in found.items() if case.find("failure") is not None]
    assert failed == ("mapcount", "missed-cow")
    failure = found[failed].find("failure")
    assert failure is not None
    assert failure.attrib == {"message": "1 certain defect under mapcount", "type": "missed-cow"}
    assert failure.text == (
        "certain defect F1: cowlab 116 writes into P0 while the read reference of cowlab 115 (vmsplice) still reads it. "
        f"[0123456789abcdef]\nremedy: {RULES['missed-cow'].remedy}"
    )
    assert all(not list(case) for key, case in found.items() if key != failed)


def test_what_the_trace_cannot_tell_is_skipped_with_what_is_missing() -> None:
    verdicts = (Verdict("missed-cow", "observed", "inconclusive", ("forks", "what was lost")), Verdict("wrong-cow", "observed", "clean"))
    found = cases(example.mail(verdicts=verdicts))
    skipped = found["observed", "missed-cow"].find("skipped")
    assert skipped is not None
    assert skipped.attrib == {"message": "missing: forks; what was lost"}
    assert not list(found["observed", "wrong-cow"])


def test_what_fails_nothing_is_told_as_output() -> None:
    verdict = Verdict("missed-cow", "mapcount", "inconclusive", ("a release",))
    possible = example.mail(findings=example.findings(example.finding(certainty="possible")), verdicts=(verdict,))
    case = cases(possible)["mapcount", "missed-cow"]
    assert [child.tag for child in case] == ["skipped", "system-out"]
    assert str(case.findtext("system-out")).startswith("possible defect F1: ")


def test_what_is_known_fails_nothing() -> None:
    clean = tuple(replace(v, verdict="clean") for v in example.mail().verdicts)
    root = read(example.mail(findings=example.findings(), verdicts=clean, known=Known("base.json", 1)))
    assert root.attrib["failures"] == "0"
    values = {each.attrib["name"]: each.attrib["value"] for each in root.iter("property")}
    assert "1 finding is known from base.json" in values["baseline"]
    assert values["kernel"] == "5.10.0-35-amd64"


@pytest.mark.parametrize("foreign", ["\x00", "\x1b[2J", "\x0b", "\ufffe", "\udcff", "]]>", '<a b="c">&amp;', "a\nb"])
def test_what_xml_cannot_hold_is_shown_as_an_escape(foreign: str) -> None:
    (failure,) = read(example.hostile(foreign)).iter("failure")
    first = str(failure.text).splitlines()[0]
    column = foreign.encode("utf-8", "replace").decode()
    shown = column if column.isprintable() else column.encode("unicode_escape").decode()
    assert first == f"certain defect F1: {shown} [0123456789abcdef]"


@settings(max_examples=20)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=40))
def test_no_foreign_string_breaks_it(foreign: str) -> None:
    read(example.hostile(foreign))
