"""Which language a text is in. A thin, cached use of py3langid (naive Bayes over byte n-grams; Lui & Baldwin 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import regex

_NOT_WORDS = regex.compile(r"(?:\\[A-Za-z]+|[^\p{L}\p{M}\s'\\]|\\)+")
FEWEST_LETTERS = 8
"""A shorter text is not told apart reliably."""


def identify(text: str | None, among: Iterable[str]) -> str | None:
    """ISO 639-1 code of the likeliest language among those given; None where too few letters or languages are given to tell.

    Digits and signs are left out first: they belong to no language, and reasoning about numbers is full of them. Codes that the
    identifier does not know are not candidates.
    """
    words = words_of(text or "")
    if len(words.replace(" ", "")) < FEWEST_LETTERS:
        return None
    identifier = _identifier(frozenset(among))
    return str(identifier.classify(words)[0]) if identifier else None


def words_of(text: str) -> str:
    """The text without digits, signs and LaTeX commands, its words separated by single spaces."""
    return " ".join(_NOT_WORDS.sub(" ", text).split())


@cache
def _identifier(among: frozenset[str]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = among & set(identifier.labels)
    if len(known) < 2:
        return None
    identifier.set_languages(known)
    return identifier
