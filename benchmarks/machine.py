"""What the figures were taken on: hardware and versions, and nothing that names the machine."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

_LIBRARIES: Final = ("tracetool", "numpy", "polars", "pyarrow", "numba")


def describe_machine() -> dict[str, Any]:
    """CPU model, cores, load average of the last minute, Python, versions of libraries and peers (None: not there), date."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        "libtracecmd": _version("pkg-config", "--modversion", "libtracecmd"),
        "trace-cmd": _version("trace-cmd", "--version"),
        "perf": _version("perf", "--version"),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def _cpu_model() -> str:
    named = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    return named[1] if named else platform.machine()


def _version(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    number = re.search(r"\d+(?:\.\d+)+", printed)
    return number[0] if number else None
