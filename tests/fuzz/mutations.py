"""Damage: cuts, flipped bits, numbers that turn to garbage, pieces that move, and pieces of other inputs."""

from __future__ import annotations

import random
from typing import Final

#: Where lengths and counts go wrong: nothing, one, all bits, the largest and smallest signed ones, a page, more than there is.
_WORDS: Final = tuple(
    value.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for value in (
        0,
        1,
        8,
        min(4096, (1 << 8 * size) - 2),
        1 << 8 * size - 2,
        (1 << 8 * size - 1) - 1,
        1 << 8 * size - 1,
        (1 << 8 * size) - 1,
    )
    for order in ("little", "big")
)
_TEXTS: Final = (b"\n", b" ", b"=", b"0x", b"-1", b" [000]", b": ", b"\0", b"9" * 30, b"(", b'"', b"\xff", b"CPU:1 [LOST 2 EVENTS]\n")


def mutated(seeds: list[bytes], drawn: random.Random) -> bytes:
    """One of the inputs, damaged in one to eight places."""
    data = bytearray(drawn.choice(seeds))
    for _ in range(drawn.choice((1, 1, 1, 2, 4, 8))):
        if not data:
            break
        at, kind = drawn.randrange(len(data)), drawn.random()
        if kind < 0.3:
            data[at] ^= 1 << drawn.randrange(8)
        elif kind < 0.65:
            word = drawn.choice(_WORDS)
            if drawn.random() < 0.7:
                at -= at % len(word)
            data[at : at + len(word)] = word[: len(data) - at]
        elif kind < 0.75:
            data[at:at] = drawn.choice(_TEXTS)
        elif kind < 0.83:
            del data[at : at + drawn.choice((1, 2, 4, 8, 16, 100))]
        elif kind < 0.92:
            other = drawn.choice(seeds)
            begin = drawn.randrange(len(other))
            piece = other[begin : begin + drawn.choice((4, 8, 16, 64, 300))]
            data[at : at + (len(piece) if drawn.random() < 0.5 else 0)] = piece
        else:
            del data[at:]
    return bytes(data)
