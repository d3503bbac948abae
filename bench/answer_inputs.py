r"""Which numbers of a sentence went into its answer: "She makes 18 dollars from the 9 eggs she sells at $2 each" is about 18.

Told by the words around a number, in the languages of the tables below: a count that is already known ("the 9 eggs"), a price a piece
("at $2 each") with the count it is for, an aim ("To earn 18 dollars, she ..."), a reason (", because he runs 3 of them"), a measure
that is part of a word ("3-year-old"), and the factors of a product that is not worked out ("3 times the 5 that he has", "8 × 5",
"5本的3倍"). Pure. A reader of answers passes over them only where the sentence has another number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_NEAR = 24
_FAR = 72
"""Characters looked at on a side of a number."""
_ARTICLES = {
    "en": "the",
    "de": "die|den|der|dem",
    "fr": "les|des|aux",
    "es": "los|las",
    "it": "i|le|gli|dei|delle|degli|dai|dalle|ai|alle",
    "nl": "de",
    "pt": "os|as|dos|das|aos|às",
}
"""Definite articles before a count."""
_PRICES = {
    "en": ("at", "each|apiece|per piece"),
    "de": ("zu|à|für", "das stück|pro stück"),
    "fr": ("à|pour", "pièce|chacune?|l['’]unité|l['’]une?"),
    "es": ("a|por", "cada un[oa]|cada"),
    "it": ("a|per", "ciascun[oa]|l['’]un[oa]|al pezzo|cadaun[oa]"),
    "nl": ("voor|à", "per stuk"),
    "pt": ("a|por", "cada(?: uma?)?"),
    "ru": ("по", "кажд[а-я]+|за штуку"),
}
"""(words before the price of a piece, words behind it)"""
_PRICES_ALONE = {"de": "zu je|für je"}
"""Words before the price of a piece that need none behind it."""
_AIM = re.compile(r"(?:^|[.!?]\s+|\n)\s*(?:to|in order to|um|pour|para|per|чтобы)[ ][^.,!?\n]{1,60}$", re.IGNORECASE)
_REASON = re.compile(
    r"\d[^.!?\n]*(?:,[ ]?(?:since|as|weil|da|car|puisque|porque|ya que|pois|perché|poiché|omdat|так как)"
    r"|[ ](?:because|parce que|потому что))(?!\w)[^.!?\n]*$|\d[^。！？\n]*，因为[^。！？\n]*$",
    re.IGNORECASE,
)
_IN_A_WORD = re.compile(r"-[a-z]{3}")
_SIGN = r"[$€£¥₹₽]?[ \u00a0]?"
_NEVER = r"(?!)"
_UNIT = r"(?:[ \u00a0]?(?:[$€£¥₹₽]|[^\W\d_]{2,10}))?"
_TIMES = rf"[ \u00a0]*(?:(?:×|\\times|\\cdot|\*|·)[ \u00a0]*|times[ ](?:the[ ]|about[ ])?){_SIGN}"
_OF = r"[^\s\d。，、；,.]{0,4}[的の]"
_FACTOR_BEHIND = re.compile(rf"{_TIMES}\d|{_OF}\d+倍")
_FACTOR_BEFORE = re.compile(rf"\d{_TIMES}$|\d{_OF}$")


@dataclass(frozen=True)
class _Words:
    """What a language says around such numbers. Each pattern ends where a number begins, or begins where one ends."""

    before: re.Pattern[str]
    """An article, or a price's word that is enough."""
    before_price: re.Pattern[str]
    behind_price: re.Pattern[str]
    behind_count: re.Pattern[str]
    """The noun of what is counted, and its price."""


def is_input(text: str, start: int, end: int, language: str) -> bool:
    """Whether the number text[start:end] went into the answer, by the words around it."""
    far, near, behind = text[max(0, start - _FAR) : start], text[max(0, start - _NEAR) : start], text[end : end + _FAR]
    if _FACTOR_BEFORE.search(near) or _FACTOR_BEHIND.match(behind) or _IN_A_WORD.match(behind):
        return True
    if _AIM.search(far) or _REASON.search(far):
        return True
    words = _words(language[:2])
    if words.before.search(near) or words.behind_count.match(behind):
        return True
    return bool(words.before_price.search(near) and words.behind_price.match(behind))


@cache
def _words(language: str) -> _Words:
    alone = rf"(?:{_PRICES_ALONE.get(language, _NEVER)})[ \u00a0]{_SIGN}"
    word, closing = _PRICES.get(language, (_NEVER, _NEVER))
    opening, closing = rf"(?:{word})[ \u00a0]{_SIGN}", rf"{_UNIT}[ \u00a0](?:{closing})(?!\w)"
    noun = r"[ \u00a0][^\W\d_]+(?:[ \u00a0][^\W\d_]+)?[ \u00a0]"
    patterns = (
        rf"(?<!\w)(?:(?:{_ARTICLES.get(language, _NEVER)})[ \u00a0]{_SIGN}|{alone})$",
        rf"(?<!\w){opening}$",
        closing,
        rf"{noun}(?:{opening}\d+(?:[.,]\d+)?{closing}|{alone}\d)",
    )
    return _Words(*(re.compile(pattern, re.IGNORECASE) for pattern in patterns))
