"""Verbs that explain, compare and suspect take any recording: whatever its numbers are, they answer, or say why not."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.wild import wild_events, wild_recording
from handmade import trace_of
from tracetool.comparing import compare, groups
from tracetool.errors import TraceError
from tracetool.explaining import explain
from tracetool.judging import found, replayed
from tracetool.report import compare as compare_report
from tracetool.report import explain as explain_report
from tracetool.report import suspect as suspect_report
from tracetool.suspecting import suspect


@settings(max_examples=60)
@given(wild_events, st.sampled_from(["mapcount", "forced-cow", "page-count", "exclusive"]), st.integers(0, 1 << 20))
def test_absurd_values_are_answered(drawn: list[tuple[str, int, list[int]]], policy: str, at: int) -> None:
    recording = wild_recording(drawn)
    if not recording.source().counts():
        return
    trace = trace_of(recording)
    told = compare(trace, "observed", policy)
    assert groups(told.differences)["count"].sum() == told.differences.height
    assert compare_report.text(told)
    for name in ("observed", policy):
        for finding in found(trace, replayed(trace, name))["id"].to_list():
            told_finding = explain(trace, finding)
            assert all(len(line) <= 72 for line in explain_report.mail(told_finding).splitlines())
            json.loads(explain_report.to_json(told_finding))
    stays = trace.replay().stays.select("pid", "address").drop_nulls().unique(maintain_order=True)
    for pid, address in stays.head(4).iter_rows():
        suspicion = suspect(trace, pid, address)
        assert suspect_report.text(suspicion)
        json.loads(suspect_report.to_json(suspicion))
        # At some moments nothing is mapped there.
        with contextlib.suppress(TraceError):
            assert suspect_report.text(suspect(trace, pid, address, at))
