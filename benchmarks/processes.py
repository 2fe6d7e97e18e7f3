"""Runs a command and says how long it took and how much memory it had at most.

`run` does so from a process of its own that imports nothing large: Linux counts into the greatest RSS of a command what its parent had
when it was started (`exec_mmap` in fs/exec.c), which here would be all our tables.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
#: How often memory is looked at, s.
_INTERVAL: Final = 0.001


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended.

    Attributes:
        code: its exit code, negative where a signal ended it.
        seconds: from its start to its end.
        max_rss: greatest resident set in bytes, pages of files included.
        max_anon: greatest RssAnon in bytes, 0 where it was not looked at.
    """

    code: int
    seconds: float
    max_rss: int
    max_anon: int


def run(command: Sequence[str | Path], *, anon: bool = False, env: Mapping[str, str] | None = None) -> Finished:
    """Run a command in the project's folder, its output thrown away; its messages go where ours do.

    `anon` looks at RssAnon all the time, which takes the other core: not for runs that are timed. `env` is added to the environment.
    """
    ask = [sys.executable, "-m", "benchmarks.processes", str(int(anon)), *map(str, command)]
    done = subprocess.run(ask, cwd=PROJECT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, text=True, check=True)
    return Finished(**json.loads(done.stdout))


def _watch(command: Sequence[str], anon: bool) -> Finished:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most = 0
    ended, status, usage = os.wait4(process.pid, os.WNOHANG if anon else 0)
    while not ended:
        most = max(most, _anon(process.pid))
        time.sleep(_INTERVAL)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    return Finished(os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss << 10, most)


def _anon(pid: int) -> int:
    # Absent in the moment between exit and wait.
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


if __name__ == "__main__":
    print(json.dumps(asdict(_watch(sys.argv[2:], sys.argv[1] == "1"))))
