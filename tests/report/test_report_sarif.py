"""The report as SARIF 2.1.0: the objects that it uses, with the properties and types that the OASIS schema gives them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracetool
from report import example
from tracetool.analysis import Analysis, Coverage, Known, Verdict
from tracetool.report import sarif
from tracetool.rules import RULES

URI: Final = re.compile(r"[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]+")


def text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def uri(value: Any) -> bool:
    return isinstance(value, str) and URI.fullmatch(value) is not None


def index(value: Any) -> bool:
    return type(value) is int and value >= -1


def bag(value: Any) -> bool:
    return isinstance(value, dict)


def one_of(*names: str) -> Any:
    return lambda value: value in names


MESSAGE = {"text!": text, "markdown": text}
LEVEL = one_of("none", "note", "warning", "error")
ARTIFACT_LOCATION = {"uri": uri, "index": index, "description": MESSAGE}
RULE = {
    "id!": text, "name": text, "shortDescription": MESSAGE, "fullDescription": MESSAGE, "help": MESSAGE,
    "defaultConfiguration": {"level": LEVEL}, "properties": bag,
}  # fmt: skip
LOCATION = {
    "physicalLocation": {"artifactLocation!": ARTIFACT_LOCATION},
    "logicalLocations": [{"name": text, "fullyQualifiedName": text, "kind": text}],
}
RESULT = {
    "ruleId": text, "ruleIndex": index, "level": LEVEL, "message!": MESSAGE, "locations": [LOCATION], "partialFingerprints": bag,
    "baselineState": one_of("new", "unchanged", "updated", "absent"), "properties": bag,
}  # fmt: skip
#: A property with an exclamation mark is required; others may be absent; there are no more, as the schema has it.
LOG: Final[dict[str, Any]] = {
    "$schema": uri,
    "version!": one_of("2.1.0"),
    "runs!": [
        {
            "tool!": {"driver!": {"name!": text, "version": text, "semanticVersion": text, "rules": [RULE]}},
            "invocations": [
                {"executionSuccessful!": bool.__instancecheck__, "toolExecutionNotifications": [{"level": LEVEL, "message!": MESSAGE}]}
            ],
            "artifacts": [{"location": ARTIFACT_LOCATION, "roles": [one_of("analysisTarget")]}],
            "columnKind": one_of("utf16CodeUnits", "unicodeCodePoints"),
            "results": [RESULT],
            "properties": bag,
        }
    ],
}


def wrong(value: Any, shape: Any, path: str = "$") -> list[str]:
    """Where a value is not as its shape says."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        known = {name.rstrip("!"): inner for name, inner in shape.items()}
        lacks = [f"{path} lacks {name}" for name in shape if name.endswith("!") and name.rstrip("!") not in value]
        more = [f"{path} has {name}" for name in value if name not in known]
        return [*lacks, *more, *(e for name in value if name in known for e in wrong(value[name], known[name], f"{path}.{name}"))]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{path} is no array"]
        return [e for i, each in enumerate(value) for e in wrong(each, shape[0], f"{path}[{i}]")]
    return [] if shape(value) else [f"{path} is {value!r}"]


