"""What the extra copies of a trace cost: the counts, times, memory and reasons of each replay, gathered for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from tracetool.costs import SHARES_MOST, Cost, cost
from tracetool.costs.attribution import by_fork, decisions, headline, summed
from tracetool.costs.forks import forks
from tracetool.costs.memory import Memory, memory
from tracetool.costs.prices import Prices
from tracetool.costs.stalls import cow_stalls, fork_stalls, fork_summary, threads_at
from tracetool.costs.timing import CopyPrice, FaultTimes, Hardware, fault_times, hardware, price, timeline
from tracetool.policies import KERNEL, Policy, policy
from tracetool.replay import OBSERVED, Replay
from tracetool.schema import COPIES, PAGE_SIZE
from tracetool.trace import Trace
from tracetool.where.symbols import Programs

#: Copies that take an entry away that other CPUs may hold; a copy of fork is for the child, whose memory no CPU uses yet.
_FLUSH: Final = ("copy", "unshare")


@dataclass(frozen=True)
class Shootdowns:
    """TLB shootdowns: how many copies other threads of the address space had to be told of, and what that takes by the cost table (ns)."""

    count: int
    ns: float


@dataclass(frozen=True)
class ReplayCosts:
    """One replay: decisions counted (`cost`), memory over time, TLB shootdowns (copies in address spaces of several threads), of the
    observed one the copies of pages older than the trace, which no policy can be asked about (`unasked`), and their shootdowns
    (`unasked_shootdowns`), every decision with what forced it and where (`rows`, `costs.attribution`), and in a sentence how many copies
    were needed.
    """

    name: str
    cost: Cost
    memory: Memory
    shootdowns: Shootdowns
    unasked: int
    unasked_shootdowns: Shootdowns
    rows: pl.DataFrame
    forks: pl.DataFrame
    headline: str

    def by(self, key: str) -> pl.DataFrame:
        """The decisions summed by one of `attribution.KEYS`; `area` tells files apart (`file`), `fork` gives each fork, also one of which
        nothing was copied.
        """
        return self.forks if key == "fork" else summed(self.rows, *(("area", "file") if key == "area" else (key,)))


@dataclass(frozen=True)
class CostReport:
    """What was found: `replays`, `observed` first; `base` (mapcount) and `kernel` (the recording's own policy), against which each is
    priced; the cost table, the price of a copy, what it was recorded on, and the fault times; how long fork and COW hold threads up.
    """

    replays: tuple[ReplayCosts, ...]
    base: ReplayCosts
    kernel: ReplayCosts
    kernel_policy: str
    prices: Prices
    price: CopyPrice
    hardware: Hardware
    times: FaultTimes
    fork_stalls: pl.DataFrame
    cow_stalls: pl.DataFrame

    def policies(self) -> pl.DataFrame:
        """One row a replay: what it decided, what that costs beyond mapcount and beyond the kernel's own policy, and the memory it takes.

        `extra_ns` and its interval are extra copies times the price of one (`time`: measured or assumed). `extra_tlb_ns` is what their TLB
        shootdowns take, always by the cost table; `tlb_time` is `assumed`, to be added to `extra_ns`, or `assumed, within extra_ns`: a
        measured price has the shootdowns of the copies that were measured in it. `page_seconds` of pages that one mapping keeps (`once`),
        several share, and a reference alone keeps.
        """
        rows = []
        for each in self.replays:
            counts = each.cost
            extra = counts.beyond(self.base.cost)[0] - each.unasked
            rows.append(
                {
                    "policy": each.name,
                    "cow_faults": counts.cow_faults,
                    "copies": counts.copies,
                    "reuses": counts.reuses,
                    "early_copies": counts.early_copies,
                    "unshares": counts.unshares,
                    "zero_fills": counts.zero_fills,
                    "splits": counts.splits,
                    "extra_copies": extra,
                    "extra_bytes": extra * PAGE_SIZE,
                    "extra_ns": round(extra * self.price.extra_ns),
                    "extra_low_ns": round(extra * (self.price.low_ns if extra >= 0 else self.price.high_ns)),
                    "extra_high_ns": round(extra * (self.price.high_ns if extra >= 0 else self.price.low_ns)),
                    "time": self.price.time,
                    "extra_copies_over_kernel": counts.beyond(self.kernel.cost)[0] - each.unasked,
                    "tlb_shootdowns": each.shootdowns.count,
                    "extra_tlb_shootdowns": each.shootdowns.count - each.unasked_shootdowns.count - self.base.shootdowns.count,
                    "extra_tlb_ns": round(each.shootdowns.ns - each.unasked_shootdowns.ns - self.base.shootdowns.ns),
                    "tlb_time": "assumed" if self.price.time == "assumed" else "assumed, within extra_ns",
                    "peak_pages": each.memory.peak,
                    **{f"page_seconds_{kind}": seconds for kind, seconds in each.memory.page_seconds.items()},
                }
            )
        return pl.DataFrame(rows)


def cost_report(trace: Trace, policies: Sequence[Policy], prices: Prices, symbols: Programs | None = None) -> CostReport:
    """Work out what the observed replay and `policies` cost; `symbols` name the instructions that faulted."""
    asked = [trace.decided_by(each) for each in policies]
    replays = [trace.replay(OBSERVED), *(trace.replay(each) for each in asked)]
    told = {replay.policy: _of_replay(trace, replay, prices, symbols) for replay in replays}

    def of(each: Policy) -> ReplayCosts:
        decided = trace.decided_by(each)
        return told.get(decided.name) or _of_replay(trace, trace.replay(decided), prices, symbols)

    line = timeline(trace)
    times, made_on = fault_times(trace, line), hardware(trace, line)
    return CostReport(
        replays=tuple(told.values()),
        base=of(policy(SHARES_MOST)),
        kernel=of(policy(KERNEL)),
        kernel_policy=trace.kernel.policy,
        prices=prices,
        price=price(times, prices, made_on),
        hardware=made_on,
        times=times,
        fork_stalls=fork_summary(fork_stalls(trace)),
        cow_stalls=cow_stalls(trace, replays[0], times, prices, made_on),
    )


def _of_replay(trace: Trace, replay: Replay, prices: Prices, symbols: Programs | None) -> ReplayCosts:
    rows, table = decisions(trace, replay, symbols), forks(replay)
    return ReplayCosts(
        name=replay.policy,
        cost=cost(replay),
        memory=memory(replay),
        shootdowns=_shootdowns(replay.fault_rows, trace, prices),
        unasked=int(replay.undetermined.filter(pl.col("decision").is_in(list(COPIES)))["pages"].sum()),
        unasked_shootdowns=_shootdowns(replay.undetermined, trace, prices),
        rows=rows,
        forks=by_fork(rows, table),
        headline=headline(rows),
    )


def _shootdowns(rows: pl.DataFrame, trace: Trace, prices: Prices) -> Shootdowns:
    threads = threads_at(rows.filter(pl.col("decision").is_in(list(_FLUSH))), trace.processes)
    return Shootdowns(int((threads > 1).sum()), float(prices.shootdown_ns(threads.to_numpy(), trace.raw.metadata.cpus).sum()))
