"""The two arms' comparisons in each language -> whether any language collapsed. Pure; it can fail a release and passes nothing.

Eleven tests at 2.5 % each would stop about every fourth arm that stands at the margin, so the p values are adjusted by Holm's method:
all together then err in 2.5 % of runs (3.7 % in simulation, single answers near the ceiling being lopsided). One language has too few
problems to rule a loss out, so not failing is no claim about any of them; that is what the gate over all languages is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import scipy

from bench import stats
from bench.comparison import ROUNDING, TRAITS
from bench.experiment import Gate
from bench.gate import ALPHA, MINUS, amount, refuse, verdict_of
from bench.records import Comparison, Verdict


def judge_languages(overall: Comparison, languages: Sequence[Comparison], gate: Gate, looks: int = 1) -> Verdict:
    """Fail where a language is shown to lose more than the margin, else pass; invalid where a language could not be compared.

    `overall` is the comparison over all languages, whose numbers the verdict carries; `looks` is how many the experiment permits.
    """
    refusals = overall.invalid_because or refuse(overall, gate)
    if not refusals and sorted(overall.languages) != sorted(name for each in languages for name in each.languages):
        refusals = (f"{len(languages)} languages were compared one by one, {len(overall.languages)} together",)
    for each in languages:
        reasons = each.invalid_because or refuse(each, gate)
        refusals += tuple(f"{', '.join(each.languages)}: {reason}" for reason in reasons)
    if refusals:
        return verdict_of(overall, gate, "invalid", reasons=refusals)
    adjusted = [float(p) for p in stats.holm([p_value(each, gate.margin) for each in languages])]
    fallen = [(each, p) for each, p in zip(languages, adjusted, strict=True) if p < ALPHA]
    lowest, lowest_p = min(zip(languages, adjusted, strict=True), key=lambda pair: (pair[1], _gain(pair[0])))
    margin, loss = amount(gate.margin, gate), "loss" if TRAITS[gate.metric].more_is_better else "rise"
    corrected = f"(Holm over {len(languages)} languages, one-sided {100 * ALPHA:g} %{' per look' if looks > 1 else ''}"
    if fallen:
        named = ", ".join(f"{each.languages[0]} {_points(_gain(each))} points, p = {p:.2g}" for each, p in fallen)
        reasons = (f"a {loss} of more than {margin} in {gate.metric} is shown in {named} {corrected})",)
    else:
        seen = f"{lowest.languages[0]} comes nearest: {_points(_gain(lowest))} points, p = {lowest_p:.2g}"
        reasons = (
            f"no language is shown to have a {loss} of more than {margin} in {gate.metric} {corrected}; {seen}); this rules nothing out",
        )
    verdict = verdict_of(overall, gate, "fail" if fallen else "pass", reasons=reasons)
    table = {each.languages[0]: {"delta": each.delta, "se": each.se, "holm_p": p} for each, p in zip(languages, adjusted, strict=True)}
    return replace(verdict, evidence={**verdict.evidence, "by_language": table})


def p_value(comparison: Comparison, margin: float) -> float:
    """One-sided p against: the language lost no more than the margin. Student's t over its problems.

    Where all problems differ by the same there is no t; the p value is then the chance that so many problems hide a mean at the
    margin, (1 - (loss - margin)) ** problems, which inverts `stats.unseen_share`.
    """
    assert comparison.delta is not None
    assert comparison.se is not None
    beyond = _gain(comparison) + margin
    if comparison.se <= ROUNDING:
        return 1.0 if beyond >= -ROUNDING else max(0.0, 1 + beyond) ** comparison.clusters
    return float(scipy.special.stdtr(comparison.clusters - 1, beyond / comparison.se))


def _gain(comparison: Comparison) -> float:
    """Positive is better."""
    delta = comparison.delta or 0.0
    return delta if TRAITS[comparison.metric].more_is_better else -delta


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f}".replace("-", MINUS)