def run(analysis: Analysis) -> dict[str, Any]:
    """The one run of the log, which is as the schema wants it."""
    document = sarif.render(analysis)
    assert document.isascii()
    log = json.loads(document)
    assert wrong(log, LOG) == []
    (only,) = log["runs"]
    for result in only["results"]:
        assert only["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        for location in result["locations"]:
            place = location["physicalLocation"]["artifactLocation"]
            assert only["artifacts"][place["index"]]["location"]["uri"] == place["uri"]
    result_: dict[str, Any] = only
    return result_


def test_the_check_itself_sees_what_is_wrong() -> None:
    log = sarif.to_dict(example.mail())
    log["runs"][0]["results"][0] |= {"level": "fatal", "colour": "red"}
    del log["runs"][0]["tool"]["driver"]["name"]
    assert len(wrong(log, LOG)) == 3


def test_the_tool_says_its_version_and_its_rules_with_their_remedy() -> None:
    driver = run(example.mail())["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("tracetool", tracetool.__version__)
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    missed = driver["rules"][0]
    assert missed["name"] == "MissedCow"
    assert missed["shortDescription"]["text"] == RULES["missed-cow"].title
    assert missed["fullDescription"]["text"].startswith("another process's store lands in a page")
    assert RULES["missed-cow"].remedy in missed["help"]["text"]
    assert missed["defaultConfiguration"] == {"level": "error"}


def test_a_result_says_what_where_and_how_sure() -> None:
    (result,) = run(example.mail())["results"]
    assert (result["ruleId"], result["level"]) == ("missed-cow", "error")
    assert result["message"]["text"].startswith("cowlab 116 writes into P0")
    assert result["partialFingerprints"] == {"tracetool/v1": "0123456789abcdef"}
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "traces/mail.dat"
    assert location["logicalLocations"][0]["name"] == "cowlab 115, page 0x7feebe8d4000"
    properties = result["properties"]
    assert (properties["policy"], properties["certainty"], properties["pid"], properties["by_pid"]) == ("mapcount", "certain", 115, 116)
    assert properties["address"] == "0x7feebe8d4000"
    assert properties["evidence"][0] == {"event": "fork_range", "ts": example.FORK, "row": 4}
    assert "baselineState" not in result


@pytest.mark.parametrize(
    ("certainty", "severity", "level"),
    [("certain", "defect", "error"), ("possible", "defect", "warning"), ("certain", "info", "note"), ("possible", "info", "note")],
)
def test_levels(certainty: str, severity: str, level: str) -> None:
    (result,) = run(example.mail(findings=example.findings(example.finding(certainty=certainty, severity=severity))))["results"]
    assert result["level"] == level


def test_a_finding_of_which_little_is_known() -> None:
    unknown = example.finding(address=None, pid=None, comm=None, pfn=None, from_ns=None, fingerprint=None, summary=None)
    (result,) = run(example.mail(findings=example.findings(unknown)))["results"]
    assert result["message"]["text"] == "missed-cow (certain, under mapcount)"
    assert result["locations"][0]["logicalLocations"] == [{"name": "? ?", "fullyQualifiedName": "? ?", "kind": "process"}]
    assert "partialFingerprints" not in result


def test_no_result_is_not_taken_for_clean() -> None:
    verdicts = (Verdict("missed-cow", "observed", "inconclusive", ("forks",)), Verdict("wrong-cow", "observed", "clean"))
    notes = run(example.nothing(verdicts=verdicts, coverage=Coverage(7, 0)))["invocations"][0]["toolExecutionNotifications"]
    assert [(note["level"], note["message"]["text"]) for note in notes] == [
        ("note", "7 events lost."),
        ("warning", "missed-cow under observed is inconclusive; missing: forks"),
    ]


def test_against_a_baseline_all_results_are_new() -> None:
    compared = run(example.mail(known=Known("base.json", 3)))
    assert [result["baselineState"] for result in compared["results"]] == ["new"]
    assert "3 findings are known from base.json" in compared["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a b/c#d?.dat", "a%20b/c%23d%3F.dat"),
        ("/srv/ä.dat", "file:///srv/%C3%A4.dat"),
        ("c:x.dat", "./c%3Ax.dat"),
        ("\udcff.dat", "%FF.dat"),
        ("\ud800.dat", "%ED%A0%80.dat"),
        ("-", "stdin"),
        ("", "."),
        ("../x", "../x"),
    ],
)
def test_the_trace_is_a_uri(path: str, expected: str) -> None:
    found = example.mail()
    artifact = run(replace(found, trace=replace(found.trace, path=path)))["artifacts"][0]
    assert artifact["location"]["uri"] == expected


def test_braces_name_no_arguments_and_brackets_no_links() -> None:
    named = example.mail(findings=example.findings(example.finding(summary="{0} [x](http://y) wrote")))
    assert run(named)["results"][0]["message"]["text"].startswith("{{0}} [x] (http://y) wrote")


@settings(max_examples=20)
@given(st.text(alphabet=st.characters(exclude_categories=()), min_size=1, max_size=40))
def test_no_foreign_string_breaks_it(foreign: str) -> None:
    run(example.hostile(foreign))
