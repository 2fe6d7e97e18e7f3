"""Fuzz the parsers: `make fuzz SECONDS=600`, or `python -m fuzz --format trace.dat --cases 200000` in the folder `tests`.

Each input is read compiled, and every eighth also uncompiled. `--guided` uses atheris, which sees what uncompiled code an input reaches. An
input that breaks a promise is kept in the folder named by `--keep`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fuzz.mutations import mutated
from fuzz.seeds import SEEDS
from fuzz.target import Target


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz the parsers.")
    parser.add_argument("--format", action="append", choices=sorted(SEEDS), help="by default all, one after the other")
    parser.add_argument("--seconds", type=float, default=None, help="for each format")
    parser.add_argument("--cases", type=int, default=None, help="for each format")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guided", action="store_true", help="coverage-guided, with atheris, uncompiled")
    parser.add_argument("--keep", type=Path, default=Path("crashes"), help="where inputs go that break a promise")
    asked = parser.parse_args()
    if asked.guided:
        from fuzz.guided import run_guided

        return run_guided(asked.format or sorted(SEEDS), asked.seconds or 60, asked.keep)
    broken = 0
    for form in asked.format or sorted(SEEDS):
        broken += _run(form, asked.seconds, asked.cases, asked.seed, asked.keep)
    return int(broken > 0)


def _run(form: str, seconds: float | None, cases: int | None, seed: int, keep: Path) -> int:
    drawn, seeds = random.Random(seed), SEEDS[form]()
    broken = tried = 0
    with tempfile.TemporaryDirectory() as folder:
        target = Target(form, Path(folder))
        target.warm(seeds)
        start = time.monotonic()
        while (cases is None or tried < cases) and (seconds is None or time.monotonic() - start < seconds):
            data = mutated(seeds, drawn)
            try:
                target.try_one(data, forced=drawn.random() < 0.5, both=tried % 8 == 0)
            except Exception as error:
                broken += 1
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{form}-{seed}-{tried}").write_bytes(data)
                print(f"{form} {tried}: {type(error).__name__}: {error}", flush=True)
                traceback.print_exc(limit=-3)
            tried += 1
            if tried % 10_000 == 0:
                print(f"{form}: {tried} inputs in {time.monotonic() - start:.0f} s", flush=True)
    print(f"{form}: {tried} inputs in {time.monotonic() - start:.0f} s, {broken} broke a promise", flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(main())
