"""The benchmark of made-up traces measures both file versions."""

from __future__ import annotations

import pytest

from benchmarks.synth import measure_synth


def test_both_versions_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACETOOL_LOOPS", "python")
    old, new = measure_synth(3000, 1)
    assert [len(figure.seconds) for figure in (old, new)] == [1, 1]
    assert (old.what, new.what) == ("random history: version 6", "random history: version 7, zstd")
    assert (old.size or 0) > (new.size or 0) > 10_000, "zstd makes it smaller"
    assert all(0 < (figure.max_anon or 0) <= (figure.max_rss or 0) for figure in (old, new))
