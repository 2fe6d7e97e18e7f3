"""What is asked for: a scenario and its parameters, checked before anything is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tracetool.errors import UnknownName, Unusable
from tracetool.policies import Policy
from tracetool.policies import policy as policy_named


@dataclass(frozen=True)
class Scenario:
    """One kind of workload: what it is, and what its parameters are where the user does not say.

    `processes` live at once at most, the first among them; `pages` has each; `write_rate` is the share of accesses that store; `references`
    the share of actions that take or drop a GUP reference; `events` is about how many there are to be.
    """

    about: str
    processes: int
    pages: int
    write_rate: float
    references: float
    events: int


#: By name. Their meaning is told in docs/synth.md.
SCENARIOS: Final = {
    "mail": Scenario("two processes share a page; one holds a read reference, both write (the mail's example)", 2, 1, 1.0, 0.0, 1),
    "snapshot": Scenario("a database forks to save its pages and writes on meanwhile", 2, 256, 0.4, 0.01, 20_000),
    "pins": Scenario("a server keeps a long-term write pin on its buffers, forks helpers and writes", 4, 64, 0.7, 0.05, 20_000),
    "forkstorm": Scenario("trees of forks that write and exit", 32, 32, 0.8, 0.0, 20_000),
    "random": Scenario("random histories: stores, loads, forks, references, madvise, mprotect, exits", 12, 32, 0.6, 0.2, 20_000),
}

#: Page table entries of all processes together: 16 GiB of memory as the processes see it, about 150 MiB of ours.
MOST_ENTRIES: Final = 1 << 22
#: References that are held at once.
MOST_REFERENCES: Final = 4096
MOST_EVENTS: Final = 100_000_000
MOST_CPUS: Final = 64
MOST_PROCESSES: Final = 4096
MOST_CHECKPOINTS: Final = 1000


@dataclass(frozen=True)
class Plan:
    """A trace to be made; None stands for what the scenario has.

    Raises:
        UnknownName: no such scenario or policy.
        Unusable: a parameter is out of its range, or does not go with another.
    """

    scenario: str
    seed: int = 1
    processes: int | None = None
    pages: int | None = None
    write_rate: float | None = None
    references: float | None = None
    policy: str = "exclusive"
    losses: float = 0.0
    events: int | None = None
    cpus: int = 2
    checkpoints: int = 8

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise UnknownName("scenario", self.scenario, SCENARIOS)
        policy_named(self.policy)
        _within("seed", self.seed, 0, (1 << 63) - 1)
        _within("processes", self.most_processes, 2, MOST_PROCESSES)
        _within("pages", self.area_pages, 1, MOST_ENTRIES // 2 - 1)
        _within("write-rate", self.stores, 0.0, 1.0)
        _within("references", self.reference_share, 0.0, 0.9)
        _within("losses", self.losses, 0.0, 0.9)
        _within("events", self.target, 1, MOST_EVENTS)
        _within("cpus", self.cpus, 1, MOST_CPUS)
        _within("checkpoints", self.checkpoints, 0, MOST_CHECKPOINTS)
        if self.most_processes * (self.area_pages + 1) > MOST_ENTRIES:
            raise Unusable(
                f"{self.most_processes} processes of {self.area_pages} pages are too many together",
                hint=f"--processes times --pages may be {MOST_ENTRIES:,} at most",
            )
        if self.scenario == "mail" and (self.area_pages > MOST_REFERENCES or self.most_processes != 2):
            raise Unusable("the mail has two processes", hint=f"and up to {MOST_REFERENCES} pages; random has more processes")

    @property
    def defaults(self) -> Scenario:
        """What holds where nothing is said."""
        return SCENARIOS[self.scenario]

    @property
    def most_processes(self) -> int:
        """Processes that live at once, at most."""
        return self.defaults.processes if self.processes is None else self.processes

    @property
    def area_pages(self) -> int:
        """Pages of each process that the scenario is about."""
        return self.defaults.pages if self.pages is None else self.pages

    @property
    def stores(self) -> float:
        """Share of the accesses that store."""
        return self.defaults.write_rate if self.write_rate is None else self.write_rate

    @property
    def reference_share(self) -> float:
        """Share of the actions that take or drop references."""
        return self.defaults.references if self.references is None else self.references

    @property
    def target(self) -> int:
        """Events after which the processes exit."""
        return self.defaults.events if self.events is None else self.events

    @property
    def decisions(self) -> Policy:
        """The policy of the imagined kernel."""
        return policy_named(self.policy)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise Unusable(f"--{name} {value} is out of range", hint=f"{least} to {most:,}" if isinstance(most, int) else f"{least} to {most}")
