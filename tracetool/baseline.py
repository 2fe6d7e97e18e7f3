"""Baselines: what an earlier run found is known, and only what is new is told. A baseline is what `replay --json FILE` wrote."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracetool.errors import ParseError, TraceError
from tracetool.schema import FINDINGS, SCHEMA_VERSION

if TYPE_CHECKING:
    import polars as pl

_HINT: Final = "--baseline takes what `tracetool replay TRACE --json FILE` wrote"
_LIKE: Final = ("fingerprint", "severity", "certainty")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Baseline:
    """The findings of an earlier run: how many there were of each fingerprint, severity and certainty."""

    path: str
    counts: Mapping[tuple[str, str, str], int]

    def new(self, findings: pl.DataFrame) -> pl.DataFrame:
        """Those of `findings` (`schema.FINDINGS`) that the earlier run had not, in their order.

        Counted: of three with one fingerprint, of which the baseline has two, one is new. Which one: what is of another severity or
        certainty than those of the baseline before what is like them, the graver before the less grave, the later before the earlier.
        """
        import polars as pl

        counts = pl.DataFrame([(*key, number) for key, number in self.counts.items()], schema=[*_LIKE, "had"], orient="row")
        counts = counts.cast({"had": pl.Int64, **dict.fromkeys(_LIKE, pl.String)})
        rows = (
            findings.select(*_LIKE, "from_ns")
            .with_row_index("_row")
            .sort("from_ns", "_row", maintain_order=True)
            .join(counts, on=_LIKE, how="left", maintain_order="left")
            .with_columns(pl.col("had").fill_null(0), place=pl.int_range(pl.len()).over(_LIKE))
            .with_columns(alike=pl.col("place") < pl.col("had"))
        )
        # Of each fingerprint, what the baseline has and nothing here is like.
        alike = rows.filter("alike").group_by("fingerprint").agg(alike=pl.len())
        spare = (
            counts.group_by("fingerprint")
            .agg(pl.col("had").sum())
            .join(alike, on="fingerprint", how="left")
            .select("fingerprint", spare=pl.col("had") - pl.col("alike").fill_null(0))
        )
        new = (
            rows.filter(~pl.col("alike"))
            .sort(pl.col("severity") == "defect", pl.col("certainty") == "certain", "from_ns", "_row", maintain_order=True)
            .join(spare, on="fingerprint", how="left", maintain_order="left")
            .filter(pl.int_range(pl.len()).over("fingerprint") >= pl.col("spare").fill_null(0))
        )
        return findings.with_row_index("_row").join(new, on="_row", how="semi", maintain_order="left").drop("_row")


def read_baseline(path: str) -> Baseline:
    """Read what `replay --json` wrote.

    Raises:
        ParseError: it is something else, was written by a version without fingerprints or by a newer one, or holds new findings only.
        TraceError: it cannot be read.
    """
    document = _document(path)
    known = document.get("baseline")
    if isinstance(known, dict) and known.get("known"):
        hint = "write it again without --baseline, so that it holds all findings"
        raise ParseError("was itself written with --baseline, and lacks what was known then", path=path, hint=hint)
    found = document["findings"]
    return Baseline(path, Counter(_key(path, number, finding) for number, finding in enumerate(found)))


def _document(path: str) -> dict[str, Any]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror}", path=path, hint=_HINT) from None
    try:
        text = content.decode()
        document = json.loads(text)
    except UnicodeDecodeError as error:
        raise ParseError("is no JSON: not UTF-8", path=path, offset=error.start, hint=_HINT) from None
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        raise ParseError(f"is no JSON: {error.msg}", path=path, offset=offset, hint=_HINT) from None
    except (ValueError, RecursionError) as error:
        raise ParseError(f"is no JSON that can be read: {error}", path=path, hint=_HINT) from None
    if not isinstance(document, dict) or not isinstance(document.get("findings"), list):
        raise ParseError("is JSON, but no results of a replay: it has no list `findings`", path=path, hint=_HINT)
    if document.get("schema_version") != SCHEMA_VERSION:
        said = document.get("schema_version")
        message = f"was written by another version (schema_version {said!r}, here {SCHEMA_VERSION})"
        raise ParseError(message, path=path, hint="write it again with this version")
    return document


def _key(path: str, number: int, finding: Any) -> tuple[str, str, str]:
    told = finding if isinstance(finding, dict) else {}
    fingerprint, severity, certainty = (told.get(name) for name in _LIKE)
    if not (isinstance(fingerprint, str) and _FINGERPRINT.fullmatch(fingerprint)):
        hint = "findings have fingerprints only in newer results: write it again with this version"
        raise ParseError(f"finding {number} (from 0) has no fingerprint", path=path, hint=hint)
    for name, value in (("severity", severity), ("certainty", certainty)):
        if value not in FINDINGS[name].values:
            raise ParseError(f"finding {number} (from 0) has the {name} {value!r}", path=path, hint=_HINT)
    return fingerprint, str(severity), str(certainty)
