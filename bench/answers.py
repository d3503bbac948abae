r"""The final channel's text -> the answer in it, in any script. Pure: no model, no suite, no score.

A number or a letter counts as the answer where the text says so: behind the last localized "Answer:" (or "the answer is"), in the
last \boxed{}, behind a closing "#### ". Only a text without any such marker is read by the last-match rule: in what is bold, else in
all of it. None means that no answer was found, which scores 0 but is counted apart from a wrong one. Nothing here raises on any
text, and no text takes long.
"""

from __future__ import annotations

import decimal
import re
import unicodedata
from functools import cache

from bench.answer_inputs import is_input
from bench.answer_words import (
    ANSWER_WORDS,
    ARTICLES,
    CHOICE_WORDS,
    COPULAS,
    CURRENCIES,
    DECIMAL_COMMA,
    LETTERS,
    NO_WORD_A,
    NUMERALS,
    REFUSALS,
    SCALES,
)

_LONGEST = 20_000
"""Characters at the end of a text that are read at all."""
_LINES = 2000
"""Lines that are searched for a number, from the last one up."""
_WINDOW = 4000
"""Characters of a long line that are read first."""
_MINUS = "-−﹣－–"
_SPACES = " \u00a0\u2009\u202f"
_CURRENCY_SIGNS = "$€£¥₹₩₽₺₫฿৳₦₱₪¢"
_INVISIBLE = "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_VULGARS = "½¼¾⅕⅖⅗⅘⅛⅜⅝⅞"
_VULGAR = {"½": "5", "¼": "25", "¾": "75", "⅕": "2", "⅖": "4", "⅗": "6", "⅘": "8", "⅛": "125", "⅜": "375", "⅝": "625", "⅞": "875"}
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_CJK_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_CJK_UNITS = {"十": 10, "百": 100, "千": 1000}
_CJK_MYRIADS = {"万": 4, "萬": 4, "億": 8, "亿": 8}

_LATEX = re.compile(
    r"\\(?:text|mathrm|mathbf|mathit|textbf|operatorname|mbox)\s*\{([^{}]{0,200})\}|\\(?:[,;:!]|quad\b|left\b|right\b|displaystyle\b)|\{,\}"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d{1,30})\s*\}\s*\{\s*(\d{1,30})\s*\}")
_MIXED_FRACTION = re.compile(r"(\d)[ \t]*\\[dt]?frac")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASHES = re.compile(r"^####[ \t]*(?=[^\w\n]{0,4}\d)(?![^\w\n]{0,4}\d+[.):][ \t]+[^\W\d])", re.MULTILINE)
_PLAIN = re.compile(r"[\s*:]*(\d+)[ \t]*[.!。।*]*\s*\Z")
"""Nothing but digits, as most answers are: the same as the longer way would find, in half the time."""
_TOKEN = re.compile(
    rf"(?P<body>(?:\d+|(?<![\w.])\.(?=\d))(?:[.,٫]?\d+|[{_SPACES}'’٬，]\d{{3}}(?!\d))*[{_VULGARS}]?|[{_VULGARS}])"
    r"(?:[ \u00a0](?P<mixed>\d{1,4}/\d{1,4})(?![\d/])|/(?P<divisor>\d{1,30})(?![\d/.,])"
    r"|[ \u00a0]?(?P<cjk>(?:(?:[十万萬億亿]|[百千](?![克米瓦卡分]))\d{0,8})+)"
    r"|[ \t]*(?:×|\\times|\\cdot|·|\*|x)[ \t]*10(?:\^\{?(?P<power>-?\d{1,3})\}?|(?P<raised>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3}))"
    r"|[eE](?P<exponent>[+-]?\d{1,3})(?![\w.]))?"
)
_OPERATOR = re.compile(rf"[^\S\n]*(?:[+×*/÷=]|\\times|\\div|\\cdot|[{_MINUS}][^\S\n]*\d)")
_EMPHASIS = re.compile(r"\*\*|__|`")
_PARENTHESIS = re.compile(r"\([^()\n]*\)|（[^（）\n]*）")
_ENUMERATOR = re.compile(r"[.)][ \t]+(?:\*\*)?[^\W\d_]")
_MINUS_WORD = re.compile(
    r"(?:^|[:：=(]|\b(?:is|ist|est|es|ni)\b|[是为は])\s*(?:minus|negative|moins|menos|минус|マイナス|负|負|ลบ)\s*$", re.IGNORECASE
)
_CJK_ANSWER = re.compile(
    r"[\s*:：]*([零〇一二两兩三四五六七八九十百千万萬億亿]+)(?=[\s。．.，,*！!]|$|[个個元円つ人本枚匹頭只条年月日天時时分秒歳岁块塊美米公斤冊册支张張杯キド])"
)
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]{1,200})\*\*")
_GOES_ON = re.compile(r"[^.!?。！？।\n]*[.!?。！？।][^\n=]*=")
_CLOCK = re.compile(r":\d\d(?!\d)")
_LABEL = re.compile(r"\W*(?:[^\W\d]+[ \u00a0]?\d|第|\d{1,3}[.)][ \t])")
_CLAUSE_END = re.compile(r"[.,;!?](?=\s)|[。，、；！？।؛،\n]|[ \u00a0][–—-][ \u00a0]")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？।۔\n]")
_WORD = re.compile(r"[^\s\d.,;:!?。।،()*\"'«»“”_$]+(?:'[^\W\d]+)?")
_CJK_NUMERAL = "零〇一二两兩三四五六七八九十百千万萬億亿"
_CJK_COUNT = re.compile(
    rf"(?<![{_CJK_NUMERAL}第])([二两兩三四五六七八九十][{_CJK_NUMERAL}]*)(?=[个個元円つ人本枚匹頭只条天歳岁块塊冊册支张張杯])"
)
"""Numerals that count something. Not those that begin with one, which is in many words."""
_BREAK = re.compile(r"[^\d.,'’٬٫，]")
_CJK_UNIT = re.compile(r"([十百千万萬億亿])(\d*)")
_ALNUM = re.compile(r"[^\W_]")
_LETTER_RUN = re.compile(r"[^\W\d_]+")


