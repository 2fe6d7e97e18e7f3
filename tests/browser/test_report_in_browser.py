"""The HTML report as its reader has it: drawn, filtered, sorted, selected in, printed, in the dark, on a phone and on a wall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from browser.visiting import Visit, browser_fixture, document, recorded, visit_fixture  # noqa: F401 - fixtures
from report import example
from tracetool.report import html, json, pictures

MAIL, RANDOM, SNAPSHOT = "mail-6.1.dat", "random1-6.1.dat", "snapshot-6.1.dat"
Visits = Callable[..., Visit]


@pytest.mark.parametrize("name", [MAIL, RANDOM, SNAPSHOT])
def test_all_pictures_are_drawn_nothing_is_logged_and_nothing_asked_of_the_network(visit: Visits, name: str) -> None:
    seen = visit(document(name))
    assert seen.quiet, (seen.console, seen.errors, seen.requests)
    assert seen.page.locator(".plot .main-svg").count() >= 6
    for plot in ("plot", "plot-map", "plot-memory", "plot-reasons", "plot-times", "plot-forks"):
        assert seen.page.locator(f"#{plot} .main-svg").first.is_visible(), plot
    assert not seen.page.locator("#plot-status").is_visible()


def test_the_mails_picture_shows_lanes_pages_the_reference_and_the_unsafe_moment(visit: Visits) -> None:
    seen = visit(document(MAIL))
    drawn = seen.page.locator("#plot").inner_text()
    for part in ("A cowlab", "B cowlab", "reads P0 via vmsplice", "✖ unsafe: missed-cow"):
        assert part in drawn
    assert seen.page.locator("#plot .barlayer .point").count() >= 4
    for policy in ("page-count ✔ safe", "forced-cow ✔ safe", "mapcount ✖ unsafe", "observed ✔ safe"):
        seen.page.get_by_label(policy).check(force=True)
        seen.page.wait_for_timeout(300)
        numbers = seen.page.locator("#plot .scatterlayer .trace").nth(0).locator("text").all_text_contents()
        assert numbers == [str(number) for number in range(1, seen.page.locator("#told ol.steps li").count() + 1)], policy
    assert "observed: ✔ safe" in seen.page.locator("#told").inner_text()
    assert "policy observed" in seen.told()


def test_the_filter_filters_and_the_heads_sort(visit: Visits) -> None:
    seen = visit(document(MAIL))
    everything = seen.findings()
    assert len(everything) == 2
    form = seen.page.locator("#filter")
    form.get_by_label("Rule").select_option("missed-cow")
    assert seen.findings() == [each for each in everything if each.startswith("missed-cow")]
    assert seen.page.locator("#shown").inner_text() == f"Showing 1 of {len(everything)} rows."
    form.get_by_label("Rule").select_option("")
    form.get_by_label("Policy").select_option("exclusive")
    assert seen.findings() == ["wrong-cow-1@observed"]
    form.get_by_label("Policy").select_option("")
    form.get_by_label("Contains").fill("nothing has this text")
    assert seen.findings() == []
    form.get_by_label("Contains").fill("")
    head = seen.page.locator("#findings-table thead").get_by_role("button", name="finding")
    head.click()
    assert seen.findings() == sorted(everything)
    head.click()
    assert seen.findings() == sorted(everything, reverse=True)


def test_a_finding_opens_to_story_picture_remedy_and_records(visit: Visits) -> None:
    seen = visit(document(MAIL))
    row = seen.page.locator('tbody[data-id="wrong-cow-1@observed"]')
    assert not row.locator("svg.sketch").is_visible()
    row.locator("summary").focus()
    seen.page.keyboard.press("Enter")
    assert row.locator("svg.sketch").is_visible()
    opened = row.inner_text()
    for part in ("What avoids it", "Records", "Fingerprint", "gup_fast", "cow_fault #"):
        assert part in opened


def test_a_time_span_dragged_in_one_picture_reaches_the_findings_and_the_other_pictures(visit: Visits) -> None:
    seen = visit(document(MAIL))
    before = seen.page.locator("#plot-reasons").inner_text()
    plot = seen.page.locator("#plot-memory .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    # Early: the fork and all findings are later.
    seen.page.mouse.move(box["x"] + box["width"] * 0.02, box["y"] + box["height"] / 2)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2, steps=5)
    seen.page.mouse.up()
    seen.page.wait_for_timeout(300)
    assert " ms" in seen.told()
    assert seen.findings() == []
    assert seen.page.locator("#plot-reasons").inner_text() != before
    assert seen.page.locator("#plot-map .shapelayer path, #plot-map .layer-below path").count() > 0
    seen.page.keyboard.press("Escape")
    assert "everything" in seen.told()
    assert len(seen.findings()) == seen.page.locator("tbody.finding").count()
    assert seen.quiet


def test_a_page_picked_in_the_map_shows_its_findings_and_its_life(visit: Visits) -> None:
    seen = visit(document(MAIL))
    analysis, found = recorded(MAIL)
    page = analysis.findings["address"][0] >> 12
    model = pictures.model(analysis, found)
    policy = next(n for n, each in enumerate(model["replays"]) if each["name"] == "mapcount")
    points = model["points"][model["replays"][policy]["points"]]
    decision = model["decisions"][points["d"][points["v"].index(page)]]
    nth = [v for v, d in zip(points["v"], points["d"], strict=True) if model["decisions"][d] == decision].index(page)
    traces = [name for n, name in enumerate(model["decisions"]) if n in points["d"]]
    mark = seen.page.locator("#plot-map .scatterlayer .trace").nth(traces.index(decision)).locator("path.point").nth(nth)
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.page.wait_for_timeout(200)
    seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    seen.page.wait_for_timeout(300)
    assert f"page {page << 12:#x}" in seen.told()
    assert seen.findings()
    assert f"Address {page << 12:#x}" in seen.page.locator("#family").inner_text()


def test_the_form_selects_without_a_mouse_and_a_finding_shows_itself_in_the_pictures(visit: Visits) -> None:
    seen = visit(document(MAIL))
    seen.page.locator("#selection summary").focus()
    seen.page.keyboard.press("Enter")
    child = seen.page.evaluate(
        "[...document.querySelector('#selection [name=process]').options].findIndex(o => o.text.startsWith('cowlab'))"
    )
    seen.page.locator("#selection [name=process]").select_option(index=child)
    assert "cowlab" in seen.told()
    seen.page.locator("#selection [name=page]").fill("0x1000")
    seen.page.locator("#selection [name=page]").press("Enter")
    assert seen.findings() == []
    assert "is not told in this file" in seen.page.locator("#family").inner_text()
    seen.page.locator("#selection [name=clear]").click()
    seen.page.locator('tbody[data-id="missed-cow-1@mapcount"] button[data-picks]').click()
    assert "policy mapcount" in seen.told()
    assert seen.page.locator("#told").inner_text().startswith("mapcount: ✖ unsafe")
    assert "missed-cow-1@mapcount" in seen.findings()
    assert seen.quiet


def test_a_policy_picked_in_a_table_is_that_of_the_pictures(visit: Visits) -> None:
    seen = visit(document(MAIL))
    seen.page.locator("#policies").get_by_role("button", name="page-count", exact=True).click()
    assert seen.told().endswith("policy page-count")


def test_a_name_that_is_a_script_is_shown_and_not_run(visit: Visits) -> None:
    nasty = "</script><script>document.title='it ran'</script><img src=x onerror=document.title='it ran'>"
    seen = visit(html.render(example.hostile(nasty)))
    assert seen.quiet, (seen.console, seen.errors, seen.requests)
    assert "it ran" not in seen.page.title().replace("document.title='it ran'", "")
    assert nasty in seen.page.locator("h1").inner_text()
    assert "<script>" in seen.page.locator("#plot").text_content()


def test_a_script_that_is_not_the_reports_own_does_not_run(visit: Visits) -> None:
    text = html.render(example.nothing()).replace("</body>", "<script>document.title = 'it ran'</script></body>")
    seen = visit(text)
    assert seen.page.title() != "it ran"
    assert any("Content Security Policy" in line for line in seen.console)


@pytest.mark.parametrize("name", [MAIL, RANDOM])
def test_numbers_are_those_of_the_json_report(visit: Visits, name: str) -> None:
    analysis, _ = recorded(name)
    told = json.to_dict(analysis)
    seen = visit(document(name))
    rows = {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in seen.page.locator("#decided-table tbody tr").all()
    }
    columns = ("cow_faults", "copies", "reuses", "early_copies", "unshares", "zero_fills")
    for each in ({"name": "observed", **told["observed"]}, *told["policies"]):
        assert [int(cell.replace(",", "")) for cell in rows[each["name"]][:6]] == [each[column] for column in columns]
    answer = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in seen.page.locator("#policies tbody tr").all()}
    for each in told["policies"]:
        assert int(answer[each["name"]][4].replace(",", "")) == each["extra_copies"]
        assert f"{each['peak_pages']:,} page" in answer[each["name"]][7]
    # The pictures' own sums.
    names = seen.page.locator("#plot-reasons .ytick text").all_text_contents()
    sums = dict(zip(names, seen.page.locator("#plot-reasons .annotation-text").all_text_contents(), strict=True))
    for each in ({"name": "observed", **told["observed"]}, *told["policies"]):
        label = next(label for label in sums if label.removeprefix("▸ ") == each["name"])
        assert int(sums[label].replace(",", "")) == each["copies"] + each["early_copies"] + each["unshares"]


def test_without_scripts_tables_stories_and_small_pictures_can_be_read(visit: Visits) -> None:
    seen = visit(document(MAIL), script=False)
    assert seen.page.locator("#policies").is_visible()
    assert seen.page.locator(".stories svg.sketch").first.is_visible()
    assert seen.page.locator("tbody.finding svg.sketch").first.is_visible()
    assert not seen.page.locator("#filter").is_visible()
    assert not seen.page.locator("#selection").is_visible()


@pytest.mark.parametrize("width", [360, 768, 1280, 3840])
def test_it_fits_a_phone_and_a_wall(visit: Visits, width: int) -> None:
    seen = visit(document(RANDOM), width=width)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    size = float(seen.page.evaluate("getComputedStyle(document.body).fontSize").removesuffix("px"))
    assert size >= (20 if width > 2000 else 14)


def test_dark_follows_the_reader_and_paper_is_light(visit: Visits) -> None:
    seen = visit(document(MAIL), color_scheme="dark")
    dark = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == "rgb(20, 24, 29)"
    ink = "getComputedStyle(document.querySelector('#plot-memory .xtick text')).fill"
    assert seen.page.evaluate(ink) == "rgb(230, 233, 237)"
    seen.page.emulate_media(color_scheme="light")
    seen.page.wait_for_timeout(500)
    assert seen.page.evaluate(ink) == "rgb(27, 31, 36)"


def test_it_prints(visit: Visits, tmp_path: Path) -> None:
    seen = visit(document(MAIL), color_scheme="dark")
    paper = seen.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert paper.startswith(b"%PDF")
    assert 3 < paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page/") + paper.count(b"/Type /Page ") < 40
    assert seen.quiet


def test_every_control_has_a_name_and_everything_scrolls_by_keyboard(visit: Visits) -> None:
    page = visit(document(RANDOM)).page
    nameless = page.evaluate("""
      [...document.querySelectorAll("input, select, button, summary")].filter((each) =>
        !(each.labels?.length || each.textContent.trim() || each.getAttribute("aria-label") || each.closest(".modebar")))
        .map((each) => each.outerHTML)
    """)
    assert nameless == []
    assert page.evaluate("[...document.querySelectorAll('.scroll[role=region]')].every((each) => each.tabIndex === 0 && each.ariaLabel)")
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((each) => each.getAttribute('role') === 'img')")


def test_the_largest_report_opens_in_two_seconds(visit: Visits) -> None:
    analysis, found = recorded(RANDOM)
    many = example.large(stays=3000, owners=60, rows=10_000)
    rows = [example.finding(i, address=example.ADDRESS + 8192 * i, from_ns=analysis.trace.from_ns + i) for i in range(10_000)]
    text = html.render(replace(many, trace=analysis.trace, findings=example.findings(*rows)), details=found)
    assert len(text.encode()) < 10_000_000
    opened = []
    for _ in range(3):
        seen = visit(text)
        entry = "performance.getEntriesByType('navigation')[0]"
        opened.append(float(seen.page.evaluate(f"{entry}.loadEventEnd - {entry}.startTime")))
        assert seen.quiet
    assert min(opened) < 2000, opened
