"""Policies by their names: those of the eras, their variants, and those of kernel versions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tracetool.errors import UnknownName, Unusable
from tracetool.policies.exclusive import EXCLUSIVE, exclusive
from tracetool.policies.facts import Policy
from tracetool.policies.forced_cow import FORCED_COW
from tracetool.policies.mapcount import MAPCOUNT
from tracetool.policies.page_count import PAGE_COUNT
from tracetool.policies.page_count_518 import PAGE_COUNT_518

#: In the order of the kernels that had them.
POLICIES: Final = {p.name: p for p in (MAPCOUNT, FORCED_COW, PAGE_COUNT, PAGE_COUNT_518, EXCLUSIVE)}
#: From which kernel on each decides, newest first.
_ERAS: Final = (((5, 19), EXCLUSIVE), ((5, 18), PAGE_COUNT_518), ((5, 9), PAGE_COUNT), ((5, 8), FORCED_COW), ((0, 0), MAPCOUNT))
_VERSION: Final = re.compile(r"(\d{1,3})\.(\d{1,3})\b", re.ASCII)
#: The policy of the recording itself, whichever that is: `Trace.decided_by` says so of each trace.
KERNEL: Final = "kernel"
THE_KERNELS: Final = replace(EXCLUSIVE, name=KERNEL)


def policy(name: str) -> Policy:
    """The policy of that name; `exclusive@6.12` is that of a version, `linux-5.10` the one that mainline of that version has,
    `kernel` that of the recording.

    Raises:
        UnknownName: there is none; it lists them.
    """
    if name in POLICIES:
        return POLICIES[name]
    if name == KERNEL:
        return THE_KERNELS
    if name.startswith("linux-") and _VERSION.fullmatch(name.removeprefix("linux-")):
        named = of_kernel(name.removeprefix("linux-"))
        if named is not None:
            return named
    if name.startswith("exclusive@") and _VERSION.fullmatch(name.removeprefix("exclusive@")):
        named = of_kernel(name.removeprefix("exclusive@"))
        if named is not None and named.name == name:
            return named
    raise UnknownName("policy", name, [*POLICIES, "exclusive@VERSION", "linux-VERSION", KERNEL])


def of_kernel(release: str | None) -> Policy | None:
    """The policy that mainline of that release has (such as "6.1.0-56-amd64"); None where it names no version."""
    found = _VERSION.match(release or "")
    if not found:
        return None
    version = (int(found[1]), int(found[2]))
    era = next(era for since, era in _ERAS if version >= since)
    return exclusive(version, f"exclusive@{version[0]}.{version[1]}") if era is EXCLUSIVE else era


def chosen(names: Iterable[str]) -> list[Policy]:
    """What `--policy` asks for: nothing or `all` is every policy, `none` none, else those named, once each; `observed` is always there.

    `FILE.py:NAME` is a user's own policy.
    """
    wanted = list(dict.fromkeys(names))
    if "none" in wanted:
        if len(wanted) > 1:
            raise Unusable("policy none excludes all others", hint="--policy none replays only what was recorded")
        return []
    if not wanted or "all" in wanted:
        return list(POLICIES.values())
    return list({p.name: p for p in (_asked_for(name) for name in wanted if name != "observed")}.values())


def _asked_for(name: str) -> Policy:
    if ".py:" in name:
        from tracetool.policies.own import policy_of_file

        return policy_of_file(name)
    return policy(name)
