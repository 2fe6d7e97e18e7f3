"""Making a trace: the machine runs, block by block, its events go to sub-buffers, and these to a trace.dat."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final, Literal

from tracetool.errors import Unusable
from tracetool.synth import events as e
from tracetool.synth import state as k
from tracetool.synth.packing import Spools, texts_of
from tracetool.synth.plan import Plan
from tracetool.synth.references import KWORKER
from tracetool.synth.scenarios import FINISHED, MARKED, NAMES, advance, weights_of
from tracetool.synth.state import Machine, new_machine
from tracetool.synth.truth import Checkpoints
from tracetool_parsers.writing import Instance, Trace, cpu_stats

#: Names of threads that a trace keeps; the kernel keeps 128 unless told otherwise (tracefs `saved_cmdlines_size`).
MOST_NAMES: Final = 1 << 16

Version = Literal["v6", "v7", "v7-zstd"]


@dataclass(frozen=True)
class Made:
    """What was made: events in the trace, events lost, processes that ever lived, checkpoints."""

    events: int
    lost: int
    processes: int
    checkpoints: int


def synthesise(
    plan: Plan,
    path: str | os.PathLike[str],
    version: Version = "v7-zstd",
    truth: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Made:
    """Write the trace that `plan` asks for to `path`, and who mapped what at its checkpoints to `truth`; the same plan, the same bytes.

    Files that exist are overwritten, once the new ones are complete. Events wait in temporary files beside `path` until all are made.

    Args:
        plan: what to make.
        path: of the trace.
        version: of the file, with its compression.
        truth: of the file of what the kernel says; None: none is written.
        progress: is called with the number of events now and then.

    Raises:
        Unusable: `path` or `truth` is there and no regular file.
        OSError: a file cannot be written.
    """
    target = Path(path)
    with ExitStack() as files:
        out = files.enter_context(_replacing(target))
        told = files.enter_context(_replacing(Path(truth))) if truth is not None else None
        waiting = [files.enter_context(tempfile.TemporaryFile(dir=target.parent)) for _ in range(plan.cpus)]
        spools = Spools(waiting, plan.losses, plan.seed)
        machine, checkpoints = _run(plan, spools, told, progress)
        _trace(plan, machine, spools).save(out, version)
    kept, lost = (sum(each(cpu) for cpu in range(plan.cpus)) for each in (spools.kept, spools.lost))
    return Made(kept, lost, len(_tids(machine)), checkpoints)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when all went well, and is gone when not."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise Unusable(f"{path} is no regular file", hint="places in a trace are filled in at the end: name a file")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("xb") as file:
            yield file
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _run(plan: Plan, spools: Spools, truth: IO[bytes] | None, progress: Callable[[int], None] | None) -> tuple[Machine, int]:
    """Run the machine until all its processes are gone; returns it, and how many checkpoints there were."""
    m = new_machine(plan, NAMES.index(plan.scenario), weights_of(plan))
    checkpoints = Checkpoints(plan, m)
    fixed = [program(plan), "sh", f"/usr/bin/{program(plan)}"]
    plain, taken, why = texts_of(fixed), 0, MARKED
    while why != FINISHED:
        why = advance.run(plan.target, m)
        spools.add(m.rows, int(m.s[k.S_ROWS]), plain, plan.target)
        if why == MARKED:
            texts, rows, lines = checkpoints.take(len(fixed))
            spools.add(rows, len(rows), texts_of([*fixed, *texts]), plan.target)
            taken += 1
            if truth is not None:
                truth.writelines(line.encode() for line in lines)
        if progress is not None:
            progress(int(m.s[k.S_EVENTS]))
    spools.close(plan.target)
    return m, taken


def program(plan: Plan) -> str:
    """The name of the imagined program; task names have 15 bytes."""
    return f"synth-{plan.scenario}"


def _tids(m: Machine) -> range:
    """Ids of all threads that ever lived; where ids went round, of the last that did."""
    end = int(m.s[k.S_NEXT_PID])
    return range(1000, end) if not m.s[k.S_WRAPPED] else range(300, end)


def _trace(plan: Plan, m: Machine, spools: Spools) -> Trace:
    names = [f"{KWORKER} kworker/u{plan.cpus * 2}:0\n", *(f"{tid} {program(plan)}\n" for tid in _tids(m)[-MOST_NAMES:])]
    cpus = range(plan.cpus)
    stats = [cpu_stats(cpu, entries=spools.kept(cpu), overrun=spools.lost(cpu)) for cpu in cpus]
    systems = e.formats()
    return Trace(
        [Instance({cpu: spools.blocks(cpu) for cpu in cpus if spools.kept(cpu)}, stats=stats)],
        systems,
        ftrace=systems.pop("ftrace"),
        cmdlines="".join(names),
        uname="Linux made-up 6.1.0-synth x86_64",
        kallsyms=e.kallsyms(),
        writer="tracetool synth",
        cpu_count=plan.cpus,
    )
