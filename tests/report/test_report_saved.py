"""Saved results give every report again, byte for byte; what is damaged or foreign in them is refused, and nothing else is read."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracetool
from cli.command import run
from conftest import fixture_path
from report import example
from tracetool.analysing import analyse
from tracetool.analysis import Analysis
from tracetool.errors import Unusable
from tracetool.report import html, junit, ktap, sarif, text
from tracetool.report import json as as_json
from tracetool.report.details import Details, gather
from tracetool.report.saved import FOLDER, load, save
from tracetool_parsers.errors import ParseError, TraceError


def analysed(name: str) -> tuple[Analysis, Details]:
    """A fixture with its details."""
    trace = tracetool.open(fixture_path(name))
    analysis = analyse(trace)
    return analysis, gather(trace, analysis)


@pytest.fixture(name="mail", scope="module")
def mail_fixture() -> tuple[Analysis, Details]:
    return analysed("mail-6.1.dat")


@pytest.fixture
def folder(mail: tuple[Analysis, Details], tmp_path: Path) -> Path:
    """Saved results of the mail's example."""
    save(tmp_path, *mail, command="tracetool replay mail.dat --out .")
    return tmp_path


@pytest.mark.parametrize("name", ["mail-6.1.dat", "mail-5.10.dat", "random1-6.1.dat", "snapshot-6.1.dat", "snapshot-pipe-6.1.perf.data"])
def test_every_report_is_the_same_again(name: str, tmp_path: Path) -> None:
    analysis, details = analysed(name)
    save(tmp_path, analysis, details, "command")
    saved = load(tmp_path)
    assert saved.command == "command"
    for form in (text, as_json, junit, sarif, ktap):
        assert form.render(saved.analysis) == form.render(analysis)
    for redact in (False, True):
        again = html.render(saved.analysis, "command", redact=redact, details=saved.details)
        assert again == html.render(analysis, "command", redact=redact, details=details)


def test_names_that_are_no_unicode_are_kept(mail: tuple[Analysis, Details], tmp_path: Path) -> None:
    hostile = example.hostile("</script>\udce4\x1b[31m\u2028'\"")
    save(tmp_path, hostile, mail[1], "\udcff")
    saved = load(tmp_path)
    assert saved.analysis.trace == hostile.trace
    assert saved.analysis.stories == hostile.stories
    assert saved.command == "\udcff"


def test_a_later_save_leaves_nothing_of_the_one_before(folder: Path, mail: tuple[Analysis, Details]) -> None:
    (folder / FOLDER / "table-999.parquet").write_bytes(b"old")
    save(folder, *mail, command="again")
    assert not (folder / FOLDER / "table-999.parquet").exists()
    assert load(folder).command == "again"


def test_an_empty_folder_says_what_saves_results(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="no saved results") as raised:
        load(tmp_path)
    assert "replay TRACE --out DIR" in str(raised.value.hint)


def test_another_form_is_refused_by_its_number(folder: Path) -> None:
    changed(folder, lambda content: content.update(saved_version=2))
    with pytest.raises(Unusable, match="in form 2; this tracetool reads form 1"):
        load(folder)


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Edit report.json."""
    file = folder / FOLDER / "report.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["analysis"].pop("trace"),
        lambda content: content["analysis"]["trace"].update(from_ns="soon"),
        lambda content: content["analysis"].update(replays={"observed": {}}),
        lambda content: content["analysis"].update(recorded={"path": "/etc/passwd"}),
        lambda content: content["analysis"].update(findings=7),
        lambda content: content["analysis"].update(findings={"table": "../../secret.parquet", "sha256": ""}),
        lambda content: content["analysis"].update(findings={"table": "table-77.parquet", "sha256": ""}),
        lambda content: content["analysis"]["findings"].update(sha256="0" * 64),
        lambda content: content["analysis"].update(evidence={"ten": ["anon_new", 1, 2]}),
        lambda content: content["analysis"].update(stories=[[[[[]]]]]),
        lambda content: content["details"]["times"]["probes"].update(kprobe={"between": "a", "spans": ["x"]}),
        lambda content: content.update(details=None),
        lambda content: content.update(saved_version="1"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    shutil.copy(folder / FOLDER / "table-1.parquet", folder.parent / "secret.parquet")
    changed(folder, change)
    with pytest.raises(ParseError, match="is no saved report") as raised:
        load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 100_000, b'{"saved_version":1}', b"\xff", b'{"saved_version":1e999}'])
def test_what_is_no_report_is_refused(folder: Path, content: bytes) -> None:
    (folder / FOLDER / "report.json").write_bytes(content)
    with pytest.raises(TraceError):
        load(folder)


@pytest.mark.parametrize("seed", range(20))
def test_damage_is_refused_or_harmless(folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    for file in sorted((folder / FOLDER).iterdir()):
        whole = file.read_bytes()
        damaged = bytearray(whole)
        at = dice.randrange(len(whole))
        if dice.random() < 0.5:
            damaged[at] ^= 1 << dice.randrange(8)
        else:
            del damaged[at:]
        file.write_bytes(damaged)
        try:
            load(folder)
        except TraceError:
            pass
        else:
            # A name or a number of the JSON file, changed into another one; a table is never another one unnoticed.
            assert file.name == "report.json"
        file.write_bytes(whole)


def test_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trace, out, first, second = fixture_path("mail-6.1.dat"), tmp_path / "results", tmp_path / "1.html", tmp_path / "2.html"
    told = run(capfd, "replay", trace, "--out", out, "--html", first)
    assert f"tracetool report {out} makes the reports again" in told.err
    again = run(capfd, "report", out, "--html", second)
    assert (again.code, again.out) == (0, told.out)
    commands = [f"tracetool replay {trace} --out {out} --html {first}", f"tracetool report {out} --html {second}"]
    page = second.read_text()
    assert " &amp;&amp; ".join(commands) in page
    assert page.replace(f" &amp;&amp; {commands[1]}", "") == first.read_text()
    for form in ("junit", "sarif", "ktap"):
        assert run(capfd, "report", out, "--format", form).out == run(capfd, "replay", trace, "--format", form).out
    assert json.loads(run(capfd, "report", out, "--json", "-").out)["findings"]
    assert run(capfd, "report", out, "--html", second).code == 1  # it is there, and --force was not said
    nowhere = run(capfd, "report", tmp_path / "nowhere")
    assert (nowhere.code, nowhere.out) == (2, "")
    assert "hint: " in nowhere.err


def test_tables_that_do_not_fit_are_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = json.loads((folder / FOLDER / "report.json").read_text())
    other = next(file for file in sorted((folder / FOLDER).glob("*.parquet")) if file.name != content["analysis"]["findings"]["table"])
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    changed(folder, lambda told: told["analysis"].update(findings={"table": other.name, "sha256": digest}))
    result = run(capfd, "report", folder, "--html", folder / "report.html")
    assert result.code == 1
    assert "holds tables that do not fit" in result.err
    assert not (folder / "report.html").exists()
