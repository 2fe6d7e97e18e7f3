"""The text that a latency tracer leaves in a trace.dat in place of event data."""

from __future__ import annotations

from pathlib import Path

import pytest

from parsers.writer import Instance, Trace
from tracetool_parsers import ParseError, open_trace

# As tracefs prints it: Linux, Documentation/trace/ftrace.rst ("wakeup"), and made up.
TEXT = b"""# tracer: wakeup
#
# wakeup latency trace v1.1.5 on 6.1.0-test
# --------------------------------------------------------------------
# latency: 15 us, #2/2, CPU#1 | (M:server VP:0, KP:0, SP:0 HP:0 #P:2)
#    -----------------
#
#                    _------=> CPU#
#                   / _-----=> irqs-off/BH-disabled
#                  | / _----=> need-resched
#                  || / _---=> hardirq/softirq
#                  ||| / _--=> preempt-depth
#                  |||| / _-=> migrate-disable
#                  ||||| /     delay
#  cmd     pid     |||||| time  |   caller
#     \\   /        ||||||  \\    |    /
  <idle>-0         1dNh5.    0us : sched_wakeup: comm=a pid=7 prio=120 target_cpu=001
   a b-7           0d..3.   15us : sched_wakeup: comm=b pid=8 prio=100 target_cpu=000
"""


@pytest.mark.parametrize("version", ["v6", "v7", "v7-zstd"])
def test_text_is_read_as_a_text_file_is(tmp_path: Path, version: str) -> None:
    path, text = tmp_path / "trace.dat", tmp_path / "trace.txt"
    path.write_bytes(Trace([Instance({}, text=TEXT)]).write(version))
    text.write_bytes(TEXT)
    trace, alone = open_trace(path), open_trace(text)
    assert trace.metadata.format == f"trace.dat {version[:2]}, text of a latency tracer"
    assert trace.metadata.kernel == "6.1.0-test"
    assert trace.counts() == {"sched_wakeup": 2}
    assert trace.span() == (0, 15000)
    table = trace.table("sched_wakeup")
    assert table.equals(alone.table("sched_wakeup"))
    assert table["cpu"].to_pylist() == [1, 0]
    assert table["tid"].to_pylist() == [0, 7]
    assert table["comm"].to_pylist() == ["<idle>", "a b"]
    assert table["pid"].to_pylist() == [7, 8]
    assert trace.timeline().num_rows == 2
    assert trace.losses.num_rows == 0


def test_text_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(Trace([Instance({}, text=TEXT)]).write("v6")[:-40])
    trace = open_trace(path)
    assert trace.counts() == {"sched_wakeup": 1}
    assert trace.losses.num_rows == 1
    with pytest.raises(ParseError):
        open_trace(path, strict=True)
