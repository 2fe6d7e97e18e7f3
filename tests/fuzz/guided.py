"""Coverage-guided fuzzing with atheris: each format in a process of its own, because libFuzzer ends the process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def run_guided(formats: Sequence[str], seconds: float, keep: Path) -> int:
    """Fuzz the formats for so many seconds each; the exit code."""
    commands = ([sys.executable, "-m", "fuzz.guided", form, str(int(seconds)), str(keep)] for form in formats)
    codes = [subprocess.run(command, check=False).returncode for command in commands]
    return int(any(codes))


def _fuzz(form: str, seconds: int, keep: Path) -> None:
    import atheris

    os.environ["TRACETOOL_LOOPS"] = "python"
    with atheris.instrument_imports(include=["tracetool_parsers"]):
        import tracetool_parsers
        from fuzz.seeds import SEEDS
        from fuzz.target import ask

        _ = tracetool_parsers.open_trace
    folder = Path(tempfile.mkdtemp(prefix="tracetool-fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    seeds = SEEDS[form]()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
        # The modules of a reader are imported when it is first used: here, so that they are instrumented.
        with atheris.instrument_imports(include=["tracetool_parsers"]):
            (folder / "input").write_bytes(seed)
            ask(folder / "input", None)
    keep.mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        (folder / "input").write_bytes(data)
        ask(folder / "input", form if form != "packed" else None)

    longest = 2 * max(map(len, seeds))
    limits = [f"-max_total_time={seconds}", f"-max_len={longest}", "-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={keep}/{form}-"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, "-print_final_stats=1"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    _fuzz(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