class _Translation(dict[int, str | None]):
    """Every decimal digit of Unicode -> ASCII, full-width signs -> ASCII, invisible characters -> nothing; looked up as they come."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        self[code] = translated = str(unicodedata.decimal(letter, letter))
        return translated


# U+0130 is the one character that grows in lower case, which would shift every position behind it.
_TRANSLATION = _Translation(dict.fromkeys(map(ord, _INVISIBLE)))
_TRANSLATION |= dict(zip(map(ord, "．％＋／＝（）［］｛｝＃＊＄İ"), ".%+/=()[]{}#*$I", strict=True))


def _normalize(text: str) -> str:
    text = text[-_LONGEST:]
    if not text.isascii():
        text = text.translate(_TRANSLATION)
    if "\\" in text or "{,}" in text:
        text = _LATEX.sub(lambda found: found[1] or ("," if found[0] == "{,}" else ""), text.replace("\\$", "$").replace("\\%", "%"))
        text = _FRACTION.sub(r"\1/\2", _MIXED_FRACTION.sub(r"\1 \\frac", text))
    return _EMPHASIS.sub("", text)


def extract_number(text: str, language: str, *, whole: bool = False) -> str | None:
    """The answer as an ASCII decimal: '-1234.5'. None where the text has none.

    Behind the last marker: the number that stands there at once, else the last one there; of an equation, its right side. Without
    a marker: the last number in bold that is no heading, else the last number, one in parentheses only where its line has no other
    and none of a sentence that says that there is no answer; a number in words where there are no digits. `language` is a code such
    as `de`; it decides what 1.234 means. `whole` says that only whole numbers are asked for, so that 1,234 and 1.234 are both
    thousands.
    """
    raw, text = text, _normalize(text)
    spans = _marked(text)
    for start, end in spans:
        found = _number_in(text, start, end, language, whole=whole)
        if found is not None:
            return found
    if spans and text[spans[0][0] : spans[0][1]].strip(" \n\t.*:$"):
        return None
    bold = _bold_number(raw, language, whole=whole)
    if bold is not None:
        return bold
    refusal = _refusal_pattern(language).search(text, max(0, len(text) - _WINDOW))
    if refusal is None or _is_aside(text, refusal.start()):
        return _last_number(text, 0, len(text), language, whole=whole) or _last_numeral(text, language)
    after = _SENTENCE_END.search(text, refusal.end())
    return _last_number(text, after.end(), len(text), language, whole=whole) if after else None


def same_number(a: str | None, b: str | None) -> bool:
    """Whether two canonical decimals are the same number; None equals nothing."""
    return a is not None and b is not None and _canonical(a) == _canonical(b)


def _canonical(number: str) -> str:
    """'007.50' -> '7.5', '-0' -> '0'. Works on text: a number may have any length."""
    sign, digits = ("-", number[1:]) if number[:1] == "-" else ("", number)
    whole, _, fraction = digits.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    unsigned = f"{whole}.{fraction}" if fraction else whole
    return unsigned if unsigned == "0" else sign + unsigned


# Where the answer stands


@cache
def _answer_words() -> dict[str, list[str]]:
    """By their first letter, so that few of them are looked for in a text."""
    words: dict[str, list[str]] = {}
    for word in dict.fromkeys(word for group in ANSWER_WORDS.values() for word in group):
        words.setdefault(word[0], []).append(word)
    return words


@cache
def _announcement() -> str:
    """Pattern of what stands between an answer word and the answer."""
    copula = "|".join(sorted(set(map(re.escape, COPULAS)), key=len, reverse=True))
    latin_copula = rf"[^\n.!?。।:：=\d]{{0,60}}?(?<!\w)(?:{copula})(?!\w)[:：=]?"
    touching = r"\s*(?:是|为|為|は|が|คือ|เท่ากับ|은|는)[:：=]?"
    aside = r"(?:[^\S\n]*(?:\([^()\n]{0,60}\)|（[^（）\n]{0,60}）|(?:in|of|to|for|auf|en|à|на|de|per)\s[^\n.!?:：=\d]{0,60}))?"
    final = r"(?:[^\S\n]?+[^\s\d:：=.!?。।*_\"'»”]{1,14}+){0,2}+"
    dash = r"[^\S\n]*(?:[—–]|-(?=[^\S\n]))[^\S\n]*(?=[$€£¥₽]?[^\S\n]?\d)"
    announced = rf"(?:{aside}|{final})[^\S\n*_\"'»”]*[*_\"'»”]*[^\S\n]*(?:[:：=]|\n)"
    return rf"(?:{announced}|{touching}|{dash}|{latin_copula})"


@cache
def _marker(word: str) -> re.Pattern[str]:
    """An answer word and what announces the answer behind it. Compiled when a text has the word: few of some hundred ever do."""
    return re.compile(_edge(word) + re.escape(word) + _announcement(), re.IGNORECASE)


def _edge(word: str) -> str:
    """A boundary before Latin, Greek and Cyrillic words; others carry articles, or are written without spaces."""
    return r"(?<![^\W\d_])" if word[0] < "\u0590" or "\u1e00" <= word[0] <= "\u1fff" else ""


def _marked(text: str) -> list[tuple[int, int]]:
    """Where an answer is announced, the last first: (start, end) of what follows each marker, up to the next one. At most 16."""
    lowered, words, first = text.lower(), _answer_words(), max(0, len(text) - 2 * _WINDOW)
    starts = {
        found.end(): found.start()
        for letter in words.keys() & set(lowered)
        for word in words[letter]
        if word in lowered
        for found in _marker(word).finditer(text, first)
    }
    if "\\boxed" in text or "\\fbox" in text:
        starts |= {found.end(): found.start() for found in _BOXED.finditer(text)}
    if "####" in text:
        starts |= {found.end(): found.start() for found in _HASHES.finditer(text)}
    spans, limit = [], len(text)
    for end, start in sorted(starts.items(), reverse=True)[:16]:
        spans.append((end, _closing_brace(text, end) if text[end - 1] == "{" else limit))
        limit = start
    return spans


def _closing_brace(text: str, start: int) -> int:
    """Position of the brace that closes the one before `start`; the end of the line where it was never closed."""
    depth = 1
    for position in range(start, min(len(text), start + 1000)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return position
    line = text.find("\n", start)
    return len(text) if line < 0 else line


def _first_line(text: str, start: int, end: int) -> tuple[int, int]:
    """Bounds of the first line with a letter or digit, from `start` on."""
    found = _ALNUM.search(text, start, end)
    if found is None:
        return end, end
    stop = text.find("\n", found.end(), end)
    return max(start, text.rfind("\n", start, found.start()) + 1), end if stop < 0 else stop


# Numbers


def _number_in(text: str, start: int, end: int, language: str, *, whole: bool) -> str | None:
    """The answer in text[start:end], which follows a marker."""
    plain = _PLAIN.match(text, start, end)
    if plain:
        return plain[1].lstrip("0") or "0"
    line_start, line_end = _first_line(text, start, end)
    first = _TOKEN.search(text, line_start, min(line_end, line_start + 40))
    if first is None:
        numeral = _CJK_ANSWER.match(text, start, end)
        if numeral:
            return _cjk_number(numeral[1])
        in_words = _leading_numeral(text[line_start : min(line_end, line_start + 60)], language)
        if in_words is not None:
            return in_words
    if first is None or not all(run.lower() in CURRENCIES for run in _LETTER_RUN.findall(text, line_start, first.start())):
        refused = _is_refused(text, start, line_end, language)
        return None if refused else _last_number(text, start, end, language, whole=whole)
    # Matched again: the search above may have cut the number off.
    token = _TOKEN.match(text, first.start(), line_end)
    equals = text.rfind("=", first.end(), line_end)
    if equals >= 0:
        return _number_in(text, equals + 1, line_end, language, whole=whole)
    if token is None or _OPERATOR.match(text, token.end(), line_end):
        return _last_number(text, line_start, line_end, language, whole=whole)
    return _value(text, token, line_start, line_end, language, whole=whole)


def _is_refused(text: str, start: int, line_end: int, language: str) -> bool:
    """Whether the line behind a marker says that there is no answer, or the marker is what cannot be told ("can't tell the answer:")."""
    pattern = _refusal_pattern(language)
    if pattern.search(text, start, min(line_end, start + _WINDOW)):
        return True
    before = pattern.search(text, max(0, start - 60), start)
    return before is not None and not _CLAUSE_END.search(text, before.end(), start)


def _is_aside(text: str, position: int) -> bool:
    """Whether it is in parentheses, on one line."""
    line = text.rfind("\n", 0, position) + 1
    return any(aside.start() < position < aside.end() for aside in _PARENTHESIS.finditer(text, max(line, position - _WINDOW)))


@cache
def _refusal_pattern(language: str) -> re.Pattern[str]:
    return re.compile("|".join(dict.fromkeys([REFUSALS["en"], REFUSALS.get(language, REFUSALS["en"])])), re.IGNORECASE)


def _bold_number(raw: str, language: str, *, whole: bool) -> str | None:
    """The last number in bold that is neither a heading nor a label ("**Step 2**", "**Cost of 3 pens:**").

    None where the line goes on to calculate in another sentence: then it was a step.
    """
    if "**" not in raw:
        return None
    raw = raw[-2 * _WINDOW :]
    for found in list(_BOLD.finditer(raw))[:-33:-1]:
        inner = _normalize(found[1])
        number = None if _is_label(raw, found, inner) else _last_number(inner, 0, len(inner), language, whole=whole)
        if number is not None:
            return None if _GOES_ON.match(raw, found.end()) else number
    return None


def _is_label(raw: str, found: re.Match[str], inner: str) -> bool:
    line_start, line_end = raw.rfind("\n", 0, found.start()) + 1, raw.find("\n", found.end())
    rest = raw[found.end() : line_end] if line_end >= 0 else raw[found.end() :]
    if inner.rstrip().endswith((":", "：")) or rest.lstrip().startswith((":", "：")):
        return True
    if raw[line_start : found.start()].strip(" \t#>*-•"):
        return False
    label = _LABEL.match(inner)
    if label and not any(run.lower() in CURRENCIES for run in _LETTER_RUN.findall(label[0])):
        return True
    is_heading = line_end >= 0 and not rest.strip() and _LETTER_RUN.search(inner) and not inner.rstrip().endswith(tuple(".!。！।"))
    return bool(is_heading and _ALNUM.search(raw, line_end))


def _last_number(text: str, start: int, end: int, language: str, *, whole: bool) -> str | None:
    """The last number of text[start:end]; that of a list ("2. Then ...") only where there is no other."""
    enumerator, lines = None, 0
    # From the last line up: what stands before the answer is not read.
    while end > start and lines < _LINES:
        line = max(start, text.rfind("\n", start, end) + 1)
        if line == end:
            end -= 1
            continue
        lines += 1
        token = _last_token(text, line, end, language)
        if token and not _is_enumerator(text, line, token):
            return _value(text, token, line, end, language, whole=whole)
        enumerator = enumerator or (token and _value(text, token, line, end, language, whole=whole))
        end = line - 1
    return enumerator


def _last_token(text: str, start: int, end: int, language: str) -> re.Match[str] | None:
    """The last number of a line that is no time of day and outside of parentheses, else the last one. None where there is none.

    Where it is what the answer was worked out from ("at $2 each"): the last of its sentence that is not, if there is one.
    """
    if end - start > 2 * _WINDOW and (cut := _BREAK.search(text, end - _WINDOW, end)):
        found = _last_token(text, cut.start(), end, language)
        if found:
            return found
    tokens = [token for token in _TOKEN.finditer(text, start, end) if not _is_in_a_name(text, token.start(), start)]
    asides = [found.span() for found in _PARENTHESIS.finditer(text, start, end)] if tokens else []
    last, sentence = None, start
    for token in reversed(tokens):
        while asides and asides[-1][0] > token.start():
            asides.pop()
        if _is_time(text, token) or asides and token.start() < asides[-1][1]:
            continue
        if token.start() < sentence:
            break
        if not is_input(text, token.start(), token.end(), language):
            return token
        if last is None:
            last, sentence = token, max((end.end() for end in _SENTENCE_END.finditer(text, start, token.start())), default=start)
    return last or (tokens[-1] if tokens else None)


def _is_time(text: str, token: re.Match[str]) -> bool:
    """The hours or the minutes of 8:05."""
    if _CLOCK.match(text, token.end()):
        return True
    return _CLOCK.match(text, token.start() - 1) is not None and text[token.start() - 2 : token.start() - 1].isdigit()


def _is_enumerator(text: str, line_start: int, token: re.Match[str]) -> bool:
    return not text[line_start : token.start()].strip(" \t#*>") and _ENUMERATOR.match(text, token.end()) is not None


def _value(text: str, token: re.Match[str], start: int, end: int, language: str, *, whole: bool) -> str:
    """The number of a token, with its sign and with the word of scale behind it."""
    value = _read(token["body"], language, whole=whole)
    if token["divisor"]:
        value = token["divisor"] if text[token.start() - 1 : token.start()] == "/" else _divided(value, token["divisor"])
    elif token["mixed"]:
        value = _plus(value, _divided(*token["mixed"].split("/")))
    elif token["cjk"]:
        value = _with_cjk_units(value, token["cjk"])
    elif exponent := token["power"] or token["raised"] or token["exponent"]:
        value = _shifted(value, int(exponent.translate(_POWERS)))
    elif scale := _scale_pattern(language).match(text, token.end(), end):
        value = _shifted(value, _scale_words(language)[scale[1].lower()])
    return _canonical(("-" if _is_negative(text, token.start(), start) else "") + value)


def _is_in_a_name(text: str, number: int, start: int) -> bool:
    """x2, CO2, x_2, cm^2: the digits belong to what stands before them."""
    if number == start:
        return False
    before = text[number - 1]
    if before in "_^" or text[max(start, number - 2) : number] in ("^{", "_{"):
        return True
    if not (before.isalpha() and before < "\u0530"):
        return False
    letters = number - 1
    while letters > max(start, number - 8) and text[letters - 1].isalpha() and text[letters - 1] < "\u0530":
        letters -= 1
    return text[letters:number].lower() not in CURRENCIES


def _is_negative(text: str, number: int, start: int) -> bool:
    """A minus that is neither a range (3-5), a subtraction (9 - 5), a hyphen (A-5) nor a bullet ("- 5 apples")."""
    sign = number - 1
    while sign >= start and text[sign] in _CURRENCY_SIGNS:
        sign -= 1
    if sign >= start and text[sign] in _MINUS:
        before = text[max(start, sign - 8) : sign]
        touching, operand = before[-1:], before.rstrip()[-1:]
        # Scripts without spaces touch a sign: 残り−6円.
        is_hyphen = touching.isalnum() and (touching < "\u0e00" or touching.isdigit())
        return not (is_hyphen or touching in tuple(")]}%") or operand.isdigit() or operand in tuple(")]}"))
    return _MINUS_WORD.search(text[max(start, number - 24) : number]) is not None


def _read(body: str, language: str, *, whole: bool) -> str:
    """Digits with separators -> unsigned decimal. The last part of 3,4,5 or 12.05.2024."""
    fraction = _VULGAR.get(body[-1])
    if fraction:
        return f"{_read(body[:-1], language, whole=True) if len(body) > 1 else '0'}.{fraction}"
    if body.isdigit():
        return body
    body = body.replace("٬", "'").replace("’", "'").replace("，", "'")
    for space in _SPACES:
        body = body.replace(space, "'")
    point = _decimal_point(body, language, whole=whole)
    integer, _, fraction = body.rpartition(point) if point else (body, "", "")
    groups = re.split(r"[',.]", integer or "0")
    if len(groups) == 1 or _are_thousands(groups):
        decimals = fraction.replace("'", "")  # 3.141 592: decimals may be grouped too
        return "".join(groups) + (f".{decimals}" if decimals else "")
    return re.split(r"[',.٫]", body)[-1]


def _decimal_point(body: str, language: str, *, whole: bool) -> str | None:
    """The character that separates the decimals; None where all separators separate thousands."""
    if "٫" in body:
        return "٫"
    dots, commas = body.count("."), body.count(",")
    if dots and commas:
        last = "." if body.rfind(".") > body.rfind(",") else ","
        return last if body.count(last) == 1 else None
    if dots + commas != 1:
        return None
    mark = "." if dots else ","
    before, after = body.split(mark)
    could_be_thousands = len(after) == 3 and 1 <= len(before) <= 3 and before[0] != "0" and "'" not in before
    if could_be_thousands and (whole or mark == ("." if language[:2] in DECIMAL_COMMA else ",")):
        return None
    return mark


def _are_thousands(groups: list[str]) -> bool:
    """1,234,567, or 12,34,567 as written in India."""
    first, *middle, last = groups
    if not 1 <= len(first) <= 3 or len(last) != 3:
        return False
    return all(len(group) == 3 for group in middle) or (len(first) <= 2 and all(len(group) == 2 for group in middle))


def _divided(numerator: str, denominator: str) -> str:
    """Twelve significant digits; the numerator where the denominator is 0 or the number too long to divide."""
    if not denominator.strip("0") or len(numerator) > 30:
        return numerator
    context = decimal.Context(prec=12)
    return format(context.divide(decimal.Decimal(numerator), decimal.Decimal(denominator)), "f")


def _shifted(value: str, exponent: int) -> str:
    """`value` times 10 ** exponent, by moving its point."""
    whole, _, fraction = value.partition(".")
    if exponent >= 0:
        fraction = fraction.ljust(exponent, "0")
        return f"{whole}{fraction[:exponent]}.{fraction[exponent:]}"
    whole = whole.rjust(1 - exponent, "0")
    return f"{whole[:exponent]}.{whole[exponent:]}{fraction}"


@cache
def _scale_words(language: str) -> dict[str, int]:
    return (SCALES["en"] if language not in ("de", "fr") else {}) | SCALES.get(language, {})


@cache
def _scale_pattern(language: str) -> re.Pattern[str]:
    words = sorted(_scale_words(language), key=len, reverse=True)
    return re.compile(rf"[ \u00a0-]?({'|'.join(words)})(?![a-zà-ÿа-я])", re.IGNORECASE)


def _with_cjk_units(value: str, units: str) -> str:
    """'11' and '万4200' -> 114200; '1' and '億2000万' -> 120000000."""
    total = "0"
    for unit, digits in _CJK_UNIT.findall(units[:80]):
        exponent = _CJK_MYRIADS.get(unit) or len(str(_CJK_UNITS[unit])) - 1
        total, value = _plus(total, _shifted(value, exponent)), digits or "0"
    return _plus(total, value)


def _plus(a: str, b: str) -> str:
    """Sum of two decimals; the first where either is too long to be meant."""
    if len(a) > 60 or len(b) > 60:
        return a
    return format(decimal.Context(prec=80).add(decimal.Decimal(a), decimal.Decimal(b)), "f")


@cache
def _numerals(language: str) -> dict[str, int]:
    """Word -> number; empty where none are known."""
    return dict(zip(NUMERALS.get(language, "").split(), [*range(21), *range(30, 101, 10)], strict=False))


def _leading_numeral(line: str, language: str) -> str | None:
    """A number in words with which a line begins ("about twelve eggs"). None where digits follow or it has several words."""
    if any(character.isdigit() for character in line):
        return None
    found = _numeral_words(line, language)
    return str(found[0][1]) if len(found) == 1 and found[0][0] <= (found[0][1] > 1) else None


def _last_numeral(text: str, language: str) -> str | None:
    """The last number in words of a text without digits; "one" is an article in many languages, so it is left out."""
    text = text[-_WINDOW:]
    counted = [] if text.isascii() else _CJK_COUNT.findall(text)
    if counted:
        return _cjk_number(counted[-1])
    found = _numeral_words(text, language)
    if not found or found[-1][1] < 2 or len(found) > 1 and found[-1][0] - found[-2][0] < 3:
        return None
    return str(found[-1][1])


def _numeral_words(text: str, language: str) -> list[tuple[int, int]]:
    """(which word, its number). Bengali counts with an ending."""
    values = _numerals(language)
    if not values:
        return []
    words = [re.sub("(?:টি|টা|জন)$", "", word) for word in _WORD.findall(text.lower())]
    return [(position, values[word]) for position, word in enumerate(words) if word in values]


def _cjk_number(numeral: str) -> str:
    """四十二 -> 42; digits alone, 二〇五, are read one by one."""
    numeral = numeral[:40]
    if all(character in _CJK_DIGITS for character in numeral):
        return _canonical("".join(str(_CJK_DIGITS[character]) for character in numeral))
    total = section = digit = 0
    for character in numeral:
        if character in _CJK_DIGITS:
            digit = _CJK_DIGITS[character]
        elif character in _CJK_UNITS:
            section, digit = section + (digit or 1) * _CJK_UNITS[character], 0
        else:
            total, section, digit = total + (section + digit or 1) * 10 ** _CJK_MYRIADS[character], 0, 0
    return str(total + section + digit)


# Letters


_OPENING = r"[\s*_`\"'“”„«»(（\[{\\$:：=>.\-]*"
_ALSO = re.compile(
    r"[\s*)）.]*(?:,|，|、|/|&|\band\b|\bor\b|\bund\b|\boder\b|\by\b|\bo\b|\bet\b|\bou\b|\be\b|\bи\b|\bили\b|和|或|と|및)\s*[*(（]*"
)
_JOINED = re.compile(_ALSO.pattern + r"[A-J]\b")
_SENTENCE = re.compile(r"[ \u00a0]+[A-Za-zÀ-ɏ]")
_REASON = re.compile(r"[ \u00a0]+(?:because|since|as|is|weil|da|porque|ya|parce|car|perché|потому|так)\b", re.IGNORECASE)
_LATIN = "A-Za-zÀ-ɏ0-9"
_AFTER = rf"(?![{_LATIN}]|['’]\w)"
"""Behind a Latin letter: other scripts may touch it (答えはBです)."""
_AFTER_NATIVE = r"(?:(?![^\W_])|(?=입니다|이다|번|です|だ))"


def extract_choice(text: str, language: str, choices: str = "ABCD") -> str | None:
    """The chosen letter, as it stands in `choices`. None where there is none, or several are named as the answer ("A and C").

    Behind the last marker that names one: the letter at once, else the last of the first clause with one. Without a marker: the only
    letter in bold, the letter behind a word such as "option", a line that is a letter or begins like an option ("C) Paris"), a letter
    in parentheses or bold, the only letter of the last clause that has any; the last counts.
    """
    emphasized = [found[1] for found in re.finditer(rf"\*\*[(（]?([{choices}])[)）.]?\*\*", text[-2 * _WINDOW :])]
    text = _normalize(text)
    native = _native_letters(choices)
    for start, end in _marked(text):
        chosen = _choice_in(text, start, end, choices, language)
        if chosen is not None:
            return chosen or None
    if len(set(emphasized)) == 1:
        return emphasized[0]
    for start, end in _option_spans(text):
        chosen = _choice_in(text, start, end, choices, language)
        if chosen:
            return chosen
    patterns = _loose_patterns(choices)
    for pattern in patterns:
        found = pattern.findall(text[-2 * _WINDOW :])
        if found:
            return native.get(found[-1]) or str(found[-1]).translate(_full_width(choices))
    return emphasized[-1] if emphasized else _letter_of_last_clause(text, choices, language)


def _letter_of_last_clause(text: str, choices: str, language: str) -> str | None:
    """The letter of the last clause that has any ("so I would go with C"); None where it has several."""
    _, _, among = _choice_patterns(choices)
    text = text[-_WINDOW:]
    last_few = list(among.finditer(text))[-64:]
    found = [each for each in last_few if not (_is_word(text, each, language) or _is_question(text, each.end()))]
    if not found:
        return None
    last, clauses = found[-1], [0, *(each.end() for each in _CLAUSE_END.finditer(text, 0, found[-1].start()))]
    return last[0] if {each[0] for each in found if each.start() >= clauses[-1]} == {last[0]} else None


def _is_word(text: str, found: re.Match[str], language: str) -> bool:
    """A letter that begins a sentence and is followed by a word ("A definite choice", "I would") may be one."""
    begins = not text[: found.start()].strip() or text[: found.start()].rstrip()[-1:] in tuple(".!?;:\n")
    follows = _SENTENCE.match(text, found.end()) is not None and not _JOINED.match(text, found.end())
    if found[0] == "A":
        return follows and language[:2] not in NO_WORD_A
    return follows and (found[0] == "I" or begins and found[0] in "EO")


@cache
def _full_width(choices: str) -> dict[int, str]:
    return {ord(letter) + 0xFEE0: letter for letter in choices if "!" <= letter <= "~"}


@cache
def _native_letters(choices: str) -> dict[str, str]:
    """Native letter -> choice; longer ones first."""
    pairs = {name: choice for names in LETTERS.values() for name, choice in zip(names, choices, strict=False)}
    return dict(sorted(pairs.items(), key=lambda pair: -len(pair[0])))


@cache
def _loose_patterns(choices: str) -> tuple[re.Pattern[str], ...]:
    wide = choices + "".join(map(chr, _full_width(choices)))
    return (
        re.compile(rf"^[ \t*_#>$(（\[]*([{wide}])[ \t*_$)）\].:：]*$", re.MULTILINE),
        re.compile(rf"^[ \t*_#>(（\[]*([{wide}])(?:[)）\].:：][ \t]|[。．、）：])", re.MULTILINE),
        re.compile(rf"[(（\[]([{wide}]|{'|'.join(map(re.escape, _native_letters(choices)))})[)）\]]"),
    )


@cache
def _choice_word_pattern() -> re.Pattern[str]:
    return re.compile("|".join(rf"{_edge(word)}{re.escape(word)}\w{{0,3}}ٔ?" for word in CHOICE_WORDS), re.IGNORECASE)


def _option_spans(text: str) -> list[tuple[int, int]]:
    """What follows each word such as "option" outside of questions, the last first."""
    words = [found.end() for found in _choice_word_pattern().finditer(text, max(0, len(text) - 2 * _WINDOW))]
    return [(start, min(len(text), start + 40)) for start in words[:-17:-1] if not _is_question(text, start)]


def _is_question(text: str, position: int) -> bool:
    end = _SENTENCE_END.search(text, position, position + _WINDOW)
    return end is not None and end[0] in tuple("?？")


def _choice_in(text: str, start: int, end: int, choices: str, language: str) -> str | None:
    """The letter in text[start:end]; '' where several are named, None where none is."""
    lead, letter, among = _choice_patterns(choices)
    found = lead.match(text, start, end)
    if found:
        if found[1] in choices and _is_article(text, found[1], found.end(), end, language):
            return None
        also = _ALSO.match(text, found.end(), end)
        if also and letter.match(text, also.end(), end):
            return ""
        return _native_letters(choices).get(found[1]) or found[1].upper()
    line_start, line_end = _first_line(text, start, end)
    while line_start < line_end:
        stop = _CLAUSE_END.search(text, line_start, line_end)
        clause_end = stop.end() if stop else line_end
        named = among.finditer(text, line_start, clause_end)
        letters = [each for each in named if not _is_article(text, each[0], each.end(), line_end, language)]
        if letters:
            return letters[-1][0]
        line_start = clause_end
    return None


@cache
def _choice_patterns(choices: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A letter at once behind a marker; a letter here; a Latin letter that stands alone."""
    articles, words = "|".join(ARTICLES), "|".join(rf"{re.escape(word)}\w{{0,3}}ٔ?" for word in CHOICE_WORDS)
    alone = f"[{choices.lower()}](?=[\\s*_`)）.]*(?:$|\\n|[)）]))"
    names = f"[{choices}]{_AFTER}|{alone}{_AFTER}|(?:{'|'.join(map(re.escape, _native_letters(choices)))}){_AFTER_NATIVE}"
    return (
        re.compile(rf"{_OPENING}(?:(?:{articles})\s+{_OPENING})?(?:(?:{words}){_OPENING})?({names})"),
        re.compile(names),
        re.compile(rf"(?<![{_LATIN}])(?<!['’])[{choices}]{_AFTER}"),
    )


def _is_article(text: str, letter: str, position: int, end: int, language: str) -> bool:
    """Whether a capital A is a word: "Answer: A dog". "A because ..." and "A and C" are choices."""
    if letter != "A" or language[:2] in NO_WORD_A or not _SENTENCE.match(text, position, end):
        return False
    return not _REASON.match(text, position, end) and not _JOINED.match(text, position, end)
