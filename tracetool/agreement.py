"""Does a policy decide as the traced kernel did? Every recorded decision, judged from the recorded state before it."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tracetool.analysis import Agreement
from tracetool.policies import POLICIES, Policy
from tracetool.replay import columns as k
from tracetool.replay.history import History
from tracetool.replay.simulated import W_DECISION, W_EVENT, W_PLACE, W_POLICY, replay_steps


def agreements(history: History, asked: Sequence[Policy]) -> list[Agreement]:
    """One a policy asked for. Contested are the decisions on which any two of the built-in policies and those asked for differ.

    The replay follows the recorded outcome, so that one disagreement does not cause the next.
    """
    policies = {p.name: p for p in (*POLICIES.values(), *asked)}
    frames = {name: _said(history, p) for name, p in policies.items()}
    # A fork that shares is a row only for a policy that would have copied: the others say "share" to it, as the kernel did.
    keys = pl.concat([frame.select("event", "place", "copied", "known") for frame in frames.values()]).unique(["event", "place"])
    for name, frame in frames.items():
        keys = keys.join(frame.select("event", "place", pl.col("said").alias(name)), on=["event", "place"], how="left").with_columns(
            pl.col(name).fill_null(0)
        )
    known = keys.filter("known")
    if not known.height:
        return [Agreement(0, 0, keys.height, 0, 0) for _ in asked]
    contested = known.filter(pl.min_horizontal(list(frames)) != pl.max_horizontal(list(frames)))
    undetermined = keys.height - known.height
    return [
        Agreement(
            faults=known.height,
            same=known.filter(pl.col(p.name) == pl.col("copied")).height,
            undetermined=undetermined,
            contested=contested.height,
            contested_same=contested.filter(pl.col(p.name) == pl.col("copied")).height,
        )
        for p in asked
    ]


def _said(history: History, policy: Policy) -> pl.DataFrame:
    made = replay_steps(history, policy, follow=True).decisions
    decision = pl.Series(made[:, W_DECISION])
    return pl.DataFrame(
        {
            "event": made[:, W_EVENT],
            "place": made[:, W_PLACE],
            "copied": decision.is_in([k.DID_COPY, k.DID_ZERO_FILL, k.DID_EARLY_COPY, k.DID_UNSHARE]).cast(pl.Int32),
            "known": pl.Series(made[:, W_POLICY]) >= 0,
            "said": made[:, W_POLICY],
        }
    )
