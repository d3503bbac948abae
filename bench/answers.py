r"""The final channel's text -> the answer in it, in any script. Pure: no model, no suite, no score.

A number or a letter counts as the answer where the text says so: behind the last localized "Answer:" (or "the answer is"), in the
last \boxed{}, behind a closing "#### ". Only a text without any such marker is read by the last-match rule. None means that no
answer was found, which scores 0 but is counted apart from a wrong one. Nothing here raises on any text, and no text takes long.
"""

from __future__ import annotations

import decimal
import re
import sys
import unicodedata
from functools import cache

ANSWER_WORDS: dict[str, tuple[str, ...]] = {
    "ar": ("الإجابة", "الاجابة", "إجابة", "الجواب", "جواب", "الناتج"),
    "bn": ("উত্তর",),
    "cs": ("odpověď",),
    "da": ("svar", "svaret"),
    "de": ("antwort", "ergebnis", "endergebnis", "gesamtergebnis", "lösung"),
    "el": ("απάντηση",),
    "en": ("answer",),
    "es": ("respuesta", "resultado"),
    "fa": ("پاسخ",),
    "fi": ("vastaus",),
    "fr": ("réponse", "reponse"),
    "gu": ("જવાબ",),
    "he": ("תשובה",),
    "hi": ("उत्तर", "जवाब"),
    "hu": ("válasz",),
    "id": ("jawaban", "jawabannya"),
    "it": ("risposta",),
    "ja": ("答え", "回答", "解答", "正解", "答"),
    "kn": ("ಉತ್ತರ",),
    "ko": ("정답", "답변", "답"),
    "ml": ("ഉത്തരം",),
    "nl": ("antwoord",),
    "pa": ("ਜਵਾਬ", "ਉੱਤਰ"),
    "pl": ("odpowiedź",),
    "pt": ("resposta",),
    "ro": ("răspuns", "răspunsul"),
    "ru": ("ответ",),
    "sw": ("jibu",),
    "ta": ("பதில்", "விடை"),
    "te": ("సమాధానం", "జవాబు"),
    "th": ("คำตอบ", "ตอบ"),
    "tl": ("sagot",),
    "tr": ("cevap", "yanıt"),
    "uk": ("відповідь",),
    "ur": ("جواب",),
    "vi": ("đáp án", "câu trả lời", "đáp số"),
    "yo": ("ìdáhùn", "idahun"),
    "zh": ("答案", "答"),
}
"""Lower-case words that announce an answer. All are looked for whatever the language: models mix them."""

COPULAS = (
    *(
        "is",
        "are",
        "was",
        "equals",
        "ist",
        "lautet",
        "beträgt",
        "es",
        "est",
        "è",
        "é",
        "is",
        "jest",
        "to",
        "este",
        "er",
        "är",
        "on",
    ),
    *("είναι", "равен", "равно", "составляет", "дорівнює", "ni", "adalah", "là", "olan"),
    *(
        "是",
        "为",
        "為",
        "は",
        "が",
        "คือ",
        "เท่ากับ",
        "은",
        "는",
        "হল",
        "হলো",
        "হবে",
        "হচ্ছে",
        "है",
        "होगा",
        "هو",
        "هي",
        "است",
        "ہے",
        "הוא",
        "היא",
    ),
)

DECIMAL_COMMA = frozenset(
    "af az be bg ca cs da de el es et eu fi fr gl hr hu id is it kk lt lv mk nb nl nn no pl pt".split()
    + "ro ru sk sl sq sr sv tr uk vi".split()
)
"""Languages that write 1.234,5 or 1 234,5. The others write 1,234.5."""

SCALES: dict[str, dict[str, int]] = {
    "bn": {"হাজার": 3, "লাখ": 5, "লক্ষ": 5, "কোটি": 7},
    "de": {"tausend": 3, "million": 6, "millionen": 6, "mio": 6, "milliarde": 9, "milliarden": 9},
    "en": {"thousand": 3, "million": 6, "billion": 9, "lakh": 5, "crore": 7},
    "es": {"mil": 3, "millón": 6, "millones": 6},
    "fr": {"mille": 3, "million": 6, "millions": 6, "milliard": 9, "milliards": 9},
    "hi": {"हज़ार": 3, "हजार": 3, "लाख": 5, "करोड़": 7},
    "it": {"mila": 3, "milione": 6, "milioni": 6},
    "ko": {"천": 3, "만": 4, "백만": 6, "억": 8},
    "pt": {"mil": 3, "milhão": 6, "milhões": 6},
    "ru": {"тысяч": 3, "тысячи": 3, "тысяча": 3, "тыс": 3, "миллион": 6, "миллиона": 6, "миллионов": 6, "млн": 6, "млрд": 9},
    "te": {"వేలు": 3, "వేల": 3, "లక్షలు": 5, "లక్షల": 5, "కోట్లు": 7},
    "th": {"พัน": 3, "หมื่น": 4, "แสน": 5, "ล้าน": 6},
    "uk": {"тисяч": 3, "тис": 3, "мільйон": 6, "мільйонів": 6, "млн": 6},
}
"""Words behind a number that multiply it by a power of ten, by language (English ones everywhere but in German and French)."""

