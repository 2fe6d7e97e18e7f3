"""Progress on a terminal: after a second, gone when done, and never where nobody looks."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from conftest import PROJECT, fixture_path

MAIL = fixture_path("mail-6.1.dat")
#: The tool, with another delay before the line is shown: 0 takes the place of a large trace.
TOOL = """
import sys
from tracetool import progress
progress.shown.__wrapped__.__kwdefaults__.update(delay=float(sys.argv.pop(1)), period=0.01)
from tracetool.cli import main
main()
"""
SLOW = """
import sys, time
from tracetool import progress
progress.shown.__wrapped__.__kwdefaults__.update(delay=0.0, period=0.01)
from tracetool.cli import main, replay
def slow(*_):
    with progress.stage("waiting", 100, "events", lambda: 42):
        time.sleep(60)
replay._analysed = slow
main()
"""


@dataclass(frozen=True)
class Seen:
    """What a program on a terminal left: its exit code, all that came to the terminal, and what it wrote to a file that is its output."""

    code: int
    terminal: str
    output: bytes


def on_terminal(program: str, *arguments: object, output: Path | None = None, key: bytes = b"", when: str = "", **environment: str) -> Seen:
    """Run Python code on a terminal of its own; `key` is pressed once `when` is there. Standard output goes to a file, if one is named."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    path = os.pathsep.join((str(PROJECT), str(PROJECT / "parsers")))
    settings = {"TERM": "xterm", "TRACETOOL_LOOPS": "python", **environment, "PYTHONPATH": path}
    # The terminal becomes that of the new session, so that its keys send signals; whoever runs the tests in the background ignores them.
    session = "fcntl.ioctl(2, termios.TIOCSCTTY, 0); signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"import fcntl, signal, termios; {session}\n{program}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with open(output or os.devnull, "wb") as file:
        told = theirs if output is None else file
        child = subprocess.Popen(command, stdin=theirs, stdout=told, stderr=theirs, env=os.environ | settings, start_new_session=True)
    os.close(theirs)
    seen, pressed, deadline = b"", False, time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            if key and not pressed and when.encode() in seen:
                os.write(ours, key)
                pressed = True
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # Linux: all who had the terminal are gone
                break
            if not piece:
                break
            seen += piece
        code_of = child.wait(10)
    finally:
        child.kill()
        os.close(ours)
    return Seen(code_of, seen.decode(), output.read_bytes() if output else b"")


def screen(terminal: str) -> list[str]:
    """The lines that are left on a terminal which knows carriage return and `erase to the end of the line`."""
    lines = [""]
    column = 0
    for part in re.findall(r"\x1b\[K|\x1b\[[\d;]*m|\r|\n|[^\x1b\r\n]+", terminal):
        if part == "\n":
            lines.append("")
        elif part == "\r":
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif not part.startswith("\x1b"):
            lines[-1] = lines[-1][:column].ljust(column) + part + lines[-1][column + len(part) :]
            column += len(part)
        column = 0 if part == "\n" else column
    return [line.rstrip() for line in lines]


def drawings(terminal: str) -> list[str]:
    return re.findall(r"\r([^\r\n\x1b]+)\x1b\[K", terminal)


def test_it_is_shown_by_bytes_and_by_events_and_is_gone_when_done(tmp_path: Path) -> None:
    trace = tmp_path / "made-up.dat"
    made = on_terminal(TOOL, 0, "synth", "snapshot", "-o", trace, "--events", 8_000, "--file-version", 6)
    assert made.code == 0
    assert any(re.match(r"making up \[[#.]+\] +\d+ %  [\d,]+ of [\d,]+ events", line) for line in drawings(made.terminal))
    seen = on_terminal(TOOL, 0, "replay", trace, output=tmp_path / "out")
    assert seen.code == 0
    shown = drawings(seen.terminal)
    assert any(re.match(r"(counting events|reading) \[[#.]+\] +\d+ %  [\d.]+ of [\d.]+ [kM]B", line) for line in shown)
    assert any(re.match(r"events to memory events \[[#.]+\] +\d+ %  [\d,]+ of [\d,]+ events", line) for line in shown)
    shares = [int(n) for line in shown for n in re.findall(r"events to memory events .* (\d+) %", line)]
    assert shares == sorted(shares)
    assert max(map(len, shown)) < 100
    # Nothing of it stays.
    assert [line for line in screen(seen.terminal) if line] == []


def test_the_output_is_the_same_with_and_without(tmp_path: Path) -> None:
    seen = on_terminal(TOOL, 0, "replay", MAIL, output=tmp_path / "out")
    assert drawings(seen.terminal)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "parsers")))}
    piped = subprocess.run([sys.executable, "-c", TOOL, "0", "replay", str(MAIL)], env=environment, capture_output=True, check=True)
    assert piped.stderr == b""
    assert seen.output == piped.stdout


def test_on_one_terminal_the_line_and_the_answer_do_not_mix() -> None:
    lines = screen(on_terminal(TOOL, 0, "replay", MAIL, "--policy", "none", NO_COLOR="1").terminal)
    assert lines[0].startswith(str(MAIL)[:60])
    assert not any("[#" in line or "[." in line or " ..." in line for line in lines)


def test_what_takes_less_than_its_second_is_not_shown(tmp_path: Path) -> None:
    assert on_terminal(TOOL, 3600, "replay", MAIL, output=tmp_path / "out").terminal == ""


def test_a_terminal_that_cannot_erase_gets_nothing(tmp_path: Path) -> None:
    assert on_terminal(TOOL, 0, "replay", MAIL, output=tmp_path / "out", TERM="dumb").terminal == ""


def test_a_reader_of_a_pipe_has_the_terminal_for_itself() -> None:
    run = f"subprocess.run([sys.executable, '-c', {TOOL!r}, *sys.argv[1:]], stdout=subprocess.PIPE)"
    program = f"import subprocess, sys\nsys.exit({run}.returncode)"
    seen = on_terminal(program, 0, "replay", MAIL)
    assert (seen.code, seen.terminal) == (0, "")


def test_an_interrupt_leaves_nothing_and_says_130(tmp_path: Path) -> None:
    begin = time.monotonic()
    seen = on_terminal(SLOW, "replay", MAIL, output=tmp_path / "out", key=b"\x03", when="42 of 100 events")
    assert time.monotonic() - begin < 60
    assert seen.code == 130
    # The terminal itself shows the key.
    assert [line for line in screen(seen.terminal.replace("^C", "")) if line] == []


def test_an_error_takes_the_place_of_the_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dat"
    broken.write_bytes(MAIL.read_bytes()[:200])
    seen = on_terminal(TOOL, 0, "replay", broken, output=tmp_path / "out")
    assert seen.code == 1
    assert screen(seen.terminal)[0].startswith("error: ")


def test_signals_are_as_they_were() -> None:
    from tracetool import progress

    before = signal.getsignal(signal.SIGINT)
    with progress.shown(sys.__stderr__ or sys.stderr, delay=3600):
        assert signal.getsignal(signal.SIGINT) is before
