"""The costs of several replays as one table (`schema.COSTS`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from tracetool import schema
from tracetool.costs import prices
from tracetool.costs.counts import SHARES_MOST, Cost, cost
from tracetool.policies import POLICIES
from tracetool.replay import OBSERVED, Replay

if TYPE_CHECKING:
    from collections.abc import Sequence


def costs_table(observed: Mapping[str, int], policies: Sequence[Any], replays: Mapping[str, Replay]) -> pl.DataFrame:
    """One row a replay, the observed one first, then each policy's result as it is.

    Args:
        observed: what the traced kernel decided, counted: `cow_faults`, `copies`, ...
        policies: results of policies, with the columns of `schema.COSTS` as attributes (`name` for `policy`).
        replays: those results come from. Without the observed one nothing more is known of the traced kernel than the counts.
    """
    names = [name for name in schema.COSTS if name != "policy"]
    first = {"policy": OBSERVED, **{name: observed.get(name) for name in names}, **_of_observed(policies, replays)}
    others = [{"policy": each.name, **{name: getattr(each, name) for name in names}} for each in policies]
    return pl.DataFrame([first, *others], schema=schema.polars_schema(schema.COSTS))


def _of_observed(policies: Sequence[Any], replays: Mapping[str, Replay]) -> dict[str, Any]:
    """What the traced kernel's copies cost beyond `mapcount`, at the price that the policies' copies have, and its fullest moment."""
    replay = replays.get(OBSERVED)
    if replay is None:
        return {}
    own, base = cost(replay), _base(replays)
    # No policy can be asked about pages older than the trace: the observed copies of such are not compared.
    unasked = replay.undetermined.filter(pl.col("decision").is_in(list(schema.COPIES)))["pages"].sum()
    extra = own.copied_pages - base.copied_pages - int(unasked)
    priced = next((each for each in policies if each.extra_copies), None)
    price = priced.extra_ns / priced.extra_copies if priced else prices.load(None).extra_copy.value_ns
    return {
        "extra_copies": extra,
        "extra_bytes": extra * schema.PAGE_SIZE,
        "extra_ns": round(extra * price),
        "time": priced.time if priced else "assumed",
        "peak_pages": own.peak_pages,
    }


def _base(replays: Mapping[str, Replay]) -> Cost:
    """The costs under the policy that shares the most, also where nobody asked for it."""
    if SHARES_MOST in replays:
        return cost(replays[SHARES_MOST])
    observed = replays[OBSERVED]
    return cost(Replay(observed.history, observed.processes, POLICIES[SHARES_MOST]))
