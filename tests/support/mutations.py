"""Damaged copies of files: each seed damages another place in another way."""

from __future__ import annotations

import random
from collections.abc import Iterator

# Numbers that readers take for sizes, offsets and counts.
_WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80")


def mutated(content: bytes, seed: int) -> bytes:
    """A copy with bits flipped, bytes lost, inserted, repeated or replaced; sometimes cut off."""
    rng = random.Random(seed)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 30))):
        if not changed:
            break
        place = rng.randrange(min(len(changed), 600) if rng.random() < 0.3 else len(changed))  # headers stand in front
        action = rng.randrange(6)
        if action == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            del changed[place : place + rng.randrange(1, 60)]
        elif action == 2:
            changed[place:place] = rng.randbytes(rng.randrange(1, 20))
        elif action == 3:
            changed[place:place] = changed[place : place + 200] * rng.randrange(1, 3)
        elif action == 4:
            changed[place : place + 4] = rng.choice(_WORDS)
        elif rng.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def mutations(content: bytes, seeds: range) -> Iterator[tuple[int, bytes]]:
    """(seed, damaged copy) of each seed."""
    return ((seed, mutated(content, seed)) for seed in seeds)
