"""Stories: one page family told as the mail tells it (`telling`), once for each replay.

`tell` chooses the family, the same for every policy: one with a defect, else one that was copied or reused while referenced, else one on
which policies part, else the one with the most decisions. `tell_page` tells of a page that is given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from tracetool.analysis import Story
from tracetool.processes import RECORDERS
from tracetool.replay import Replay
from tracetool.rules import RULES, base
from tracetool.rules.base import Evidence, held, traced_releases
from tracetool.telling import Names, Teller, Telling, family, scope
from tracetool.trace import Trace

Ints = npt.NDArray[Any]

#: A family with more rows than this is told from its beginning only.
MOST_ROWS: Final = 400


def evidence_of(replay: Replay, available: Collection[str] = ()) -> Evidence:
    """A replay's tables as the rules see them; `available` are the events that the trace has a format of."""
    return Evidence(replay.policy, replay.fault_rows, replay.reference_rows, replay.stays, traced_releases(available))


def most_telling(replays: Sequence[Replay], findings: pl.DataFrame) -> int | None:
    """The root page of the family to tell, or None where no page was ever decided about."""
    by_policy = {replay.policy: replay for replay in replays}
    for row in findings.sort(pl.col("severity") != "defect", pl.col("certainty") != "certain", "from_ns").iter_rows(named=True):
        if row["page_id"] is not None:
            return int(by_policy[row["policy"]].family_of_page[row["page_id"]])
    observed = replays[0]
    root = observed.family_of_page
    referenced = held(evidence_of(observed)).filter(pl.col("via") != "exec")["page_before"]
    decided = observed.fault_rows.filter(pl.col("page_before").is_not_null())
    of_others = decided.filter(~pl.col("comm").is_in(RECORDERS))
    for pages in (referenced, _parted(replays), of_others["page_before"], decided["page_before"]):
        if len(pages):
            families, decisions = np.unique(root[pages.to_numpy()], return_counts=True)
            return int(families[np.lexsort((decisions, _owners(observed, families)))[-1]])
    return None


def _owners(replay: Replay, families: Ints) -> Ints:
    """How many address spaces have mapped pages of each family."""
    stays = replay.stays.filter(pl.col("page_id") >= 0)
    family = replay.family_of_page[stays["page_id"].to_numpy()]
    owned = pl.DataFrame({"family": family, "mm": stays["mm"]}).group_by("family").agg(pl.col("mm").n_unique())
    counts = dict(owned.iter_rows())
    return np.array([counts.get(int(each), 0) for each in families])


def _parted(replays: Sequence[Replay]) -> pl.Series:
    """Pages on which a policy decides otherwise than the traced kernel did."""
    observed = replays[0].fault_rows.select("event", "page_before", "decision")
    parts = [
        observed.join(replay.fault_rows.select("event", "decision"), on="event", suffix="_policy", how="inner")
        .filter(pl.col("decision").cast(pl.String) != pl.col("decision_policy").cast(pl.String), pl.col("page_before").is_not_null())
        .filter(pl.col("decision_policy") != "undetermined")
        .get_column("page_before")
        for replay in replays[1:]
    ]
    return pl.concat([pl.Series("page_before", [], dtype=pl.Int32), *parts])


def lacking(trace: Trace) -> tuple[str, ...]:
    """What a trace lacks so that no page of it can be called safe: events that tell of references and copies, and what was lost."""
    missing = base.lacking(
        RULES["missed-cow"],
        trace.raw.formats().keys(),
        lost=trace.raw.losses.num_rows > 0,
        implausible=trace.history.events.implausible,
    )
    return tuple(missing)


def settled(story: Story, lacks: Sequence[str]) -> Story:
    """The story as it may be called where the trace lacks that: what is unsafe stays so."""
    if not story.safe or not lacks:
        return story
    return replace(story, settled=False, outcome=f"Nothing unsafe is in the trace, but it lacks {', '.join(lacks)}.")


def tell(replays: Sequence[Replay], findings: pl.DataFrame) -> tuple[Story, ...]:
    """The most telling family, once for each replay; the first is the observed one."""
    root = most_telling(replays, findings)
    if root is None:
        return ()
    return tuple(teller.telling().story for teller in _tellers(replays, [family(each, root) for each in replays], findings, MOST_ROWS))


def tell_page(
    replays: Sequence[Replay], findings: pl.DataFrame, page: int, event: int, spaces: Sequence[int], most: int
) -> tuple[Teller, ...]:
    """Who can tell of a page of the last replay, once for each replay; the first is the observed one.

    They tell of all its family or, where that has more than `most` rows, of what the address spaces `spaces` do with the page and its
    copies around the memory event `event`.
    """
    root = int(replays[-1].family_of_page[page])
    pages = [family(replay, root) for replay in replays]
    if all(scope(replay, own, 0).left_out <= most for replay, own in zip(replays, pages, strict=True)):
        return _tellers(replays, pages, findings, most)
    kin = [_kin(replay, _as_known(replays[-1], replay, page)) for replay in replays]
    told = [own if _has(replay, own, spaces) else whole for replay, own, whole in zip(replays, kin, pages, strict=True)]
    return _tellers(replays, told, findings, most, event, spaces)


def tell_life(replay: Replay, findings: pl.DataFrame, pages: Sequence[int], most: int = MOST_ROWS) -> Telling:
    """The families of pages (page_ids) under one replay; of those with more than `most` rows only the pages themselves."""
    roots = np.unique(replay.family_of_page[np.asarray(pages, np.int64)])
    whole = np.flatnonzero(np.isin(replay.family_of_page, roots))
    own = whole if not scope(replay, whole, most).left_out else np.unique(np.asarray(pages, np.int64))
    return _tellers([replay], [own], findings, most)[0].telling()


def _as_known(of: Replay, replay: Replay, page: int) -> int:
    """A page of one replay in another: where only the one makes it, what it was copied from."""
    while page >= replay.history.pages and of is not replay:
        before = of.fault_rows.filter(pl.col("page_after") == page, pl.col("page_before") != page)["page_before"].drop_nulls()
        if not len(before):
            break
        page = int(before[0])
    return page


def _has(replay: Replay, pages: Ints, spaces: Sequence[int]) -> bool:
    members = pl.Series(pages, dtype=pl.Int32).implode()
    return replay.stays.filter(pl.col("page_id").is_in(members), pl.col("mm").is_in(list(spaces))).height > 0


def _kin(replay: Replay, page: int) -> Ints:
    """A page and the copies made of it."""
    copies = replay.fault_rows.filter(pl.col("page_before") == page, pl.col("page_after") != page)["page_after"].drop_nulls()
    kin: Ints = np.unique(np.append(copies.to_numpy(), page))
    return kin


def _tellers(
    replays: Sequence[Replay],
    pages: Sequence[Ints],
    findings: pl.DataFrame,
    most: int,
    near: int | None = None,
    spaces: Sequence[int] | None = None,
) -> tuple[Teller, ...]:
    scopes = [scope(replay, own, most, near, spaces) for replay, own in zip(replays, pages, strict=True)]
    names = Names(scopes)
    return tuple(Teller(told, names, findings) for told in scopes)
