"""Arithmetic stories in five languages: the world of the embedded model, made from seeds alone.

A `Problem` is language-free (who, what, a start and three to five operations), so that every language asks the very same problems.
Reasoning text depends on the effort: none at low, two operations a line at medium, one a line at high. That is why more effort is more
accurate here, and costs more tokens. Splits never share a problem; `reserved()` is what no training text may contain.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

SPLIT_SIZES = {"gate": 250, "select": 60, "dev": 60, "train": 200}
SPLIT_SEED = 20251
LARGEST_OPERAND = 60
LENGTHS = {3: 2, 4: 2, 5: 1}
"""Number of operations -> how often, in every split."""

Operation = tuple[str, int]
Signature = tuple[int, tuple[Operation, ...]]


@dataclass(frozen=True)
class Language:
    """Sentence patterns of one language.

    `things` holds plural and gender (f or m) by thing; {how_many}, {others}, {as_many} and {pronoun} agree with that gender or the
    person's, through `agreement`.
    """

    name: str
    things: dict[str, tuple[str, str]]
    start: str
    events: dict[str, str]
    question: str
    first: str
    next: str
    last: str
    answer: str
    agreement: dict[str, dict[str, str]]


PEOPLE = {"Anna": "f", "Tom": "m", "Mia": "f", "Ben": "m", "Lena": "f", "Paul": "m", "Eva": "f", "Max": "m"}
THINGS = ("apples", "books", "coins", "stamps", "pencils", "marbles", "cards", "flowers")
EVENTS = {"+": ("buys", "finds", "receives"), "-": ("gives", "loses", "sells"), "*": ("multiplies",)}


def _things(*words: str) -> dict[str, tuple[str, str]]:
    return {thing: (word[:-2], word[-1]) for thing, word in zip(THINGS, words, strict=True)}


LANGUAGES = {
    "en": Language(
        name="English",
        things=_things("apples/m", "books/m", "coins/m", "stamps/m", "pencils/m", "marbles/m", "cards/m", "flowers/m"),
        start="{who} has {n} {things}.",
        events={
            "buys": "{who} buys {n} more.",
            "finds": "{who} finds {n} more.",
            "receives": "{who} is given {n} more.",
            "gives": "{who} gives away {n} of them.",
            "loses": "{who} loses {n} of them.",
            "sells": "{who} sells {n} of them.",
            "multiplies": "Then {who} has {n} times as many as before.",
        },
        question="How many {things} does {who} have now?",
        first="We start with {n}.",
        next="Now {step}.",
        last="So the result is {n}.",
        answer="The answer is {n}.",
        agreement={},
    ),
    "de": Language(
        name="German",
        things=_things("Äpfel/m", "Bücher/m", "Münzen/f", "Briefmarken/f", "Bleistifte/m", "Murmeln/f", "Karten/f", "Blumen/f"),
        start="{who} hat {n} {things}.",
        events={
            "buys": "{who} kauft {n} weitere.",
            "finds": "{who} findet {n} weitere.",
            "receives": "{who} bekommt {n} weitere geschenkt.",
            "gives": "{who} verschenkt {n} davon.",
            "loses": "{who} verliert {n} davon.",
            "sells": "{who} verkauft {n} davon.",
            "multiplies": "Dann hat {who} {n}-mal so viele wie vorher.",
        },
        question="Wie viele {things} hat {who} jetzt?",
        first="Wir beginnen mit {n}.",
        next="Nun {step}.",
        last="Also ist das Ergebnis {n}.",
        answer="Die Antwort ist {n}.",
        agreement={},
    ),
    "fr": Language(
        name="French",
        things=_things("pommes/f", "livres/m", "pièces/f", "timbres/m", "crayons/m", "billes/f", "cartes/f", "fleurs/f"),
        start="{who} a {n} {things}.",
        events={
            "buys": "{who} en achète {n} de plus.",
            "finds": "{who} en trouve {n} de plus.",
            "receives": "{who} en reçoit {n} de plus.",
            "gives": "{who} en donne {n}.",
            "loses": "{who} en perd {n}.",
            "sells": "{who} en vend {n}.",
            "multiplies": "Ensuite, {who} en a {n} fois plus qu'avant.",
        },
        question="Combien de {things} {who} a-t-{pronoun} maintenant ?",
        first="On commence avec {n}.",
        next="Maintenant {step}.",
        last="Donc le résultat est {n}.",
        answer="La réponse est {n}.",
        agreement={"person": {"pronoun": "elle/il"}},
    ),
    "es": Language(
        name="Spanish",
        things=_things("manzanas/f", "libros/m", "monedas/f", "sellos/m", "lápices/m", "canicas/f", "tarjetas/f", "flores/f"),
        start="{who} tiene {n} {things}.",
        events={
            "buys": "{who} compra {n} más.",
            "finds": "{who} encuentra {n} más.",
            "receives": "{who} recibe {n} más.",
            "gives": "{who} regala {n}.",
            "loses": "{who} pierde {n}.",
            "sells": "{who} vende {n}.",
            "multiplies": "Después, {who} tiene {n} veces la cantidad anterior.",
        },
        question="¿{how_many} {things} tiene {who} ahora?",
        first="Empezamos con {n}.",
        next="Ahora {step}.",
        last="Entonces el resultado es {n}.",
        answer="La respuesta es {n}.",
        agreement={"thing": {"how_many": "Cuántas/Cuántos"}},
    ),
    "it": Language(
        name="Italian",
        things=_things("mele/f", "libri/m", "monete/f", "francobolli/m", "matite/f", "biglie/f", "carte/f", "fiori/m"),
        start="{who} ha {n} {things}.",
        events={
            "buys": "{who} ne compra {others} {n}.",
            "finds": "{who} ne trova {others} {n}.",
            "receives": "{who} ne riceve {others} {n}.",
            "gives": "{who} ne regala {n}.",
            "loses": "{who} ne perde {n}.",
            "sells": "{who} ne vende {n}.",
            "multiplies": "Poi {who} ne ha {n} volte {as_many} prima.",
        },
        question="{how_many} {things} ha {who} adesso?",
        first="Iniziamo con {n}.",
        next="Adesso {step}.",
        last="Quindi il risultato è {n}.",
        answer="La risposta è {n}.",
        agreement={
            "thing": {"how_many": "Quante/Quanti", "others": "altre/altri", "as_many": "tante quante/tanti quanti"},
        },
    ),
}


@dataclass(frozen=True)
class Problem:
    """One story without words. `events` name what happens, one for each operation."""

    who: str
    thing: str
    start: int
    operations: tuple[Operation, ...]
    events: tuple[str, ...]

    @property
    def signature(self) -> Signature:
        """Operands and operations: two stories with the same signature are the same problem."""
        return self.start, self.operations

    @property
    def values(self) -> list[int]:
        """Running total: the start, then the result of each operation; the last is the answer."""
        totals = [self.start]
        for sign, operand in self.operations:
            totals.append(_calculate(totals[-1], sign, operand))
        return totals


def _calculate(total: int, sign: str, operand: int) -> int:
    return {"+": total + operand, "-": total - operand, "*": total * operand}[sign]


def draw_problem(rng: random.Random, lengths: Mapping[int, float] = LENGTHS) -> Problem:
    """A random problem with as many operations as `lengths` makes likely; every running total is at least 1."""
    total = start = rng.randint(2, LARGEST_OPERAND)
    operations: list[Operation] = []
    for _ in range(rng.choices(list(lengths), weights=list(lengths.values()))[0]):
        sign, operand = _draw_operation(rng, total)
        operations.append((sign, operand))
        total = _calculate(total, sign, operand)
    events = tuple(rng.choice(EVENTS[sign]) for sign, _ in operations)
    return Problem(rng.choice(list(PEOPLE)), rng.choice(THINGS), start, tuple(operations), events)


def _draw_operation(rng: random.Random, total: int) -> Operation:
    """Sums mostly; products only while the total is small, differences only while something is left."""
    chance = rng.random()
    if chance < 0.45 or total < 6:
        return "+", rng.randint(2, LARGEST_OPERAND)
    if chance < 0.8 or total > 150:
        return "-", rng.randint(2, min(total - 1, LARGEST_OPERAND))
    return "*", rng.randint(2, 5)


@cache
def splits() -> dict[str, tuple[Problem, ...]]:
    """Problems of gate, select, dev and train; no signature occurs twice, within a split or between them."""
    rng = random.Random(SPLIT_SEED)
    taken: set[Signature] = set()
    drawn = {}
    for split, size in SPLIT_SIZES.items():
        problems: list[Problem] = []
        while len(problems) < size:
            problem = draw_problem(rng)
            if problem.signature not in taken:
                taken.add(problem.signature)
                problems.append(problem)
        drawn[split] = tuple(problems)
    return drawn


@cache
def reserved() -> frozenset[Signature]:
    """Signatures of the problems that nothing may be trained on: gate, select and dev."""
    return frozenset(problem.signature for split in ("gate", "select", "dev") for problem in splits()[split])


def draw_training_problem(rng: random.Random, forbidden: Collection[Signature], lengths: Mapping[int, float] = LENGTHS) -> Problem:
    """A random problem whose signature is not forbidden."""
    while (problem := draw_problem(rng, lengths)).signature in forbidden:
        pass
    return problem


def tell(problem: Problem, code: str) -> str:
    """The story and its question in one language."""
    language = LANGUAGES[code]
    things, gender = language.things[problem.thing]
    words = {"who": problem.who, "things": things} | _agree(language, "thing", gender)
    words |= _agree(language, "person", PEOPLE[problem.who])
    sentences = [language.start.format(n=problem.start, **words)]
    for event, (_, operand) in zip(problem.events, problem.operations, strict=True):
        sentences.append(language.events[event].format(n=operand, **words))
    return " ".join([*sentences, language.question.format(**words)])


def _agree(language: Language, what: str, gender: str) -> dict[str, str]:
    forms = language.agreement.get(what, {})
    return {word: form.split("/")[0 if gender == "f" else 1] for word, form in forms.items()}


def think(problem: Problem, code: str, effort: str) -> str:
    """The analysis in one language: empty at low effort, shortened at medium, step by step at high."""
    if effort == "low":
        return ""
    language = LANGUAGES[code]
    steps = _short_steps(problem) if effort == "medium" else _single_steps(problem)
    lines = [language.first.format(n=problem.start), *(language.next.format(step=step) for step in steps)]
    if effort == "high":
        lines.append(language.last.format(n=problem.values[-1]))
    return " ".join(lines)


def _short_steps(problem: Problem) -> list[str]:
    """Two operations a line, the harder way: (12 + 5) * 3 = 51."""
    steps, values = [], problem.values
    for index in range(0, len(problem.operations), 2):
        pair = problem.operations[index : index + 2]
        text = str(values[index])
        for position, (sign, operand) in enumerate(pair):
            text = f"( {text} ) {sign} {operand}" if position else f"{text} {sign} {operand}"
        steps.append(f"{text} = {values[index + len(pair)]}")
    return steps


def _single_steps(problem: Problem) -> list[str]:
    """One operation a line; a product is added up."""
    steps = []
    for total, (sign, operand) in zip(problem.values, problem.operations, strict=False):
        if sign != "*":
            steps.append(f"{total} {sign} {operand} = {_calculate(total, sign, operand)}")
            continue
        sums = [f"{total * times} + {total} = {total * (times + 1)}" for times in range(1, operand)]
        steps.append(", ".join(sums))
    return steps


def answer(problem: Problem, code: str) -> str:
    """The final message in one language."""
    return LANGUAGES[code].answer.format(n=problem.values[-1])


def ask_for(code: str) -> str:
    """The developer instruction that asks for a reasoning language."""
    return f"reasoning language: {LANGUAGES[code].name}"
