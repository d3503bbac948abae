"""What prompts begin with alike, to be read once for all of them: a system message, examples, or a whole prompt that is asked often."""

from __future__ import annotations

from collections.abc import Sequence

Prompt = tuple[int, ...]
FAMILY = 8
"""Fewest prompts of a family: fewer do not fill a prefill."""


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def find_families(prompts: Sequence[Prompt]) -> list[int]:
    """A number for each prompt: equal, and above 0, for those that share half of their length with a next of kin; 0 for all others.

    Rows of one family, asked together, share much; among others rows of like length waste least.
    """
    families = [0] * len(prompts)
    kin: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda index: prompts[index]):
        if kin and 2 * common_length(prompts[kin[-1]], prompts[index]) < len(prompts[index]):
            _name(kin, families)
            kin = []
        kin.append(index)
    _name(kin, families)
    return families


def _name(kin: Sequence[int], families: list[int]) -> None:
    if len(kin) >= FAMILY:
        for member in kin:
            families[member] = kin[0] + 1