CURRENCIES = frozenset(
    "rs inr us usd eur gbp jpy cny rmb aud cad chf kr sek nok dkk zł pln ksh kes tsh tzs rp idr rm s r c a au".split()
    + "nt hk tk bdt".split()
)
"""Letters that may touch a number's left side; any other letter there (x2, CO2, A4) makes it part of a name."""

LETTERS: dict[str, tuple[str, ...]] = {
    "full-width": tuple("ＡＢＣＤＥＦＧＨＩＪ"),
    "arabic": ("أ", "ب", "ج", "د", "هـ"),
    "bengali": ("ক", "খ", "গ", "ঘ", "ঙ"),
    "bengali, transcribed": ("এ", "বি", "সি", "ডি", "ই"),
    "bengali, by position": ("অ", "ব", "ড", "ঢ"),
    "cyrillic": ("А", "Б", "С", "Г"),
    "devanagari": ("क", "ख", "ग", "घ", "ङ"),
    "devanagari, transcribed": ("ए", "बी", "सी", "डी", "ई"),
    "greek": ("Α", "Β", "Γ", "Δ", "Ε"),
    "kana": ("ア", "イ", "ウ", "エ", "オ"),
    "stems": ("甲", "乙", "丙", "丁", "戊"),
    "hangul": ("가", "나", "다", "라", "마"),
    "telugu": ("ఎ", "బి", "సి", "డి", "ఇ"),
    "thai": ("ก", "ข", "ค", "ง", "จ"),
}
"""Native list letters in order, accepted directly behind a marker. Not Cyrillic В: it looks like B and is third in А Б В Г."""

