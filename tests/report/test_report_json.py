"""The report for programs, against the keys and types that the documentation promises."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from report import example
from tracetool.analysis import Known, RecordedDecision
from tracetool.report.json import render, to_dict
from tracetool.rules import RULES
from tracetool.schema import FINDINGS, TABLES

NUMBER, TEXT, MAYBE_NUMBER, MAYBE_TEXT = int, str, int | None, str | None
COUNTS = dict.fromkeys(("cow_faults", "copies", "reuses", "early_copies", "unshares", "extra_copies", "extra_bytes", "extra_ns"), NUMBER)
STAY = dict.fromkeys(("owner", "page", "began", "ended"), TEXT) | {"from_ns": NUMBER, "to_ns": MAYBE_NUMBER}
HELD = dict.fromkeys(("owner", "page", "kind", "access", "via", "released"), TEXT) | {"from_ns": NUMBER, "to_ns": MAYBE_NUMBER}
OF_CAUSE = ("via", "area", "call_site", "fingerprint")
AGREEMENT = dict.fromkeys(("faults", "same", "undetermined", "contested", "contested_same"), NUMBER)
DECISION = {"ts": NUMBER, "tid": NUMBER, "copied": bool, "because": TEXT, "address": TEXT}
EVIDENCE = [{"event": TEXT, "ts": NUMBER, "row": NUMBER}]
SHAPE: dict[str, Any] = {
    "schema_version": NUMBER,
    "trace": {
        "path": TEXT, "format": TEXT, "kernel": MAYBE_TEXT, "clock": MAYBE_TEXT,
        "cpus": NUMBER, "events": NUMBER, "from_ns": NUMBER, "to_ns": NUMBER,
    },
    "coverage": {"lost_events": MAYBE_NUMBER, "uncertain_ns": NUMBER, "unknown_events": dict, "notes": [TEXT]},
    "observed": dict.fromkeys(("cow_faults", "copies", "reuses", "early_copies", "zero_fills", "unshares", "splits"), NUMBER),
    "policies": [
        COUNTS | {
            "name": TEXT, "peak_pages": NUMBER, "checked_on": TEXT, "zero_fills": NUMBER, "time": TEXT,
            "agreement": AGREEMENT,
        }
    ],
    "kernel": (
        {
            "policy": TEXT, "runner_up": TEXT, "telling": NUMBER, "release": MAYBE_TEXT, "expected": MAYBE_TEXT, "text": TEXT,
            "agreement": AGREEMENT, "undetermined": dict, "told_by": [DECISION], "disagreements": [DECISION],
        },
    ),
    "verdicts": [{"rule": TEXT, "policy": TEXT, "verdict": TEXT, "missing": [TEXT]}],
    "findings": [
        dict.fromkeys(("id", "rule", "policy", "certainty", "severity", "comm", "address", "summary", *OF_CAUSE), MAYBE_TEXT)
        | dict.fromkeys(("pid", "mm", "pfn", "page_id", "from_ns", "to_ns", "by_pid"), MAYBE_NUMBER)
        | {"evidence": EVIDENCE, "remedy": TEXT}
    ],
    "stories": [
        {
            "title": TEXT, "policy": TEXT, "address": TEXT, "owners": dict, "pages": dict, "stays": [STAY], "references": [HELD],
            "steps": [{"ts": NUMBER, "owner": TEXT, "act": TEXT, "page": TEXT, "text": TEXT, "evidence": EVIDENCE}],
            "outcome": TEXT, "safe": bool, "settled": bool,
        }
    ],
}  # fmt: skip


def differences(value: Any, shape: Any, path: str = "$") -> list[str]:
    """Where `value` has other keys or types than `shape`; a shape in a tuple may be missing."""
    if isinstance(shape, tuple):
        return differences(value, shape[0], path) if value is not None else []
    if isinstance(shape, dict):
        if not isinstance(value, dict) or value.keys() != shape.keys():
            return [f"{path}: keys {sorted(value)} instead of {sorted(shape)}"]
        return [found for key, inner in shape.items() for found in differences(value[key], inner, f"{path}.{key}")]
    if isinstance(shape, list):
        return [found for i, each in enumerate(value) for found in differences(each, shape[0], f"{path}[{i}]")]
    kinds = get_args(shape) or (shape,)
    return [] if type(value) in kinds else [f"{path}: {value!r} is none of {kinds}"]


@pytest.mark.parametrize(
    "analysis", [example.mail(), example.nothing(), example.hostile("\x1b</script>")], ids=["mail", "nothing", "hostile"]
)
def test_it_has_the_documented_keys_and_types(analysis: Any) -> None:
    assert differences(json.loads(render(analysis)), SHAPE) == []


def test_the_check_itself_sees_wrong_keys_and_types() -> None:
    value = to_dict(example.mail())
    del value["trace"]["clock"]
    value["policies"][0]["copies"] = "3"
    assert len(differences(value, SHAPE)) == 2


def test_a_finding_has_every_column_of_its_table() -> None:
    assert list(to_dict(example.mail())["findings"][0]) == [*FINDINGS, "remedy"]
    assert FINDINGS is TABLES["findings"]


def test_a_finding_says_what_avoids_it() -> None:
    assert to_dict(example.mail())["findings"][0]["remedy"] == RULES["missed-cow"].remedy


def test_what_a_baseline_left_out_is_counted() -> None:
    assert to_dict(example.mail(known=Known("base.json", 3)))["baseline"] == {"path": "base.json", "known": 3}
    assert "baseline" not in to_dict(example.mail())


def test_the_kernel_s_own_policy_comes_with_what_tells_it_and_what_it_does_not_explain() -> None:
    odd = RecordedDecision(example.A_WRITES, 115, example.ADDRESS, copied=True, because="a lock that was held", event=40)
    told = to_dict(example.mail(kernel=example.kernel(disagreements=(odd,))))["kernel"]
    assert (told["policy"], told["runner_up"], told["expected"], told["release"]) == (
        "page-count", "mapcount", "page-count", "5.10.0-35-amd64",
    )  # fmt: skip
    assert told["agreement"] == {"faults": 5, "same": 5, "undetermined": 2, "contested": 1, "contested_same": 1}
    assert told["undetermined"] == {"the page is older than the trace": 2}
    assert told["told_by"] == [
        {"ts": example.B_WRITES, "tid": 116, "address": hex(example.ADDRESS), "copied": True, "because": "reference"}
    ]
    assert [each["because"] for each in told["disagreements"]] == ["a lock that was held"]
    assert to_dict(example.nothing())["kernel"] is None


def test_evidence_names_the_records() -> None:
    assert to_dict(example.mail())["findings"][0]["evidence"] == [
        {"event": "fork_range", "ts": example.FORK, "row": 4},
        {"event": "gup_grab", "ts": example.TAKE, "row": 2},
        {"event": "cow_fault", "ts": example.B_WRITES, "row": 13},
    ]


def test_addresses_are_hexadecimal_and_unknown_ones_null() -> None:
    found = to_dict(example.mail(findings=example.findings(example.finding(), example.finding(2, address=None, pfn=None))))
    assert [row["address"] for row in found["findings"]] == ["0x7feebe8d4000", None]
    assert found["stories"][0]["address"] == "0x7feebe8d4000"


def test_strings_of_the_trace_come_back_as_recorded() -> None:
    foreign = "\x1b[31m\u2028\udcff</script>"
    assert json.loads(render(example.hostile(foreign)))["trace"]["path"] == foreign
    assert render(example.hostile(foreign)).isascii()
