"""What every reporter says alike."""

from __future__ import annotations

from dataclasses import replace

from report import example
from tracetool.analysis import Coverage, Known, Verdict
from tracetool.report import storyline, summary


def test_a_policy_is_unsafe_by_a_certain_defect_and_clean_by_all_rules() -> None:
    found = example.mail()
    assert summary.safety(found, "mapcount") == summary.Safety(1, 0, "defect")
    assert summary.safety(found, "exclusive") == summary.Safety(0, 0, "clean")


def test_a_policy_is_clean_only_when_every_rule_is() -> None:
    found = example.mail(
        verdicts=(Verdict("missed-cow", "exclusive", "clean"), Verdict("wrong-cow", "exclusive", "inconclusive", ("forks",)))
    )
    assert summary.safety(found, "exclusive").standing == "inconclusive"
    assert summary.safety(found, "page-count").standing == "inconclusive"


def test_what_the_kernel_never_promised_is_no_defect() -> None:
    found = example.mail(findings=example.findings(example.finding(policy="exclusive", severity="info")))
    assert summary.safety(found, "exclusive") == summary.Safety(0, 0, "clean")


def test_a_possible_defect_is_not_called_certain() -> None:
    found = example.mail(findings=example.findings(example.finding(certainty="possible")))
    assert summary.safety(found, "mapcount") == summary.Safety(0, 1, "possible")
    assert "may have been unsafe" in summary.answer(found)[1]


def test_a_defect_that_a_filter_left_out_of_the_table_still_counts() -> None:
    assert summary.safety(example.mail(findings=example.findings()), "mapcount").standing == "defect"


def test_worst_findings_come_first() -> None:
    found = example.mail(
        findings=example.findings(
            example.finding(1, severity="info", policy="observed"),
            example.finding(2, certainty="possible", policy="observed"),
            example.finding(3, policy="exclusive"),
            example.finding(4, from_ns=None),
            example.finding(5),
            example.finding(6, policy="observed"),
        )
    )
    order = summary.worst_first(found)["id"].to_list()
    assert order[0] == "F6"
    assert set(order[1:3]) == {"F4", "F5"}
    assert order[3:] == ["F3", "F2", "F1"]


def test_the_answer_is_three_sentences() -> None:
    observed, policies, costs = summary.answer(example.mail())
    assert "5 COW faults with 3 copies and 2 reuses in place" in observed
    assert policies.startswith("mapcount would have been unsafe")
    assert "what B wrote into P0" in policies
    assert "page-count and exclusive would have kept every reference right" in policies
    assert "page-count and exclusive copy 1 page more (4 KiB, 2.00 µs assumed)" in costs


def test_what_a_baseline_left_out_is_no_part_of_the_answer_and_said_to_be_left_out() -> None:
    verdicts = tuple(replace(v, verdict="clean") for v in example.mail().verdicts)
    observed, policies, _, known = summary.answer(example.mail(findings=example.findings(), verdicts=verdicts, known=Known("base.json", 1)))
    assert "but for what was known, broke no rule" in observed
    assert policies.startswith("but for what was known, mapcount, page-count and exclusive would have kept every reference right")
    assert known == "Only what is new is told: 1 finding is known from base.json and left out, also of the verdicts."
    assert len(summary.answer(example.mail(known=Known("base.json", 0)))) == 4
    assert "but for" not in "".join(summary.answer(example.mail(known=Known("base.json", 0)))[:3])


def test_without_policies_only_the_kernel_is_told_of() -> None:
    assert len(summary.answer(example.mail(policies=()))) == 1


def test_an_empty_result_says_why() -> None:
    empty = example.nothing()
    no_events = replace(empty, trace=replace(empty.trace, events=0))
    unrecorded = replace(empty, verdicts=(Verdict("missed-cow", "observed", "inconclusive", ("cow_fault",)),))
    lossy = replace(empty, coverage=Coverage(lost_events=7, uncertain_ns=0))
    assert "holds no events" in (summary.why_empty(no_events) or "")
    assert "lacks: cow_fault" in (summary.why_empty(unrecorded) or "")
    assert "no traced process wrote to a page that it shared." in (summary.why_empty(empty) or "")
    assert "as far as it can tell" in (summary.why_empty(lossy) or "")
    assert summary.why_empty(example.mail()) is None


def test_no_findings_is_not_taken_for_clean() -> None:
    unrecorded = (Verdict("missed-cow", "observed", "inconclusive", ("cow_fault",)), Verdict("wrong-cow", "observed", "clean"))
    assert "every rule is clean" in summary.why_no_findings(example.nothing())
    assert "1 of 2 verdicts cannot be settled" in summary.why_no_findings(example.nothing(verdicts=unrecorded))
    assert "no rule was asked" in summary.why_no_findings(example.nothing(verdicts=()))


def test_coverage_tells_losses_doubt_and_unknown_events() -> None:
    unknown = {f"probe{i}": i for i in range(1, 8)}
    told = summary.coverage(example.mail(coverage=Coverage(None, 1_500_000, unknown, ("no forks",))))
    assert told[0] == "Events were lost, an unknown number of them."
    assert "1.50 ms of 39.6 ms" in told[1]
    assert "probe7 (7), probe6 (6), probe5 (5), probe4 (4), probe3 (3) and 2 more" in told[2]
    assert told[3] == "no forks"
    assert summary.coverage(example.mail()) == ()


def test_mapcount_parts_from_the_kernel_at_the_write_of_b() -> None:
    observed, mapcount, page_count, _ = example.mail().stories
    assert [step.ts for step in storyline.parting(observed, mapcount)] == [example.B_WRITES]
    assert storyline.parting(observed, page_count) == ()


def test_the_danger_lasts_from_the_write_to_the_release() -> None:
    found = example.mail()
    observed, mapcount = found.stories[:2]
    danger = storyline.Danger("missed-cow", "certain", example.B_WRITES, example.RELEASE)
    assert storyline.dangers(found, mapcount) == (danger,)
    assert storyline.dangers(found, observed) == ()
    begun = [step.act for step in mapcount.steps if storyline.danger_of(step, [danger])]
    assert begun == ["reuse"]


def test_a_finding_on_another_page_is_no_danger_of_this_story() -> None:
    found = example.mail(findings=example.findings(example.finding(address=0x1000), example.finding(2, from_ns=example.START - 1)))
    assert storyline.dangers(found, found.stories[1]) == ()


def test_a_page_that_is_older_than_the_story_does_not_stretch_it() -> None:
    story = example.story("observed", copies=True)
    older = replace(story, stays=(replace(story.stays[0], from_ns=0), *story.stays[1:]))
    assert storyline.span([older]) == (example.START, example.A_EXITS)
