"""The report as SARIF 2.1.0, the exchange format of analysis tools: code review and CI show findings and tell new ones from it.

The format is described in the OASIS standard "Static Analysis Results Interchange Format (SARIF) Version 2.1.0"; sections are named §.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote

from tracetool import __version__
from tracetool.analysis import Analysis
from tracetool.foreign import printable
from tracetool.report import summary
from tracetool.rules import RULES, Rule
from tracetool.schema import FINDINGS

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_FINGERPRINT: Final = "tracetool/v1"
#: Columns that have a place of their own in a result.
_PLACED: Final = ("rule", "summary", "fingerprint", "address", "evidence")


def render(analysis: Analysis) -> str:
    """`to_dict` as indented JSON in ASCII, ending in a line break."""
    return json.dumps(to_dict(analysis), indent=2, allow_nan=False) + "\n"


def to_dict(analysis: Analysis) -> dict[str, Any]:
    """One run: the rules, the trace as its only artifact, the findings as results; verdicts that stay open are notifications.

    A certain defect is an `error`, a possible one a `warning`, what the kernel never promised a `note`.
    """
    rules = list(RULES)
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "tracetool",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in RULES.values()],
            }
        },
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _notifications(analysis)}],
        "artifacts": [{"location": _location(analysis.trace.path), "roles": ["analysisTarget"]}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(analysis, row, rules) for row in analysis.findings.select(list(FINDINGS)).iter_rows(named=True)],
        "properties": {"kernel": analysis.trace.kernel, "clock": analysis.trace.clock, "events": analysis.trace.events},
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.name,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.description},
        "help": {"text": f"Remedy: {rule.remedy}", "markdown": f"**Remedy:** {rule.remedy}"},
        "defaultConfiguration": {"level": "error"},
        "properties": {"needs": list(rule.needs)},
    }


def _result(analysis: Analysis, row: dict[str, Any], rules: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": row["rule"],
        **({"ruleIndex": rules.index(row["rule"])} if row["rule"] in rules else {}),
        "level": _level(row),
        "message": _message(f"{row['summary'] or row['rule']} ({row['certainty']}, under {row['policy']})"),
        "locations": [_place(analysis, row)],
        "properties": {name: row[name] for name in FINDINGS if name not in _PLACED}
        | {
            "address": None if row["address"] is None else hex(row["address"]),
            "evidence": [_record(analysis, event) for event in row["evidence"] or () if event in analysis.evidence],
            "remedy": summary.remedy(row["rule"], row["severity"]),
        },
    }
    if row["fingerprint"]:
        result["partialFingerprints"] = {_FINGERPRINT: row["fingerprint"]}
    if analysis.known:
        # §3.27.24: what the baseline has is left out, so all that is here is new.
        result["baselineState"] = "new"
    return result


def _level(row: dict[str, Any]) -> str:
    if row["severity"] != "defect":
        return "note"
    return "error" if row["certainty"] == "certain" else "warning"


def _message(text: str) -> dict[str, str]:
    """§3.11: braces are doubled, since they name arguments, and nothing may look like a link."""
    return {"text": printable(text).replace("{", "{{").replace("}", "}}").replace("](", "] (")}


def _place(analysis: Analysis, row: dict[str, Any]) -> dict[str, Any]:
    """§3.28: the trace as a file, without a region: all of it; process and page as a logical location.

    The format has addresses, too (§3.32), but the SDK that most readers use takes no number above 31 bits there, and drops the file.
    """
    process = f"{printable(row['comm'] or '?')} {'?' if row['pid'] is None else row['pid']}"
    logical = {"name": process, "fullyQualifiedName": process, "kind": "process"}
    if row["address"] is not None:
        page = f"{row['address']:#x}"
        logical = {"name": f"{process}, page {page}", "fullyQualifiedName": f"{process}/{page}", "kind": "page"}
    physical = {"artifactLocation": {**_location(analysis.trace.path), "index": 0}}
    return {"physicalLocation": physical, "logicalLocations": [logical]}


def _record(analysis: Analysis, event: int) -> dict[str, Any]:
    name, ts, row = analysis.evidence[event]
    return {"event": name, "ts": ts, "row": row}


def _location(path: str) -> dict[str, Any]:
    """§3.4: a URI reference; `-` is standard input."""
    if path == "-":
        return {"uri": "stdin", "description": {"text": "standard input"}}
    pure = PurePath(path)
    # A first part with a colon would read as a scheme.
    posix = f"./{pure.as_posix()}" if ":" in pure.as_posix().partition("/")[0] else pure.as_posix()
    try:
        # Bytes of a file's name that are no UTF-8 come as surrogates.
        quoted = quote(posix.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        quoted = quote(posix.encode("utf-8", "surrogatepass"))
    return {"uri": f"file://{quoted}" if pure.is_absolute() else quoted}


def _notifications(analysis: Analysis) -> list[dict[str, Any]]:
    """§3.58: what the trace lacks, and which verdicts are open because of it, so that no result is not taken for clean."""
    told = [("note", text) for text in (*filter(None, [summary.known(analysis)]), *summary.coverage(analysis))]
    for verdict in analysis.verdicts:
        if verdict.verdict == "inconclusive":
            lacks = f"; missing: {'; '.join(verdict.missing)}" if verdict.missing else ""
            told.append(("warning", f"{verdict.rule} under {verdict.policy} is inconclusive{lacks}"))
    return [{"level": level, "message": _message(text)} for level, text in told]
