"""The notebook docs/tour.ipynb runs in a clone that has nothing but itself, and answers its questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from conftest import FIXTURES, PROJECT

TOUR = PROJECT / "docs" / "tour.ipynb"
#: Runs a notebook where it lies, and writes what came out to another file.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


def source() -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(TOUR.read_text("utf-8"))
    return notebook


def test_it_is_stored_without_answers() -> None:
    code = [cell for cell in source()["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 8
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    assert TOUR.stat().st_size < 20_000


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each cell gives, by the cell's id: MIME type -> content. There is no `shared` folder beside this clone."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    clone = tmp_path_factory.mktemp("clone") / "tracetool"
    (clone / "docs").mkdir(parents=True)
    (clone / "docs" / "tour.ipynb").write_bytes(TOUR.read_bytes())
    (clone / "fixtures").symlink_to(FIXTURES)
    out = clone / "answered.ipynb"
    # What is installed may be another tracetool; loops run as in the other tests; nothing is left in the user's folders.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "parsers"))),
        "TRACETOOL_LOOPS": "python",
        "TRACETOOL_TRACES": str(clone / "nowhere"),
        "IPYTHONDIR": str(clone / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(clone / "runtime"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    command = [sys.executable, "-c", RUN, str(clone / "docs" / "tour.ipynb"), str(clone / "docs"), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    given: dict[str, dict[str, Any]] = {}
    for cell in json.loads(out.read_text("utf-8"))["cells"]:
        for each in cell.get("outputs", []):
            assert each["output_type"] in ("execute_result", "display_data"), f"{cell['id']}: {each}"
            given.setdefault(cell["id"], {}).update(each["data"])
    return given


def html(answers: dict[str, dict[str, Any]], cell: str) -> str:
    return "".join(answers[cell]["text/html"])


class Rows(HTMLParser):
    """The rows of a table, as a notebook shows it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = self._body = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Types of columns are cells as well, above the body.
        self._body = self._body or tag == "tbody"
        if not self._body:
            return
        if tag == "tr":
            self.rows.append([])
        self._inside = tag == "td"
        if self._inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data.strip().strip('"')


def lines(answers: dict[str, dict[str, Any]], cell: str) -> list[list[str]]:
    """The rows of the table that a cell gives."""
    return Rows("".join(answers[cell]["text/html"])).rows


def test_a_trace_shows_itself(answers: dict[str, dict[str, Any]]) -> None:
    assert {"trace.dat v7", "6.1.0-53-amd64", "global"} <= {cell for row in lines(answers, "open") for cell in row}


def test_who_owned_which_page_when(answers: dict[str, dict[str, Any]]) -> None:
    """Both processes have one frame, until each gets a copy: the truth file beside the recording has those frames at its checkpoints."""
    truth = [line.split("\t") for line in (FIXTURES / "mail-6.1.truth.tsv").read_text().splitlines()]
    frames = {row[4] for row in truth if row[3] == "0x7f8efcaf0000"}
    told = lines(answers, "owners")
    assert [(row[2], row[6], row[7]) for row in told] == [
        ("115", "touch", "copied"),
        ("116", "fork", "copied"),
        ("115", "copy", "exit"),
        ("116", "copy", "exit"),
    ]
    assert {row[1] for row in told} == frames
    assert told[0][1] == told[1][1]
    # Two processes and the reference; three pages.
    assert len(answers["timeline"]["application/vnd.plotly.v1+json"]["data"]) == 4
    # At the checkpoint `A-pinned` the kernel says of that page that two map it.
    page = next(row for row in lines(answers, "pages") if row[0] == "0x7f8efcaf0000")
    assert page[1:] == ["10653", "2", "1", "false"]


def test_was_any_sharing_unsafe(answers: dict[str, dict[str, Any]]) -> None:
    assert {"mapcount", "missed-cow"} <= {cell for row in lines(answers, "analysis") for cell in row}
    assert {(row[0], row[1]) for row in lines(answers, "defects") if row[2] == "certain"} == {("mapcount", "missed-cow")}


def test_what_page_count_costs_and_why(answers: dict[str, dict[str, Any]]) -> None:
    """docs/cost.md: 5.10, which has page-count, copied 244 pages of the same program, 6 of them for LRU batches."""
    told = {row[0]: row[1:] for row in lines(answers, "costs")}
    assert (told["page-count"][1], told["page-count"][3], told["page-count"][4]) == ("244", "6", str(6 * 4096))
    because = {row[0]: row[1:] for row in lines(answers, "because")}
    assert because["lru-batch"] == ["0", "6"]
    assert sum(int(row[1]) for row in because.values()) == 244


def test_which_fork_costs_what(answers: dict[str, dict[str, Any]]) -> None:
    """The recorded program forks once; its parent writes 100 of 256 pages at random, some of them twice."""
    (one,) = lines(answers, "forks")
    assert 80 < int(one[4]) <= 100
    assert int(one[4]) + int(one[5]) == int(one[6])
    assert int(one[3]) >= 256
    many = [int(row[6]) for row in lines(answers, "forks-random")]
    assert many == sorted(many, reverse=True)
    assert len(many) == 5
    assert len(answers["memory"]["application/vnd.plotly.v1+json"]["data"]) == 3


def test_the_life_of_one_page(answers: dict[str, dict[str, Any]]) -> None:
    assert [row[1] for row in lines(answers, "life")] == ["fork", "decided-copy", "copied", "copy", "exit"]
    assert [row[1] for row in lines(answers, "life-mapcount")] == ["fork", "decided-reuse", "exit"]
