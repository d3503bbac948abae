"""The latency probe -> a table: what a user waits for, of base and the arm, one at a time and side by side. Makes no statistics itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench import costs, stats
from bench.records import Run, TimingBlock
from bench.report import words
from bench.report.tables import Column, Entry, Table, raw

WAITS = {
    "ttft_s": ("to the first token", "equal work"),
    "inter_token_s": ("between tokens", "equal work"),
    "latency_s": ("end to end", "as long as the answer"),
    "output_tokens": ("tokens of an answer", "each arm stops where it likes"),
}
SHARES = (0.5, 0.95, 0.99)
_COLUMNS = (
    Column("requests", "How many run side by side.", False),
    Column("what", "Whether both arms did the same work for it.", False),
    Column("arm", numeric=False),
    Column("mean", "Over requests."),
    Column("median", "Small print: 95 % interval by order statistics."),
    Column("95 % below"),
    Column("99 % below"),
    Column("arm / base", "Geometric mean over the requests that both answered, then over blocks; 95 % interval over blocks."),
)


def latency(run: Run) -> Table | None:
    """Times and answer lengths of the probe, by concurrency and arm; None in a run without one."""
    if not run.timing:
        return None
    rows = [row for concurrency in sorted({block.concurrency for block in run.timing}) for row in _at(run.timing, concurrency)]
    return Table("latency", "Latency as a user feels it", _COLUMNS, tuple(rows), _note(run))


def _at(timing: Sequence[TimingBlock], concurrency: int) -> Iterator[tuple[Entry, ...]]:
    """Rows of one concurrency: each wait of base, then of the arm; at last tokens a second of all requests together."""
    here = [block for block in timing if block.concurrency == concurrency]
    arms = list(dict.fromkeys(["base", *(block.arm for block in here)]))
    side = Entry("one at a time" if concurrency == 1 else f"{concurrency} side by side", str(concurrency))
    for metric, (name, work) in WAITS.items():
        for arm in arms:
            own = [block for block in here if block.arm == arm]
            values = [float(value) for block in own for value in getattr(block, metric) if value is not None]
            problems = len({item for block in own for item in block.items})
            yield (
                side,
                Entry(name, small=work),
                Entry(arm),
                _level(metric, sum(values) / len(values) if values else None, problems),
                *(_percentile(metric, values, problems, share) for share in SHARES),
                _ratio(here, arm, metric) if arm != "base" else Entry(""),
            )
    for arm in arms:
        own = [block for block in here if block.arm == arm]
        spent = sum(block.wall_s for block in own)
        speed = sum(sum(block.output_tokens) for block in own) / spent if spent else None
        empty = Entry("")
        problems = len({item for block in own for item in block.items})
        total = _level("output_tokens", speed, problems)
        yield side, Entry("tokens a second", small="of all requests together"), Entry(arm), total, *([empty] * 4)


def _percentile(metric: str, values: Sequence[float], problems: int, share: float) -> Entry:
    """Only of enough independent requests: those of one problem are not."""
    needed = stats.minimum_n(share)
    found = stats.percentile_interval(values, share) if values and problems >= needed else None
    if found is None:
        return Entry(words.MISSING, hint=f"n too small: {problems} problems, {needed} are needed")
    low, high = (_said(metric, limit) for limit in found.interval)
    interval = f"{low}{words.NBSP}to{words.NBSP}{high}"
    return Entry(
        _said(metric, found.value), raw(found.value), interval, found.interval, problems, hint=words.plural(len(values), "request")
    )


def _ratio(here: Sequence[TimingBlock], arm: str, metric: str) -> Entry:
    pairs = costs.pair_blocks(here, arm, metric, here[0].effort, here[0].concurrency)
    if len(pairs) < 2:
        return Entry(words.MISSING, hint=f"{words.plural(len(pairs), 'block')}: a ratio needs two")
    found = costs.over_blocks(pairs)
    low, high = found.ratio.interval
    tone = "worse" if low > 1 else "better" if high < 1 else ""
    left = f"; {words.plural(found.without, 'request')} without a value left out" if found.without else ""
    hint = f"Hodges-Lehmann {found.robust:.3f}, of totals {found.of_totals:.3f}{left}"
    interval = f"{low:.3f}{words.NBSP}to{words.NBSP}{high:.3f}"
    return Entry(f"{found.ratio.ratio:.3f}", raw(found.ratio.ratio), interval, (low, high), len(pairs), "block", hint=hint, tone=tone)


def _level(metric: str, value: float | None, problems: int) -> Entry:
    if value is None:
        return Entry(words.UNKNOWN)
    return Entry(_said(metric, value), raw(value), n=problems, hint="without interval")


def _said(metric: str, value: float) -> str:
    if metric == "output_tokens":
        return words.decimal(value)
    return f"{1000 * value:.2f}{words.NBSP}ms" if value < 0.01 else words.seconds(value)


def _note(run: Run) -> str:
    first = run.timing[0]
    blocks = words.plural(len({block.block for block in run.timing}), "block")
    arm = next((block.arm for block in run.timing if block.arm != "base"), "no arm")
    served = (
        "the adapter switched on beside the weights" if first.adapter == "beside" else "the adapter merged into the weights for its turn"
    )
    dropped = sum(block.warm_up for block in run.timing)
    return (
        f"At {first.effort} effort, engine {first.engine}: {blocks} of {words.plural(len(first.items), 'request')}, base and {arm} in turn "
        f"(ABBA) in one process, {served}; {words.plural(dropped, 'request')} of warm-up dropped. "
        "Between tokens is a request's mean. End to end grows with the answer: beside a ratio of it stands that of the tokens. "
        f"A percentile is shown from {' / '.join(str(stats.minimum_n(share)) for share in SHARES)} problems on, else the mean alone."
    )