_LONGEST = 32_000
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
_TOKEN = re.compile(
    rf"(?P<body>(?:\d+|(?<![\w.])\.(?=\d))(?:[.,٫]?\d+|[{_SPACES}'’٬，]\d{{3}}(?!\d))*[{_VULGARS}]?|[{_VULGARS}])"
    r"(?:[ \u00a0](?P<mixed>\d{1,4}/\d{1,4})(?![\d/])|/(?P<divisor>\d{1,30})(?![\d/.,])"
    r"|(?P<cjk>(?:(?:[十万萬億亿]|[百千](?![克米瓦卡分]))\d{0,8})+)"
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
_BREAK = re.compile(r"[^\d.,'’٬٫，]")
_CJK_UNIT = re.compile(r"([十百千万萬億亿])(\d*)")
_ALNUM = re.compile(r"[^\W_]")
_LETTER_RUN = re.compile(r"[^\W\d_]+")


@cache
def _translation() -> dict[int, str | None]:
    """Every decimal digit of Unicode -> ASCII, full-width signs -> ASCII, invisible characters -> nothing."""
    table: dict[int, str | None] = dict.fromkeys(map(ord, _INVISIBLE))
    for code in range(128, sys.maxunicode + 1):
        if unicodedata.category(chr(code)) == "Nd":
            table[code] = str(unicodedata.decimal(chr(code)))
    # U+0130 is the one character that grows in lower case, which would shift every position behind it.
    table |= dict(zip(map(ord, "．％＋／＝（）［］｛｝＃＊＄İ"), ".%+/=()[]{}#*$I", strict=True))
    return table


def _normalize(text: str) -> str:
    text = text[-_LONGEST:]
    if not text.isascii():
        text = text.translate(_translation())
    if "\\" in text or "{,}" in text:
        text = _LATEX.sub(lambda found: found[1] or ("," if found[0] == "{,}" else ""), text.replace("\\$", "$").replace("\\%", "%"))
        text = _FRACTION.sub(r"\1/\2", _MIXED_FRACTION.sub(r"\1 \\frac", text))
    return _EMPHASIS.sub("", text)


def extract_number(text: str, language: str, *, whole: bool = False) -> str | None:
    """The answer as an ASCII decimal: '-1234.5'. None where the text has none.

    Behind the last marker: the number that stands there at once, else the last one there; of an equation, its right side. Without
    a marker: the last number, one in parentheses only where its line has no other. `language` is a code such as `de`; it decides
    what 1.234 means. `whole` says that only whole numbers are asked for, so that 1,234 and 1.234 are both thousands.
    """
    text = _normalize(text)
    spans = _marked(text)
    for start, end in spans:
        found = _number_in(text, start, end, language, whole=whole)
        if found is not None:
            return found
    if spans and text[spans[0][0] : spans[0][1]].strip(" \n\t.*:$"):
        return None
    return _last_number(text, 0, len(text), language, whole=whole)


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
def _marker_patterns(*, ascii_only: bool) -> dict[str, re.Pattern[str]]:
    """By answer word."""
    copula = "|".join(sorted(set(map(re.escape, COPULAS)), key=len, reverse=True))
    latin_copula = rf"[^\n.!?。।:：=\d]{{0,60}}?(?<!\w)(?:{copula})(?!\w)[:：=]?"
    touching = r"\s*(?:是|为|為|は|が|คือ|เท่ากับ|은|는)[:：=]?"
    aside = r"(?:[^\S\n]*(?:\([^()\n]{0,60}\)|（[^（）\n]{0,60}）|(?:in|of|to|for|auf|en|à|на|de|per)\s[^\n.!?:：=\d]{0,60}))?"
    final = r"(?:[^\S\n]?+[^\s\d:：=.!?。।*_\"'»”]{1,14}+){0,2}+"
    announced = rf"(?:{aside}|{final})[^\S\n*_\"'»”]*[*_\"'»”]*[^\S\n]*(?:[:：=]|\n)"
    words = dict.fromkeys(word for group in ANSWER_WORDS.values() for word in group if word.isascii() or not ascii_only)
    return {word: re.compile(rf"{_edge(word)}{re.escape(word)}(?:{announced}|{touching}|{latin_copula})", re.IGNORECASE) for word in words}


def _edge(word: str) -> str:
    """A boundary before Latin, Greek and Cyrillic words; others carry articles, or are written without spaces."""
    return r"(?<![^\W\d_])" if word[0] < "\u0590" or "\u1e00" <= word[0] <= "\u1fff" else ""


def _marked(text: str) -> list[tuple[int, int]]:
    """Where an answer is announced, the last first: (start, end) of what follows each marker, up to the next one. At most 16."""
    lowered = text.lower()
    starts = {
        found.end(): found.start()
        for word, pattern in _marker_patterns(ascii_only=text.isascii()).items()
        if word in lowered
        for found in pattern.finditer(text, max(0, len(text) - 2 * _WINDOW))
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
    line_start, line_end = _first_line(text, start, end)
    first = _TOKEN.search(text, line_start, min(line_end, line_start + 40))
    if first is None:
        numeral = _CJK_ANSWER.match(text, start, end)
        return _cjk_number(numeral[1]) if numeral else _last_number(text, start, end, language, whole=whole)
    if not all(run.lower() in CURRENCIES for run in _LETTER_RUN.findall(text, line_start, first.start())):
        return _last_number(text, start, end, language, whole=whole)
    # Matched again: the search above may have cut the number off.
    token = _TOKEN.match(text, first.start(), line_end)
    equals = text.rfind("=", first.end(), line_end)
    if equals >= 0:
        return _number_in(text, equals + 1, line_end, language, whole=whole)
    if token is None or _OPERATOR.match(text, token.end(), line_end):
        return _last_number(text, line_start, line_end, language, whole=whole)
    return _value(text, token, line_start, line_end, language, whole=whole)


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
        token = _last_token(text, line, end)
        if token and not _is_enumerator(text, line, token):
            return _value(text, token, line, end, language, whole=whole)
        enumerator = enumerator or (token and _value(text, token, line, end, language, whole=whole))
        end = line - 1
    return enumerator


def _last_token(text: str, start: int, end: int) -> re.Match[str] | None:
    """The last number of a line outside of parentheses, else the last one. None where there is none."""
    if end - start > 2 * _WINDOW and (cut := _BREAK.search(text, end - _WINDOW, end)):
        found = _last_token(text, cut.start(), end)
        if found:
            return found
    tokens = [token for token in _TOKEN.finditer(text, start, end) if not _is_in_a_name(text, token.start(), start)]
    asides = [found.span() for found in _PARENTHESIS.finditer(text, start, end)] if tokens else []
    for token in reversed(tokens):
        while asides and asides[-1][0] > token.start():
            asides.pop()
        if not asides or token.start() >= asides[-1][1]:
            return token
    return tokens[-1] if tokens else None


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
    elif exponent := token["power"] or (token["raised"] or "").translate(_POWERS) or token["exponent"]:
        value = _shifted(value, int(exponent))
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
        return not (touching.isalnum() or touching in tuple(")]}%") or operand.isdigit() or operand in tuple(")]}"))
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


_CHOICE_WORDS = (
    *(
        "option",
        "choice",
        "alternative",
        "alternativa",
        "opción",
        "opcion",
        "opção",
        "opzione",
        "вариант",
        "variante",
        "chaguo",
        "pilihan",
    ),
    *("选项", "選項", "選択肢", "選択", "보기", "ตัวเลือก", "ข้อ", "विकल्प", "বিকল্প", "الخيار", "seçenek", "optie", "opcja"),
)
_OPENING = r"[\s*_`\"'“”„«»(（\[{\\$:：=>.\-]*"
_ALSO = re.compile(
    r"[\s*)）.]*(?:,|，|、|/|&|\band\b|\bor\b|\bund\b|\boder\b|\by\b|\bo\b|\bet\b|\bou\b|\be\b|\bи\b|\bили\b|和|或|と|및)\s*[*(（]*"
)
_SENTENCE = re.compile(r"[ \u00a0]+[^\W\d_]")
_REASON = re.compile(r"[ \u00a0]+(?:because|since|as|is|weil|da|porque|ya|parce|car|perché|потому|так)\b", re.IGNORECASE)
_LATIN = "A-Za-zÀ-ɏ0-9"
_AFTER = rf"(?![{_LATIN}]|['’]\w)"
"""Behind a Latin letter: other scripts may touch it (答えはBです)."""
_AFTER_NATIVE = r"(?:(?![^\W_])|(?=입니다|이다|번|です|だ))"


def extract_choice(text: str, language: str, choices: str = "ABCD") -> str | None:
    """The chosen letter, as it stands in `choices`. None where there is none, or several are named as the answer ("A and C").

    Behind the last marker that names one: the letter at once, else the last of that line. Without a marker: a line that is a
    letter or begins like an option ("C) Paris"), then a letter in parentheses or bold; the last counts.
    """
    emphasized = [found[1] for found in re.finditer(rf"\*\*[(（]?([{choices}])[)）.]?\*\*", text[-2 * _WINDOW :])]
    text = _normalize(text)
    native = _native_letters(choices)
    for start, end in _choice_spans(text):
        chosen = _choice_in(text, start, end, choices, native)
        if chosen is not None:
            return chosen if chosen in choices and chosen else None
    patterns = _loose_patterns(choices)
    for pattern in patterns:
        found = pattern.findall(text[-2 * _WINDOW :])
        if found:
            return str(found[-1]).translate(_full_width(choices))
    return emphasized[-1] if emphasized else None


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
        re.compile(rf"^[ \t*_#>(（\[]*([{wide}])[)）\].:：][ \t]", re.MULTILINE),
        re.compile(rf"[(（\[]([{wide}])[)）\]]"),
    )


@cache
def _choice_word_pattern() -> re.Pattern[str]:
    return re.compile("|".join(_edge(word) + re.escape(word) for word in _CHOICE_WORDS), re.IGNORECASE)


def _choice_spans(text: str) -> list[tuple[int, int]]:
    """What follows each marker, the last first: an answer's, else an option's."""
    spans = _marked(text)
    words = [found.end() for found in _choice_word_pattern().finditer(text, max(0, len(text) - 2 * _WINDOW))]
    return spans + [(start, min(len(text), start + 40)) for start in words[:-17:-1]]


def _choice_in(text: str, start: int, end: int, choices: str, native: dict[str, str]) -> str | None:
    """The letter in text[start:end]; '' where several are named, None where none is."""
    lead, letter, among = _choice_patterns(choices)
    found = lead.match(text, start, end)
    if found:
        if found[1] in choices and _is_article(text, found[1], found.end(), end):
            return None
        also = _ALSO.match(text, found.end(), end)
        if also and letter.match(text, also.end(), end):
            return ""
        return native.get(found[1]) or found[1].upper()
    line_start, line_end = _first_line(text, start, end)
    letters = [found for found in among.finditer(text, line_start, line_end) if not _is_article(text, found[0], found.end(), line_end)]
    return letters[-1][0] if letters else None


@cache
def _choice_patterns(choices: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A letter at once behind a marker; a letter here; a Latin letter that stands alone."""
    alone = f"[{choices.lower()}](?=[\\s*_`)）.]*(?:$|\\n|[)）]))"
    names = f"[{choices}]{_AFTER}|{alone}{_AFTER}|(?:{'|'.join(map(re.escape, _native_letters(choices)))}){_AFTER_NATIVE}"
    return (
        re.compile(rf"{_OPENING}(?:(?:{'|'.join(_CHOICE_WORDS)}){_OPENING})?({names})"),
        re.compile(names),
        re.compile(rf"(?<![{_LATIN}])(?<!['’])[{choices}]{_AFTER}"),
    )


def _is_article(text: str, letter: str, position: int, end: int) -> bool:
    """Whether a capital A is a word: "Answer: A dog". "A because ..." is a choice."""
    return letter == "A" and _SENTENCE.match(text, position, end) is not None and not _REASON.match(text, position, end)
