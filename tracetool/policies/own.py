"""A user's own policy: a decorated function of the same facts as those of the eras."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from tracetool.errors import Unusable
from tracetool.policies.chosen import policy as policy_named
from tracetool.policies.facts import Page, Policy, Verdict, tabulate

WriteFault = Callable[[Page], Verdict]


@overload
def policy(write_fault: WriteFault, /) -> Policy: ...
@overload
def policy(*, like: str | Policy = ..., name: str | None = ..., **changes: Any) -> Callable[[WriteFault], Policy]: ...
def policy(
    write_fault: WriteFault | None = None, /, *, like: str | Policy = "exclusive", name: str | None = None, **changes: Any
) -> Policy | Callable[[WriteFault], Policy]:
    """Make a policy of a function that decides a write fault: `Page` -> `copy(reason)` or `reuse(reason)`.

    Whatever else a policy decides (fork, GUP, huge pages, pages from swap) is as in `like`, unless given by name, as `fork=function`.
    The policy has the function's name, with hyphens, unless `name` says otherwise.

    Raises:
        UnknownName: `like` names no policy.
        Unusable: `changes` names nothing that a policy has.

    Example:
        >>> @tracetool.policy(like="page-count")                # doctest: +SKIP
        ... def readers_do_not_count(page):
        ...     return copy("reference") if page.maybe_pinned else reuse("sole-owner")
    """
    based_on = policy_named(like) if isinstance(like, str) else like
    unknown = sorted(set(changes) - (set(Policy.__dataclass_fields__) - {"name", "write_fault", "checked_on"}))
    if unknown:
        raise Unusable(f"a policy has no {', '.join(unknown)}", hint="it has: fork, gup, huge_write_fault, swap_in, mprotect_restores")

    def made(function: WriteFault) -> Policy:
        called = name or function.__name__.replace("_", "-")
        return replace(based_on, name=called, write_fault=function, checked_on="your own", **changes)

    return made if write_fault is None else made(write_fault)


def policy_of_file(text: str) -> Policy:
    """The policy that `FILE.py:NAME` names: a file of Python, which is run, and a name in it.

    Raises:
        Unusable: there is no such file, it fails, or the name is that of no policy.
    """
    path, _, name = text.rpartition(":")
    if not Path(path).is_file():
        raise Unusable(f"policy {text}: there is no file {path!r}", hint="--policy FILE.py:NAME names a policy in a file of Python")
    try:
        found = runpy.run_path(path)
    except (Exception, SystemExit) as error:
        raise Unusable(f"policy {text}: {path} fails: {type(error).__name__}: {error}") from error
    made = found.get(name)
    if not isinstance(made, Policy):
        known = ", ".join(sorted(key for key, value in found.items() if isinstance(value, Policy))) or "none"
        raise Unusable(
            f"policy {text}: {path} has no policy of that name", hint=f"it has: {known}; decorate a function with @tracetool.policy"
        )
    try:
        tabulate(made)
    except (Exception, SystemExit) as error:
        why = f"it fails for a page: {type(error).__name__}: {error}"
        raise Unusable(f"policy {text}: {why}", hint="a policy is asked of every page that can be") from error
    return made
