"""The report as JUnit XML, which every CI shows: a policy is a test suite, a rule a test case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tracetool import __version__
from tracetool.analysis import Analysis
from tracetool.foreign import printable
from tracetool.report import summary
from tracetool.report.cases import Case, suites

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def render(analysis: Analysis) -> str:
    """One XML document: a certain defect is a failure, what the trace cannot tell is skipped with what is missing.

    Characters that XML cannot hold are shown as escapes. Findings that fail nothing stand in the `system-out` of their case.
    """
    from xml.etree import ElementTree as ET

    tests = suites(analysis)
    root = ET.Element("testsuites", {"name": "tracetool", **_counts(case for cases in tests.values() for case in cases)})
    for policy, cases in tests.items():
        suite = ET.SubElement(root, "testsuite", {"name": f"tracetool.{policy}", **_counts(cases)})
        properties = ET.SubElement(suite, "properties")
        for name, value in _properties(analysis):
            ET.SubElement(properties, "property", {"name": name, "value": printable(value)})
        for case in cases:
            _add(suite, policy, case)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _add(suite: Element, policy: str, case: Case) -> None:
    from xml.etree import ElementTree as ET

    element = ET.SubElement(suite, "testcase", {"classname": f"tracetool.{policy}", "name": case.rule})
    if case.outcome == "skip":
        ET.SubElement(element, "skipped", {"message": case.why})
    told = "\n".join(case.lines)
    if case.outcome == "fail":
        ET.SubElement(element, "failure", {"message": case.why, "type": case.rule}).text = told
    elif told:
        ET.SubElement(element, "system-out").text = told


def _counts(cases: Iterable[Case]) -> dict[str, str]:
    outcomes = [case.outcome for case in cases]
    return {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("fail")),
        "errors": "0",
        "skipped": str(outcomes.count("skip")),
    }


def _properties(analysis: Analysis) -> Iterable[tuple[str, str]]:
    yield "trace", analysis.trace.path
    yield "kernel", analysis.trace.kernel or "not named"
    yield "tracetool", __version__
    if known := summary.known(analysis):
        yield "baseline", known
