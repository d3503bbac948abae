"""Pieces that a hostile or a broken completion repeats: the tests of answers and their timings use the same."""

_MARKERS = (
    "answer",
    "Answer: ",
    "answer (",
    "answer in ",
    "答",
    "答は",
    "Antwort - 1 ",
    "Ответ –",
    "####1",
    "\\boxed{",
    "\\text{",
    "\\frac{1}{",
)
_NUMBERS = (
    "1",
    "9",
    "1,",
    "1 ",
    "1/",
    "1万",
    "x1",
    "1e9",
    "1\n",
    "1 000",
    "\u202f1",
    "10^",
    "× 10",
    "8:00 ",
    "½",
    "٤",
    "十",
    "二个",
    "two ",
)
_SIGNS = ("-", "=", "$", "(", ")", "(1", "}", "{", "\\", ",", ".", "...", "。", "٫", "'", "\n", " ", "is ", "minus ", "the ")
_CHOICES = ("option ", "option A? ", "A ", "A and ", "A, ", "C. ", "**A**", "(ب)", "La C, ", "la **", "answer is not A but C, ")
_BOLD = ("**", "**1", "**1**", "**a 1**\n", "**1** b. c", "1. a\n")
_REFUSALS = ("can't ", "cannot determine 1. ", "(cannot determine ", "not enough information ", "lässt nicht ", "nicht genug ")
_STRANGE = ("\ud800", "\x00", "\u200d", "İ", "🙂", "<script>")

PIECES = _MARKERS + _NUMBERS + _SIGNS + _CHOICES + _BOLD + _REFUSALS + _STRANGE
