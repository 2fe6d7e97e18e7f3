"""Policies by their names: those of the eras, of versions, of the recording itself."""

from __future__ import annotations

import pytest

from tracetool.errors import UnknownName
from tracetool.policies import KERNEL, POLICIES, Page, SwapIn, chosen, of_kernel, policy


def test_the_policies_there_are_in_the_order_of_kernels() -> None:
    assert list(POLICIES) == ["mapcount", "forced-cow", "page-count", "page-count-5.18", "exclusive"]
    assert all(policy(name).name == name for name in POLICIES)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("4.19", "mapcount"), ("5.4", "mapcount"), ("5.7", "mapcount"), ("5.8", "forced-cow"), ("5.9", "page-count"),
        ("5.10", "page-count"), ("5.17", "page-count"), ("5.18", "page-count-5.18"), ("5.19", "exclusive@5.19"), ("6.1", "exclusive@6.1"),
        ("6.12", "exclusive@6.12"), ("6.15", "exclusive@6.15"), ("7.2", "exclusive@7.2"), ("7.3", "exclusive@7.3"),
        ("12.0", "exclusive@12.0"),
    ],
)  # fmt: skip
def test_what_mainline_of_a_version_has(version: str, name: str) -> None:
    """Kernel.md: M up to 5.7, F 5.8, C 5.9 to 5.17, C' 5.18, X since 5.19. (Of 5.4.y a version does not say whether it carries F.)"""
    assert policy(f"linux-{version}").name == name
    named = of_kernel(f"{version}.0-1-amd64")
    assert named is not None
    assert named.name == name
    if name.startswith("exclusive"):
        assert policy(f"exclusive@{version}") == policy(f"linux-{version}")


@pytest.mark.parametrize(
    "name",
    [
        "pagecount", "Exclusive", "", "exclusive@", "exclusive@5.10", "exclusive@5.18", "exclusive@new", "exclusive@6", "exclusive@6.12.1",
        "exclusive@6.12 ", "linux-", "linux-6", "linux", "page-count@5.10", "linux-6.12-rc1", "observed@6.1", "exclusive@1000.1",
        "linux--5.10",
    ],
)  # fmt: skip
def test_other_names_are_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        policy(name)
    for known in (*POLICIES, KERNEL, "exclusive@VERSION", "linux-VERSION"):
        assert known in (caught.value.hint or "")


@pytest.mark.parametrize("release", [None, "", "Linux", "v6.1", "6", "x86-64", "6-rc1"])
def test_a_release_that_names_no_version_names_no_policy(release: str | None) -> None:
    assert of_kernel(release) is None


@pytest.mark.parametrize("release", ["6.12.107+deb13-amd64", "6.12", "6.12-rc3", "6.12.0"])
def test_releases_as_uname_says_them(release: str) -> None:
    named = of_kernel(release)
    assert named is not None
    assert named.name == "exclusive@6.12"


def test_the_newest_is_what_exclusive_means() -> None:
    """Without a version: in all decisions the policy of the newest kernel that was read."""
    newest, plain = policy("exclusive@7.3"), policy("exclusive")
    for page in (Page(), Page(referenced=True), Page(large=True, neighbours=True), Page(exclusive=True, mm_has_pinned=True)):
        assert newest.write_fault(page) == plain.write_fault(page)
        assert newest.fork(page) == plain.fork(page)
        for fault in (SwapIn(True, True, False), SwapIn(True, False, True), SwapIn(False, True, False)):
            assert newest.swap_in(page, fault) == plain.swap_in(page, fault)


def test_each_says_on_what_it_was_checked() -> None:
    """Kernel.md, section 6: M, F and C' were not run."""
    assert policy("page-count").checked_on == "5.10"
    assert [policy(f"exclusive@{version}").checked_on for version in ("6.1", "6.12", "7.2")] == ["6.1", "6.12", "7.2"]
    for name in ("mapcount", "forced-cow", "page-count-5.18", "exclusive@5.19"):
        assert policy(name).checked_on.startswith("from source only")


def test_what_is_asked_for() -> None:
    every = list(POLICIES.values())
    assert chosen([]) == chosen(["all"]) == every
    assert chosen(["none"]) == []
    assert [p.name for p in chosen(["exclusive", "mapcount", "exclusive"])] == ["exclusive", "mapcount"]
    assert [p.name for p in chosen(["observed", "page-count"])] == ["page-count"]
    assert [p.name for p in chosen(["exclusive@6.12", "linux-6.12", "linux-5.10", "page-count", KERNEL])] == [
        "exclusive@6.12", "page-count", KERNEL,
    ]  # fmt: skip
