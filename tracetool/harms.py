"""What a finding means for either side, in sentences with the names of a story: A, B are address spaces, P0, P1 pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cast:
    """Who is who in a finding: `owner` is the address space through which the reference was taken, `holder` the process that took it.

    `actor` did what makes it unsafe (or is the other side that it is unsafe for); `page` is the page of the reference, `copy` the one that
    the owner maps since, if a copy parted them. `kind` is reference or pin, `access` read or write; `seen`: the trace has the act.
    """

    owner: str
    holder: str
    actor: str
    page: str
    copy: str | None
    kind: str
    access: str
    longterm: bool
    seen: bool

    @property
    def reference(self) -> str:
        """`A's reference`, or `C's reference to A's memory` where another process took it."""
        return f"{self.holder}'s {self.kind}" + ("" if self.holder == self.owner else f" to {self.owner}'s memory")

    @property
    def new(self) -> str:
        """The page that the owner goes on with."""
        return self.copy or "a copy"


def holder_of(pid: int | None, pids: Mapping[str, int | None]) -> str:
    """The letter of a process, or its number where it has none."""
    if pid is None:
        return "another process"
    return next((letter for letter, known in pids.items() if known == pid), f"process {pid}")


def harm(finding: Mapping[str, Any], cast: Cast) -> str:
    """What goes wrong, in one sentence; `finding` is a row of `schema.FINDINGS`."""
    possibly = "" if finding["certainty"] == "certain" else "possibly "
    if finding["rule"] == "missed-cow":
        return f"{cast.reference} {possibly}reads what {cast.actor} wrote into {cast.page}: data that is none of its business."
    if finding["rule"] == "wrong-cow":
        other = f"its own {cast.kind}" if cast.holder == cast.owner else cast.reference
        return f"{cast.owner} and {other} {possibly}part: the {cast.kind} keeps {cast.page}, {cast.owner} goes on with a copy."
    if finding["rule"] == "cross-write":
        return f"{cast.actor}, which maps {cast.page}, {possibly}sees what is written through {cast.reference}."
    if finding["rule"] == "fork-after-pin":
        return f"{cast.owner} and {cast.actor} {possibly}share {cast.page}, which {cast.reference} writes to: the next store parts them."
    if finding["rule"] == "unnecessary-copy":
        told = "" if finding["certainty"] == "certain" else ", as far as the trace shows,"
        return f"{cast.owner} gets a copy of {cast.page}{told} for nothing: nobody else maps it, and no reference holds it."
    return _ended(str(finding["summary"]))


def sides(finding: Mapping[str, Any], cast: Cast) -> tuple[str, ...]:
    """What either side then sees, a sentence each, the one that is harmed first."""
    if finding["rule"] == "missed-cow":
        return harm(finding, cast), f"{cast.actor} reads its own store, as it should; nothing tells it that the reference reads along."
    if finding["rule"] == "wrong-cow":
        return _parted(finding, cast)
    if finding["rule"] == "cross-write":
        return harm(finding, cast), f"{cast.owner} sees it, too; what {cast.actor} stores there, {cast.reference} may overwrite."
    if finding["rule"] == "fork-after-pin":
        return (
            f"{cast.owner} and {cast.actor} both read what is written through {cast.reference}, as long as neither stores to {cast.page}.",
            f"With the next store of {cast.owner} it is lost to {cast.owner}, which goes on with a copy; {cast.actor} keeps {cast.page}.",
        )
    if finding["rule"] == "unnecessary-copy":
        return harm(finding, cast), "Nobody sees anything wrong; it costs a page frame and the time of a copy."
    return (_ended(str(finding["summary"])),)


def _parted(finding: Mapping[str, Any], cast: Cast) -> tuple[str, ...]:
    """A process and its own reference, which still uses the page of before."""
    since = "from then on" if cast.seen else "from such a store on"
    would = "" if cast.seen and finding["certainty"] == "certain" else "would " if not cast.seen else "may "
    if cast.access == "write":
        lands, reads = ("land", "read") if would else ("lands", "reads")
        return (
            f"What is written through {cast.reference} {would}{lands} in {cast.page} {since}: it is lost to {cast.owner}.",
            f"{cast.owner} {would}{reads} {cast.new}, and its own stores there never reach {cast.page}.",
        )
    keep = "keep reading" if would else "keeps reading"
    owed = "" if finding["severity"] == "defect" else " The kernel promises a short read reference no more than that."
    return (
        f"{cast.reference} {would}{keep} {cast.page}, and never sees what {cast.owner} stores into {cast.new} {since}.{owed}",
        f"{cast.owner} reads its own stores, as it should.",
    )


def _ended(sentence: str) -> str:
    sentence = sentence.strip() or "What follows is not known"
    return sentence if sentence.endswith(".") else f"{sentence}."
