"""A report that can be given away."""

from __future__ import annotations

from dataclasses import replace

from report import example
from tracetool.analysis import Coverage, Known
from tracetool.report import html, json, text
from tracetool.report.redact import redacted

SECRETS = ("cowlab", "traces/mail.dat", "/home/", "35-amd64", "0x259e", "9630", "ffff8880", "ninja")


NOTES = ("cowlab 115 wrote /srv/someone/x at 0xffff888004461100, frame 0x259e, pfn=9630",)


def test_no_reporter_tells_a_name_a_path_or_a_frame() -> None:
    found = replace(example.mail(), coverage=Coverage(0, 0, {"ninja_probe": 2}, NOTES))
    page = html.render(found, "tracetool replay traces/mail.dat", redact=True)
    for told in (text.render(redacted(found)), json.render(redacted(found)), page[: page.index('id="bundle"')]):
        assert [secret for secret in SECRETS if secret in told] == []


def test_the_same_name_and_the_same_frame_get_the_same_number_everywhere() -> None:
    found = redacted(example.mail(coverage=Coverage(0, 0, {}, NOTES)))
    assert found.coverage.notes == ("process-1 115 wrote (path) at address #1, frame #1, pfn=#1",)
    assert found.stories[0].owners == {"A": "process-1 115", "B": "process-1 116"}
    assert found.stories[0].pages["P0"] == "frame #1"
    assert found.findings.select("comm", "pfn").row(0) == ("process-1", 1)
    assert "process-1 116 writes into P0" in found.findings["summary"][0]


def test_what_happened_when_is_kept() -> None:
    before, after = example.mail(), redacted(example.mail())
    kept = ["id", "pid", "address", "from_ns", "to_ns", "certainty"]
    assert after.findings.select(kept).equals(before.findings.select(kept))
    assert after.stories[0].stays == before.stories[0].stays
    assert after.trace.kernel == "5.10.0"
    assert after.policies == before.policies


def test_a_frame_that_only_a_policy_makes_stays_without_a_number() -> None:
    found = redacted(example.mail(findings=example.findings(example.finding(pfn=None, comm=None, summary=None))))
    assert found.findings.select("comm", "pfn", "summary").row(0) == (None, None, None)


def test_a_longer_name_is_not_taken_for_a_shorter_one() -> None:
    found = redacted(
        example.mail(findings=example.findings(example.finding(comm="cow"), example.finding(2, comm="cowlab", summary="cowlab, cow, cows")))
    )
    shorter, longer = found.findings["comm"].to_list()
    assert found.findings["summary"][1] == f"{longer}, {shorter}, cows"


def test_the_name_of_a_baseline_is_left_out() -> None:
    found = redacted(example.mail(known=Known("/srv/somebody/base.json", 3)))
    assert found.known == Known("(path)", 3)
    assert redacted(example.mail()).known is None


def test_names_that_stand_in_no_table_are_left_out_too() -> None:
    """A thread may rename itself; what it was called then stands in sentences alone."""
    row = example.finding(summary="secretname 116 wrote; acme_probe saw it")
    mail = example.mail(findings=example.findings(row), names=("secretname",))
    found = redacted(replace(mail, coverage=replace(mail.coverage, unknown_events={"acme_probe": 3})))
    assert found.findings["summary"][0] == f"{found.findings['summary'][0].split()[0]} 116 wrote; event-1 saw it"
    assert not {"secretname", "acme_probe"} & set(str(found).replace("'", " ").split())
    assert found.names == ()
    assert found.recorded is None
