"""Costs: what a policy's copies take in pages, bytes, time and memory, what forces them, and who pays.

replay --counts--> decisions counted --prices, timing--> time --memory--> pages over time --attribution--> why, who, where
"""

from __future__ import annotations

from tracetool.costs.counts import SHARES_MOST, Cost, cost

__all__ = ["SHARES_MOST", "Cost", "cost"]
