"""A replay of the text of a recording says what the replay of the recording says."""

from __future__ import annotations

import shutil

import pytest

from conftest import fixture_path
from parsers.texts import ftrace, printed
from tracetool.trace import Trace
from tracetool_parsers import open_trace

pytestmark = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed: nothing prints the texts")


@pytest.mark.parametrize("options", [("-t", "-R"), ("-t",)])
@pytest.mark.parametrize("name", ["mail-5.10.dat", "mail-7.2.dat", "snapshot-6.1.dat", "vmsplice_child-6.1.dat"])
def test_ownership_of_a_text_is_that_of_its_recording(name: str, options: tuple[str, ...]) -> None:
    path = fixture_path(name)
    text, recording = Trace(ftrace(printed(path, *options))), Trace(open_trace(path))
    for table in ("ownership", "references", "faults"):
        ours, theirs = getattr(text.replay(), table).collect(), getattr(recording.replay(), table).collect()
        assert ours.height > 0 or theirs.height == 0
        assert ours.equals(theirs), table
    assert text.processes.equals(recording.processes)
    marks = [trace.marks()["text"].to_list() for trace in (text, recording)]
    assert marks[0] == marks[1]
