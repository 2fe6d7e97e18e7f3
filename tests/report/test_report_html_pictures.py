"""What the pictures of the HTML report are drawn from: sums that are those of the replays, budgets, extremes that stay."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import tracetool
from conftest import fixture_path
from report import example
from tracetool.analysing import analyse
from tracetool.analysis import Analysis
from tracetool.baseline import read_baseline
from tracetool.costs.memory import Memory
from tracetool.policies import POLICIES
from tracetool.report import details, found, html, json, masking, pictures, tables
from tracetool.report.sketch import sketch
from tracetool.report.storyline import dangers


@functools.cache
def recorded(name: str = "random1-6.1.dat") -> tuple[Analysis, details.Details]:
    trace = tracetool.open(fixture_path(name))
    analysis = analyse(trace)
    return analysis, details.gather(trace, analysis)


@functools.cache
def model(name: str = "random1-6.1.dat") -> dict[str, Any]:
    return pictures.model(*recorded(name))


def decided(replay: dict[str, Any], *names: str) -> int:
    points = model()["points"][replay["points"]]
    wanted = {model()["decisions"].index(name) for name in names if name in model()["decisions"]}
    return sum(n for d, n in zip(points["d"], points["n"], strict=True) if d in wanted)


def test_points_sum_up_to_the_counts_of_each_replay() -> None:
    analysis, _ = recorded()
    for replay in model()["replays"]:
        counts = next((p for p in analysis.policies if p.name == replay["name"]), None)
        for decision, counted in (("copy", "copies"), ("reuse", "reuses"), ("early-copy", "early_copies"), ("zero-fill", "zero_fills")):
            assert decided(replay, decision) == (getattr(counts, counted) if counts else analysis.observed[counted])


def test_reasons_sum_up_to_the_copies() -> None:
    analysis, known = recorded()
    table = tables.reasons(known)
    assert [cell.number for cell in table.rows[-1][3:]] == [p.copies + p.early_copies + p.unshares for p in analysis.policies]
    columns = zip(*([cell.number or 0 for cell in row[2:]] for row in table.rows[:-1]), strict=True)
    assert [sum(column) for column in columns] == [cell.number for cell in table.rows[-1][2:]]


@pytest.mark.parametrize("rows", [0, 10, 4_000, 60_000])
def test_points_that_are_merged_keep_their_sums_and_their_budget(rows: int) -> None:
    random = np.random.default_rng(7)
    frame = pl.DataFrame(
        {
            "ts": np.sort(random.integers(0, 10**9, rows)),
            "v": random.integers(0, 1 << 35, rows),
            "p": random.integers(0, 40, rows),
            "d": random.integers(0, 4, rows),
            "n": np.ones(rows, np.int64),
        }
    )
    merged = pictures._merged(frame, pictures._Clock(0, 10**9, 1_000_000), ("p", "d"))
    assert merged.height <= pictures.POINTS_SHOWN
    assert merged["n"].sum() == merged["f"].sum() == rows
    assert (merged["last"] >= merged["v"]).all()


def test_a_long_memory_keeps_its_extremes() -> None:
    rows = 50_000
    once = np.full(rows, 100)
    once[31_337], once[40_001] = 9_999, 1
    timeline = pl.DataFrame(
        {"ts": np.arange(rows), "once": once, "shared": np.zeros(rows, np.int64), "referenced": np.zeros(rows, np.int64)}
    )
    timeline = timeline.with_columns(pages=pl.sum_horizontal("once", "shared", "referenced"))
    drawn = pictures._memory(Memory(timeline, 9_999, 31_337, {}), pictures._Clock(0, rows, 1_000))
    assert len(drawn["t"]) < 12 * pictures.STRETCHES
    assert {9_999, 1} <= set(drawn["once"])
    assert (drawn["once"][0], drawn["once"][-1]) == (100, 100)


def test_what_policies_have_alike_is_kept_once() -> None:
    told = model()
    assert len(told["memory"]) < len(told["replays"])
    shared = pictures.Shared()
    assert [shared.put(value) for value in ([1], [2], [1])] == [0, 1, 0]


def test_findings_are_told_the_worst_of_each_cause_first() -> None:
    analysis, known = recorded("mail-6.1.dat")
    assert next(iter(known.told)) == "missed-cow-1@mapcount"
    # The wrong COW is alike under five of the six replays.
    assert analysis.findings.height == 6
    assert list(known.told) == ["missed-cow-1@mapcount", "wrong-cow-1@observed"]
    alike = [example.finding(n, address=example.ADDRESS + 8192 * n) for n in range(5)]
    rows = details.groups(example.mail(findings=example.findings(*alike, example.finding(9, fingerprint="other", address=1 << 30))))
    assert [each.first["id"] for each in details.chosen(rows, 3)] == ["F0", "F9", "F1"]


def test_the_busiest_families_are_told_once() -> None:
    families = model()["families"]["all"]
    assert families[0]["label"].startswith("the most telling page: ")
    others = [(family["v"], tuple(family["pids"])) for family in families if not family["findings"]]
    assert len(others) == len(set(others)) > 3


@pytest.mark.parametrize("name", ["mail-6.1.dat", "mail-5.10.dat", "random1-6.1.dat", "vmsplice_child-6.1.dat"])
def test_a_story_is_called_safe_only_where_its_picture_shows_nothing_unsafe(name: str) -> None:
    analysis, _ = recorded(name)
    defects = set(analysis.findings.filter(severity="defect").select("policy", "address").iter_rows())
    seen = 0
    for family in model(name)["families"]["all"]:
        for story in family["stories"]:
            unsafe = [step for step in story["steps"] if "danger" in step]
            assert not (story["safe"] and unsafe), (family["label"], story["policy"])
            assert story["safe"] or (story["policy"], family["v"] << 12) in defects
            seen += not story["safe"]
    assert seen or not defects


def test_a_page_is_as_unsafe_where_its_finding_is_known_and_reported_no_more(tmp_path: Path) -> None:
    trace = tracetool.open(fixture_path("mail-5.10.dat"))
    before = tmp_path / "before.json"
    before.write_text(json.render(analyse(trace)))
    analysis = analyse(trace, baseline=read_baseline(str(before)))
    assert not analysis.findings.height
    families = pictures.model(analysis, details.gather(trace, analysis))["families"]["all"]
    assert {story["policy"] for family in families for story in family["stories"] if not story["safe"]} == {"mapcount"}


def test_the_findings_of_a_family_share_its_pictures() -> None:
    families = model("mail-6.1.dat")["families"]["all"]
    assert families[0]["findings"] == ["missed-cow-1@mapcount", "wrong-cow-1@observed"]
    assert [story["policy"] for story in families[0]["stories"]] == ["observed", *POLICIES]
    assert len({(family["v"], *family["pids"]) for family in families}) == len(families)


def test_the_most_telling_page_begins_with_what_was_observed_where_nothing_is_unsafe() -> None:
    for name in ("random1-6.1.dat", "snapshot-6.1.dat"):
        first = model(name)["families"]["all"][0]
        unsafe = [n for n, story in enumerate(first["stories"]) if not story["safe"]]
        assert first["stories"][first["shown"]]["policy"] == ("observed" if not unsafe else first["stories"][unsafe[0]]["policy"])


def test_an_arrow_leads_from_a_store_to_whoever_reads_it_and_should_not() -> None:
    told = model("mail-6.1.dat")["families"]
    figures = {story["policy"]: told["figures"][story["figures"]["time"]] for story in told["all"][0]["stories"]}
    arrows = {
        policy: [note for note in figure["layout"]["annotations"] if note.get("arrowcolor") == "var(--danger)"]
        for policy, figure in figures.items()
    }
    assert {policy for policy, found in arrows.items() if found} == {"mapcount"}
    texts = [note["text"] for note in figures["mapcount"]["layout"]["annotations"]]
    assert "B's store is read here" in texts
    sketched = str(found_sketch("mail-6.1.dat", "mapcount"))
    assert sketched.count('class="leak"') == 1
    assert 'class="leak"' not in str(found_sketch("mail-6.1.dat", "page-count"))


def found_sketch(name: str, policy: str) -> str:
    """The small picture of the most telling page."""
    analysis, _ = recorded(name)
    story = next(story for story in analysis.stories if story.policy == policy)
    return str(sketch(story, dangers(analysis, story)))


def test_forks_are_told_with_what_was_copied_of_them() -> None:
    analysis, known = recorded()
    table = tables.forks(known, analysis.trace)
    assert len(table.rows) == len(model()["forks"]["from"]) == known.replays[0].forks.height
    assert [row[8].number for row in table.rows] == known.replays[0].forks["copied"].to_list()
    assert table.rows[0][0].pick is not None


def test_a_sketch_says_what_is_unsafe_in_words_and_shapes() -> None:
    analysis = example.mail()
    story = analysis.stories[1]
    drawn = str(sketch(story, dangers(analysis, story)))
    assert "✖ unsafe: missed-cow" in drawn
    assert drawn.count('class="bad"') == 1
    assert drawn.count('<rect class="p0 held"') == 1
    assert drawn.count('class="fork"') == 1
    assert "bad" not in str(sketch(analysis.stories[2], ()))


def test_a_sketch_shows_foreign_names_and_obeys_none() -> None:
    drawn = str(sketch(example.hostile('"><script>').stories[0], ()))
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn


def test_a_finding_tells_the_steps_around_what_it_is_about_by_their_numbers() -> None:
    story = example.story("mapcount", copies=False)
    told = list(found.marks(story, [story], (), act=story.steps[5], most=4))
    assert [mark.number for mark in told] == [4, 5, 6, 7]
    assert [mark.here for mark in told] == [False, False, True, False]


def test_a_small_report_stays_small() -> None:
    analysis, known = recorded("mail-6.1.dat")
    assert len(html.render(analysis, details=known).encode()) < 2_500_000


def test_a_redacted_report_has_no_name_path_or_frame_left() -> None:
    analysis, known = recorded("mail-6.1.dat")
    text = html.render(analysis, "tracetool replay secret", redact=True, details=known)
    clean, hidden = masking.masked(analysis, known)
    assert hidden is not None
    drawn = str(pictures.model(clean, hidden))
    for secret in ("cowlab", "trace-cmd ", "mail-6.1", "secret", "6.1.0-"):
        assert secret not in text, secret
        assert secret not in drawn, secret
    frames = {f"{pfn:#x}" for pfn in analysis.findings["pfn"].drop_nulls()}
    assert frames
    assert not any(f"frame {frame}" in text or f"frame {frame}" in drawn for frame in frames)
    assert "process-1" in drawn
    # A name has the same number wherever it stands.
    [owner] = {story.owners["A"] for story in clean.stories}
    assert owner.rpartition(" ")[0] in hidden.replays[0].decisions["comm"].to_list()
    assert hidden.told["missed-cow-1@mapcount"].act is not None
