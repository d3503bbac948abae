"""Completions put together from sentences, numbers, scripts and locales: the answer is known by construction, and is read.

The sentences say what a model says around its answer, most of them without the words that the extractor knows to announce one. In all
of them {n} is the answer and {a}, {b} are other numbers.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from bench.answers import extract_choice, extract_number, same_number

NARROW, NO_BREAK = "\u202f", "\u00a0"


class Locale(NamedTuple):
    """How a language writes numbers, and sentences that end in one."""

    group: str
    point: str
    digits: str
    sentences: tuple[str, ...]
    """Where the answer is a count."""


LATIN = "0123456789"
LOCALES = {
    "ar": Locale("٬", "٫", "٠١٢٣٤٥٦٧٨٩", ("بعد شراء {a} كتب يبقى لديه {n} ريالًا.", "إذن المجموع هو **{n}** لأننا جمعنا {a} و {b}.")),
    "bn": Locale(",", ".", "০১২৩৪৫৬৭৮৯", ("{a}টি বিক্রি করার পর তার কাছে {n}টি থাকে।", "সুতরাং মোট **{n}** টাকা, যেখানে {a} জন ছিল।")),
    "cs": Locale(NO_BREAK, ",", LATIN, ("Po {a} dnech jim zbývá {n} Kč.", "Celkem tedy **{n} kusů** za {a} týdny.")),
    "de": Locale(".", ",", LATIN, ("Nach {a} Tagen bleiben ihr also {n} Euro.", "Somit kostet alles **{n} €** bei {a} Personen.")),
    "en": Locale(",", ".", LATIN, ("After {a} days she is left with {n} dollars.", "Hence the whole trip costs **${n}** for {a} people.")),
    "es": Locale(".", ",", LATIN, ("Tras {a} días le quedan {n} euros.", "Por tanto, todo cuesta **{n} €** para {a} personas.")),
    "fa": Locale("٬", "٫", "۰۱۲۳۴۵۶۷۸۹", ("پس از {a} روز {n} تومان باقی می‌ماند.", "بنابراین کل هزینه **{n}** تومان برای {a} نفر است.")),
    "fr": Locale(
        NARROW, ",", LATIN, ("Au bout de {a} jours, il lui reste {n} euros.", "Le voyage coûte donc **{n} €** pour {a} personnes.")
    ),
    "hi": Locale(",", ".", "०१२३४५६७८९", ("{a} दिन बाद उसके पास {n} रुपये बचते हैं।", "अतः कुल **{n}** रुपये लगते हैं, {a} लोगों के लिए।")),
    "id": Locale(".", ",", LATIN, ("Setelah {a} hari, uangnya tersisa {n} rupiah.", "Maka seluruhnya **{n}** untuk {a} orang.")),
    "it": Locale(".", ",", LATIN, ("Dopo {a} giorni le restano {n} euro.", "Quindi tutto costa **{n} €** per {a} persone.")),
    "ja": Locale(",", ".", LATIN, ("{a}日後には{n}円残っています。", "よって、{a}人で**{n}円**かかります。")),
    "ko": Locale(",", ".", LATIN, ("{a}일 뒤에는 {n}원이 남습니다.", "그러므로 {a}명이 **{n}원**을 냅니다.")),
    "mr": Locale(",", ".", "०१२३४५६७८९", ("{a} दिवसांनी तिच्याकडे {n} रुपये उरतात.", "एकूण **{n}** रुपये, {a} जणांसाठी.")),
    "pl": Locale(NO_BREAK, ",", LATIN, ("Po {a} dniach zostaje jej {n} zł.", "Zatem wszystko kosztuje **{n} zł** dla {a} osób.")),
    "pt": Locale(".", ",", LATIN, ("Depois de {a} dias, restam-lhe R$ {n}.", "Assim, tudo custa **R$ {n}** para {a} pessoas.")),
    "ru": Locale(NO_BREAK, ",", LATIN, ("Через {a} дней у неё остаётся {n} рублей.", "Значит, всё стоит **{n} ₽** на {a} человек.")),
    "sw": Locale(",", ".", LATIN, ("Baada ya siku {a} anabaki na shilingi {n}.", "Hivyo gharama yote ni **{n}** kwa watu {a}.")),
    "ta": Locale(",", ".", "௦௧௨௩௪௫௬௭௮௯", ("{a} நாட்களுக்குப் பிறகு {n} ரூபாய் மீதம் உள்ளது.", "எனவே மொத்தம் **{n}** ரூபாய், {a} பேருக்கு.")),
    "te": Locale(",", ".", "౦౧౨౩౪౫౬౭౮౯", ("{a} రోజుల తర్వాత ఆమె దగ్గర {n} రూపాయలు మిగులుతాయి.", "కాబట్టి మొత్తం **{n}** రూపాయలు, {a} మందికి.")),
    "th": Locale(",", ".", "๐๑๒๓๔๕๖๗๘๙", ("หลังจาก {a} วัน เธอเหลือเงิน {n} บาท", "ดังนั้นค่าใช้จ่ายทั้งหมด **{n}** บาท สำหรับ {a} คน")),
    "tr": Locale(".", ",", LATIN, ("{a} gün sonra elinde {n} lira kalır.", "Böylece {a} kişi için toplam **{n} TL** gerekir.")),
    "vi": Locale(".", ",", LATIN, ("Sau {a} ngày, cô ấy còn {n} đồng.", "Như vậy tất cả hết **{n}** đồng cho {a} người.")),
    "zh": Locale(",", ".", LATIN, ("{a}天后她还剩{n}元。", "因此{a}个人一共需要**{n}元**。")),
}
FRAMES = (
    "{sentence}",
    "1. {a} × {b}\n2. {a} + {b}\n\n{sentence}",
    "{a} + {b} = …\n\n\\[\n\\boxed{{{n}}}\n\\]",
    "| # | x |\n|---|---|\n| {a} | {b} |\n\n{sentence}",
    "{sentence}\n\n#### {n}",
    "$$ {b} \\rightarrow {n} $$",
)
VALUES = ("0", "7", "42", "365", "1250", "70000", "1234567", "2.5", "1234.75", "-6", "-1500")


def written(value: str, locale: Locale, digits: str, *, grouped: bool) -> str:
    """As the language writes it; Indian languages group by lakh and crore elsewhere, here by thousands too."""
    whole, _, fraction = value.lstrip("-").partition(".")
    number = f"{int(whole):,}".replace(",", locale.group) if grouped else whole
    number += f"{locale.point}{fraction}" if fraction else ""
    return ("−" if value.startswith("-") else "") + number.translate(str.maketrans(LATIN, digits))


def completions(language: str) -> Iterator[tuple[str, str]]:
    """(text, answer), every frame x sentence x value x script x grouping that differs."""
    locale, others = LOCALES[language], random.Random(language)
    for frame, sentence, value in itertools.product(FRAMES, locale.sentences, VALUES):
        for digits in dict.fromkeys((LATIN, locale.digits)):
            for number in dict.fromkeys(written(value, locale, digits, grouped=grouped) for grouped in (True, False)):
                # Left of a group that is set off by a space a second number would be one with it.
                a, b = (str(others.randint(2, 12)).translate(str.maketrans(LATIN, digits)) for _ in range(2))
                filled = sentence.format(n=number, a=a, b=b)
                yield frame.format(sentence=filled, n=number, a=a, b=b), value


@pytest.mark.parametrize("language", LOCALES)
def test_the_number_that_was_put_in_is_read(language: str) -> None:
    missed = [
        (text, value, found) for text, value in completions(language) if not same_number(found := extract_number(text, language), value)
    ]
    assert not missed, f"{len(missed)} wrong, the first: {missed[0]}"


def test_thousands_are_generated_in_many_languages() -> None:
    assert len(LOCALES) >= 20
    assert len({(language, text) for language in LOCALES for text, _ in completions(language)}) >= 5000


PICKED = {
    "ar": ("أختار {c}", "الخيار {c} هو الأنسب."),
    "bn": ("আমি {c} বেছে নেব।", "বিকল্প {c} ঠিক।"),
    "de": ("Ich entscheide mich für {c}.", "Zutreffend ist {c}."),
    "en": ("I would pick {c}.", "Everything points to {c}."),
    "es": ("Me quedo con la {c}.", "Lo correcto es {c}."),
    "fr": ("Je retiens la proposition {c}.", "C’est donc {c}."),
    "hi": ("मैं {c} चुनूँगा।", "विकल्प {c} ठीक है।"),
    "id": ("Saya memilih {c}.", "Yang tepat ialah {c}."),
    "it": ("Scelgo la {c}.", "Quella giusta è {c}."),
    "ja": ("{c}を選びます。", "適切なのは{c}です。"),
    "ko": ("{c}를 고르겠습니다.", "맞는 것은 {c}입니다."),
    "pt": ("Fico com a {c}.", "A certa é a {c}."),
    "ru": ("Я выбираю {c}.", "Верно {c}."),
    "sw": ("Nachagua {c}.", "Lililo sahihi ni {c}."),
    "te": ("నేను {c} ఎంచుకుంటాను.", "సరైనది {c}."),
    "th": ("ฉันเลือก {c}", "ที่ถูกคือ {c}"),
    "tr": ("{c} seçeneğini işaretlerim.", "Doğrusu {c}."),
    "vi": ("Tôi chọn {c}.", "Đúng nhất là {c}."),
    "yo": ("Mo yan {c}.", "Èyí tó tọ́ ni {c}."),
    "zh": ("我选{c}。", "应选 {c}。"),
}
DRESSES = ("{c}", "**{c}**", "({c})", "**({c})**", "“{c}”")


def picks(language: str) -> Iterator[tuple[str, str]]:
    for sentence, dress, letter in itertools.product(PICKED[language], DRESSES, "ABCD"):
        yield sentence.format(c=dress.format(c=letter)), letter
    for letter, close in itertools.product("ABCD", (". ", ") ", "。", ") **x** ")):
        yield f"{letter}{close}{PICKED[language][0].partition('{c}')[0] or '…'}", letter


@pytest.mark.parametrize("language", PICKED)
def test_the_letter_that_was_put_in_is_read(language: str) -> None:
    missed = [(text, letter, found) for text, letter in picks(language) if (found := extract_choice(text, language)) != letter]
    assert not missed, f"{len(missed)} wrong, the first: {missed[0]}"
