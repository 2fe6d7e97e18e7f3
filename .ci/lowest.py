"""Print a pip constraints file that pins each dependency of a pyproject.toml to its lower bound: `lowest.py pyproject.toml`."""

import sys
import tomllib
from pathlib import Path

for requirement in tomllib.loads(Path(sys.argv[1]).read_text())["project"]["dependencies"]:
    name, bound = requirement.split(">=")
    print(f"{name}=={bound.split(',')[0]}")
