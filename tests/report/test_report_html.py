"""The HTML report, read without a browser."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import itertools
import json
import string
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from report import example
from tracetool.analysis import Analysis, RecordedDecision, Verdict
from tracetool.report import found, html

VOID = {"meta", "input", "br", "hr", "img", "link"}
NASTY = "<script>alert(1)</script>"


class Page(HTMLParser):
    """A document as its elements: (tag, attributes, text within), and what is wrong with its nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.wrong: list[str] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{self.elements[i][0]}> is not closed" for i in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self.elements[self._open[-1]][0] != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for i in self._open:
            self.elements[i][2].append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """The text within each element of that name and those attributes, white space folded."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [" ".join("".join(text).split()) for name, has, text in self.elements if name == tag and wanted.items() <= has.items()]


@functools.cache
def mail() -> Page:
    return Page(html.render(example.mail(), "tracetool replay traces/mail.dat --html report.html"))


@pytest.mark.parametrize(
    "analysis",
    [example.mail(), example.nothing(), example.hostile(NASTY), example.mail(policies=())],
    ids=["mail", "nothing", "hostile", "observed"],
)
def test_the_document_is_well_formed(analysis: Analysis) -> None:
    page = Page(html.render(analysis))
    assert page.wrong == []
    assert len(page.texts("h1")) == 1
    levels = [int(tag[1]) for tag, _, _ in page.elements if tag in {"h1", "h2", "h3"}]
    assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {has["aria-labelledby"] for _, has, _ in page.elements if "aria-labelledby" in has}
    assert labels <= set(ids)


def test_every_table_header_has_a_scope_and_every_table_a_caption() -> None:
    scopes = [attributes.get("scope") for tag, attributes, _ in mail().elements if tag == "th"]
    assert scopes
    assert set(scopes) == {"col", "row"}
    assert len(mail().texts("table")) == len(mail().texts("caption")) >= 4
    assert all(mail().texts("caption"))


def test_nothing_is_loaded_from_anywhere() -> None:
    loading = {"src", "srcset", "data", "action", "poster"}
    assert [has for _, has, _ in mail().elements if loading & has.keys()] == []
    assert all((has["href"] or "").startswith("#") for _, has, _ in mail().elements if "href" in has)
    assert not any("url(" in style or "@import" in style for style in mail().texts("style"))
    assert content_policy(mail()).startswith("default-src 'none'")


def content_policy(page: Page) -> str:
    policy = next(has["content"] for tag, has, _ in page.elements if tag == "meta" and has.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    return policy


def test_only_the_reports_own_script_and_plotlys_may_run() -> None:
    text = html.render(example.mail())
    own = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(each).digest()).decode()}'" for each in (own.encode(), plotly)]
    policy = content_policy(Page(text))
    assert policy.partition("script-src ")[2].split() == hashes
    assert "unsafe-eval" not in policy


def test_no_handler_stands_in_an_attribute_and_one_script_runs() -> None:
    assert [name for _, has, _ in mail().elements for name in has if name.startswith("on")] == []
    assert [has for tag, has, _ in mail().elements if tag == "script" and "type" not in has] == [{}]


def test_it_stays_under_two_and_a_half_megabytes() -> None:
    assert len(html.render(example.mail()).encode()) < 2_500_000
    assert len(html.render(example.nothing()).encode()) < 100_000


def test_the_bundle_is_plotlys_own_script() -> None:
    packed = mail().texts("script", id="bundle")[0]
    assert gzip.decompress(base64.b64decode(packed)) == (files("plotly") / "package_data" / "plotly.min.js").read_bytes()


def test_the_answer_and_the_policies_can_be_read() -> None:
    page = mail()
    assert page.texts("ul", class_="answer")[0].count(".") >= 3
    rows = page.texts("tr")
    assert "mapcount ✖ defect 1 0 2 0 0 0 68 KiB17 pages 4 of 50 of 1 contested 5.10, 6.1, 6.12, 7.2" in rows
    assert "page-count ✔ clean 0 0 3 1 4 KiB 2.00 µsassumed 72 KiB18 pages 5 of 51 of 1 contested 5.10, 6.1, 6.12, 7.2" in rows


def test_verdicts_are_three_and_what_is_only_possible_is_none_of_them() -> None:
    verdicts = (Verdict("missed-cow", "mapcount", "inconclusive"),)
    possible = example.mail(findings=example.findings(example.finding(certainty="possible")), verdicts=verdicts)
    assert any(row.startswith("mapcount ▲ inconclusive 0 1 ") for row in Page(html.render(possible)).texts("tr"))


def test_the_banner_says_what_cannot_be_said() -> None:
    verdicts = (Verdict("missed-cow", "observed", "inconclusive", ("gup",)), Verdict("wrong-cow", "observed", "clean"))
    items = Page(html.render(example.mail(verdicts=verdicts))).texts("li")
    assert "Whether missed-cow is clean: it lacks gup." in items
    assert "How policies would have decided 2 decisions: the page is older than the trace." in items


def test_the_kernels_own_policy_what_tells_it_and_what_contradicts_it() -> None:
    told = RecordedDecision(example.B_WRITES, 116, example.ADDRESS, copied=False, because="sole-owner", event=50)
    page = Page(html.render(example.mail(kernel=example.kernel(disagreements=(told,)))))
    text = " ".join(page.texts("div", class_="kernel"))
    assert "page-count decides 5 of 5 decisions as the traced kernel did; 1 decision tells it from mapcount" in text
    assert "Undetermined: 2 (the page is older than the trace)." in text
    rows = page.texts("tr")
    assert any("reused" in row and "sole-owner" in row and row.startswith("+35.936 ms") for row in rows)
    assert any("copied" in row and "reference" in row and row.startswith("+35.936 ms") for row in rows)


def test_a_finding_names_act_time_page_records_remedy_and_fingerprint() -> None:
    [row] = [text for text in mail().texts("tbody", role="rowgroup") if text.startswith("F1 ")]
    for fact in (
        "certain defect", "+35.936 ms", "381 µs", "0x7feebe8d4000", "0x259e", "gup_grab #2", "cow_fault #13", "by 116",
        "What avoids it", "0123456789abcdef", "tracetool explain traces/mail.dat F1",
    ):  # fmt: skip
        assert fact in row


def test_neighbours_of_one_cause_are_one_row() -> None:
    rows = [example.finding(i, address=example.ADDRESS + 4096 * i) for i in range(5)]
    page = Page(html.render(example.mail(findings=example.findings(*rows))))
    assert page.texts("th", scope="row", role="rowheader") == ["F0 and 4 more"]
    assert page.texts("p", role="status")[0] == (
        "1 row for 5 findings: neighbours of one cause, and what policies have alike, are one row, worst first."
    )


def test_what_policies_have_alike_is_one_row_that_names_them() -> None:
    rows = [example.finding(i, policy=policy) for i, policy in enumerate(("observed", "mapcount", "page-count"))]
    other = example.finding(7, policy="exclusive", from_ns=example.TAKE)
    page = Page(html.render(example.mail(findings=example.findings(*rows, other))))
    assert page.texts("th", scope="row", role="rowheader") == ["F0", "F7"]
    told = page.texts("td", **{"data-label": "what happened"})
    assert not told[0].startswith("Not on the traced kernel")
    assert told[0].endswith("Alike under mapcount, page-count.")
    assert "Alike" not in told[1]
    assert told[1].startswith("Not on the traced kernel, but under exclusive: ")


def test_every_story_is_readable_without_scripts_once() -> None:
    stories = [(has, "".join(text)) for tag, has, text in mail().elements if tag == "article"]
    assert len(stories) == 2
    assert not any("hidden" in has for has, _ in stories)
    assert all("A takes a read reference to" in text for _, text in stories)
    unsafe, safe = (text for _, text in stories)
    assert "mapcount: " in unsafe
    assert example.LEAK in unsafe
    assert "unsafe from here: missed-cow, certain" in unsafe
    assert "page-count, exclusive: " in safe
    assert "not as observed" not in safe


def model(page: Page) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(page.texts("script", id="model")[0])))
    return told


def test_controls_that_need_scripts_are_hidden_until_one_runs() -> None:
    waiting = [has for tag, has, _ in mail().elements if has.get("class") in {"controls", "filter"}]
    assert len(waiting) == 2
    assert all("hidden" in has for has in waiting)


def test_the_unsafe_policy_is_shown_first() -> None:
    [family] = model(mail())["families"]["all"]
    shown = family["stories"][family["shown"]]
    assert shown["policy"] == "mapcount"
    assert [step["danger"] for step in shown["steps"] if "danger" in step] == ["missed-cow, certain"]


def test_version_command_and_assumptions_are_told() -> None:
    assert "tracetool replay traces/mail.dat --html report.html" in mail().texts("footer")[0]
    told = " ".join(mail().texts("section"))
    assert "page-count: 1 page beyond mapcount, 2.00 µs each, assumed." in told
    assert "Method" in told
    assert "Glossary" in told
    assert "How to read this" in told


@pytest.mark.parametrize("foreign", [NASTY, "<!--", "</script>", "{{ 7 * 7 }}", "\x1b[2J", "&amp;", "\u2028", "' onload='x"])
def test_foreign_strings_are_shown_and_never_obeyed(foreign: str) -> None:
    clean, page = Page(html.render(example.hostile("x"))), Page(html.render(example.hostile(foreign)))
    shape = [(tag, sorted(has)) for tag, has, _ in clean.elements]
    assert [(tag, sorted(has)) for tag, has, _ in page.elements] == shape
    shown = foreign if foreign.isprintable() else foreign.encode("unicode_escape").decode()
    assert page.texts("h1") == [f"Who owned which page when: {shown}"]
    items = page.texts("li")
    assert shown in items
    assert any(item.endswith(f"it lacks {shown}.") for item in items)


def test_data_for_the_script_cannot_end_it() -> None:
    for name in ("model", "bundle"):
        assert set(mail().texts("script", id=name)[0]) <= set(string.ascii_letters + string.digits + "+/=")


def test_so_many_findings_are_shown_and_the_rest_counted() -> None:
    rows = [example.finding(i, address=example.ADDRESS + 8192 * i, certainty="possible" if i % 2 else "certain") for i in range(10_000)]
    text = html.render(replace(example.large(stays=3000, owners=3, rows=1), findings=example.findings(*rows)))
    page = Page(text)
    shown = page.texts("th", scope="row", role="rowheader")
    assert len(shown) == found.FINDINGS_SHOWN
    assert shown[:2] == ["F0", "F10"]
    assert page.texts("p", role="status")[0] == "Showing 200 of 10,000 rows, worst first. All are in the JSON report (--json)."
    assert "Here and in the picture: showing 2,000 of 3,000 bars." in page.texts("p")
    assert len(text.encode()) < 10_000_000


def test_no_findings_and_no_story_say_why() -> None:
    page = Page(html.render(example.nothing()))
    assert any("every rule is clean" in text for text in page.texts("p"))
    assert any("No picture" in text for text in page.texts("p"))
    assert page.texts("script", id="bundle") == []


def test_an_unknown_frame_address_and_time_are_said_to_be_unknown() -> None:
    unknown = example.finding(
        pfn=None, address=None, from_ns=None, to_ns=None, comm=None, pid=None, by_pid=None, summary=None, evidence=None
    )
    row = next(row for row in Page(html.render(example.mail(findings=example.findings(unknown)))).texts("tr") if row.startswith("F1"))
    assert row.endswith("not known not known ? by ? ?policy only")


def test_without_a_kernel_and_a_clock_it_says_so() -> None:
    found = example.mail()
    page = Page(html.render(replace(found, trace=replace(found.trace, kernel=None, clock=None))))
    assert "not named" in page.texts("dd")
