"""The HTML report, read without a browser."""

from __future__ import annotations

import base64
import functools
import gzip
import itertools
import json
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report import example
from tracetool.analysis import Analysis
from tracetool.report import html

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
    assert len(mail().texts("table")) == len(mail().texts("caption")) == 3
    assert all(mail().texts("caption"))


def test_nothing_is_loaded_from_anywhere() -> None:
    loading = {"src", "href", "srcset", "data", "action", "poster"}
    assert [has for _, has, _ in mail().elements if loading & has.keys()] == []
    assert not any("url(" in style or "@import" in style for style in mail().texts("style"))
    policy = next(has["content"] for tag, has, _ in mail().elements if tag == "meta" and has.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


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
    assert "mapcount ✖ unsafe: 1 certain 5 2 3 0 0 0 0 0 17 4 of 5, 0 of 1 contested 5.10, 6.1, 6.12, 7.2" in rows
    assert "page-count ✔ clean 5 3 2 0 0 1 4 KiB 2.00 µsassumed 18 5 of 5, 1 of 1 contested 5.10, 6.1, 6.12, 7.2" in rows


def test_a_finding_names_act_time_page_and_records() -> None:
    row = next(row for row in mail().texts("tr") if row.startswith("F1 "))
    for fact in (
        "missed-cow",
        "mapcount",
        "certain defect",
        "+35.936 ms",
        "381 µs",
        "0x7feebe8d4000",
        "0x259e",
        "gup_grab #2",
        "cow_fault #13",
    ):
        assert fact in row


def test_every_story_is_readable_without_scripts() -> None:
    stories = [(has, "".join(text)) for tag, has, text in mail().elements if tag == "article"]
    assert len(stories) == 4
    assert not any("hidden" in has for has, _ in stories)
    assert all("A takes a read reference to" in text for _, text in stories)
    assert example.LEAK in stories[1][1]
    assert "unsafe: missed-cow, certain" in stories[1][1]
    assert "not as observed" not in stories[2][1]


def test_controls_that_need_scripts_are_hidden_until_one_runs() -> None:
    waiting = [has for tag, has, _ in mail().elements if has.get("class") in {"controls", "filter"}]
    assert len(waiting) == 2
    assert all("hidden" in has for has in waiting)


def test_the_unsafe_policy_is_shown_first() -> None:
    checked = [has["value"] for tag, has, _ in mail().elements if tag == "input" and "checked" in has and has.get("name") == "policy"]
    assert checked == ["1"]


def test_version_command_and_assumptions_are_told() -> None:
    assert "tracetool replay traces/mail.dat --html report.html" in mail().texts("footer")[0]
    told = " ".join(mail().texts("section"))
    assert "page-count: 1 page beyond mapcount, 2.00 µs each, assumed." in told
    assert "Glossary" in told
    assert "How to read this" in told


@pytest.mark.parametrize("foreign", [NASTY, "<!--", "</script>", "{{ 7 * 7 }}", "\x1b[2J", "&amp;", "\u2028", "' onload='x"])
def test_foreign_strings_are_shown_and_never_obeyed(foreign: str) -> None:
    clean, page = Page(html.render(example.hostile("x"))), Page(html.render(example.hostile(foreign)))
    shape = [(tag, sorted(has)) for tag, has, _ in clean.elements]
    assert [(tag, sorted(has)) for tag, has, _ in page.elements] == shape
    shown = foreign if foreign.isprintable() else foreign.encode("unicode_escape").decode()
    assert page.texts("h1") == [f"Who owned which page when: {shown}"]
    assert page.texts("li").count(shown) >= 2


@given(st.recursive(st.text(), st.lists))
def test_data_for_the_script_survive_and_cannot_end_it(value: object) -> None:
    data = str(html._script_data(value))
    assert json.loads(data) == value
    assert data.isascii()
    assert "<" not in data


def test_five_hundred_findings_are_shown_and_the_rest_counted() -> None:
    page = Page(html.render(example.large(stays=3000, owners=3, rows=700)))
    rows = [row for row in page.texts("tr") if " missed-cow mapcount " in row]
    assert len(rows) == 500
    assert "certain" in rows[0]
    assert "possible" in rows[-1]
    assert page.texts("p", role="status")[0] == "Showing 500 of 700 findings, worst first."
    assert "Here and in the picture: showing 2,000 of 3,000 bars." in page.texts("p")


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
    assert row == "F1 missed-cow mapcount ✖ certain defect not known not known ? ? ?policy only"


def test_without_a_kernel_and_a_clock_it_says_so() -> None:
    found = example.mail()
    page = Page(html.render(replace(found, trace=replace(found.trace, kernel=None, clock=None))))
    assert "not named" in page.texts("dd")
