"""What the report says of latency, memory and energy: each under its own name, and a dash for what nobody measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated import fabricate_run
from test_costs import block_of

from bench.costs import cell_costs
from bench.records import Run, TimingBlock
from bench.report.cells import Cells
from bench.report.focus import focus_on
from bench.report.latency import latency
from bench.report.page import sections
from bench.report.passes import energy, phases
from bench.report.tables import Table
from bench.report.words import answers_metric, gated_metric

ARM = "r16-s200"
ENERGY_J = 5000.0


@pytest.fixture(scope="module")
def run() -> Run:
    """Of a machine with a GPU; every pass took 5 kJ."""
    made = fabricate_run(Path("nowhere"), select_problems=2, gate_problems=4, gpu=True)
    tokens = made.samples.groupby(["arm", "suite", "split"], observed=True)["output_tokens"].sum().to_dict()
    known = [
        dataclasses.replace(
            phase,
            peak_process_bytes=30 * 2**30,
            peak_device_bytes=31 * 2**30,
            energy_j=ENERGY_J,
            correct=100,
            output_tokens=int(tokens[phase.arm, phase.suite, phase.split]),
        )
        for phase in made.phases
    ]
    return dataclasses.replace(made, phases=tuple(known))


def column(table: Table | None, title: str) -> list[str]:
    assert table is not None
    at = [column.title for column in table.columns].index(title)
    return [row[at].text for row in table.rows]


# --- the latency probe


def probed(run: Run, requests: int, slower: float = 1.2, **changes: Any) -> Run:
    """Six blocks, one at a time and four side by side; the arm's tokens take longer, and it writes half as many again."""
    rng, blocks = np.random.default_rng(1), []
    for number in range(6):
        for concurrency in (1, 4):
            luck = rng.lognormal(0, 0.02, requests)
            for arm, pace, tokens in (("base", 0.004, 101), (ARM, 0.004 * slower, 151)):
                seconds = [0.1 + float(pace * (tokens - 1) * each) for each in luck]
                made = {"output_tokens": [tokens] * requests, "ttft_s": [0.1] * requests, "concurrency": concurrency, "wall_s": 10.0}
                blocks.append(block_of(number, arm, seconds, **made | changes))
    return dataclasses.replace(run, timing=tuple(blocks))


def rows_of(run: Run) -> dict[tuple[str, str, str], dict[str, str]]:
    table = latency(run)
    assert table is not None
    titles = [column.title for column in table.columns]
    return {(row[0].text, row[1].text, row[2].text): dict(zip(titles, (entry.text for entry in row), strict=True)) for row in table.rows}


def test_the_probe_tells_time_per_token_and_end_to_end_apart(run: Run) -> None:
    rows = rows_of(probed(run, requests=3))
    assert rows["one at a time", "between tokens", ARM]["arm / base"] == "1.200"
    assert rows["one at a time", "to the first token", ARM]["arm / base"] == "1.000"
    assert rows["one at a time", "tokens of an answer", ARM]["arm / base"] == "1.495"
    assert float(rows["one at a time", "end to end", ARM]["arm / base"]) == pytest.approx((0.1 + 0.72) / 0.5, rel=0.01)
    assert rows["4 side by side", "tokens a second", "base"]["mean"] == f"{6 * 3 * 101 / 60:.1f}"


@pytest.mark.parametrize(("requests", "shown"), [(1, (False, False)), (2, (True, False)), (15, (True, False)), (16, (True, True))])
def test_a_percentile_needs_enough_problems(run: Run, requests: int, shown: tuple[bool, bool]) -> None:
    row = rows_of(probed(run, requests))["one at a time", "end to end", "base"]
    assert (row["median"] != "–", row["95 % below"] != "–", row["99 % below"]) == (*shown, "–")
    assert row["mean"].endswith("s")


def test_translations_of_one_problem_are_not_independent_requests(run: Run) -> None:
    row = rows_of(probed(run, 20, items=[f"item-{at}" for at in range(7)] * 2 + [f"item-{at}" for at in range(6)]))
    assert row["one at a time", "end to end", "base"]["median"] == "–"


def test_an_unprobed_run_has_no_table_and_a_frame_without_rows(run: Run) -> None:
    assert latency(run) is None
    assert (len(run.frame("timing")), "inter_token_s" in run.frame("timing")) == (0, True)


def test_every_request_of_the_probe_is_a_row(run: Run) -> None:
    made = probed(run, 2, output_tokens=[1, 11])
    frame = made.frame("timing")
    assert len(frame) == 6 * 2 * 2 * 2
    first = made.timing[0]
    assert isinstance(first, TimingBlock)
    assert frame.iloc[1][["block", "arm", "item_id", "inter_token_s"]].tolist() == [0, "base", "item-0-1", first.inter_token_s[1]]
    assert np.isnan(frame.iloc[0]["inter_token_s"])


def test_the_accuracy_passes_seconds_say_that_other_rows_ran_beside(run: Run) -> None:
    assert answers_metric("latency_s") == "latency, throughput mode"
    assert answers_metric("output_tokens") == "output tokens"
    assert run.verdict is not None
    gate = dataclasses.replace(run.verdict.gates[0], metric="ttft_s", type="max_ratio")
    assert gated_metric(gate) == "time to first token"
    assert gated_metric(dataclasses.replace(gate, type="superiority")) == "time to first token, throughput mode"


def test_the_page_holds_the_probe_and_what_passes_cost(run: Run) -> None:
    made = probed(run, requests=3)
    focus = focus_on(made)
    assert focus is not None
    shown = {table.name for section in sections(made, focus, Cells(made.samples), {}) for table in section.tables}
    assert {"latency", "phases", "energy"} <= shown


# --- memory and energy


def test_a_pass_shows_all_that_was_measured_of_memory_and_energy(run: Run) -> None:
    table = phases(run)
    assert column(table, "process") == ["30.00\u00a0GiB"] * len(run.phases)
    assert column(table, "device") == ["31.00\u00a0GiB"] * len(run.phases)
    assert column(table, "energy, J") == ["5,000"] * len(run.phases)
    assert column(table, "J a right answer") == ["50.0"] * len(run.phases)
    assert "–" not in [text for title in ("allocated", "reserved", "host memory") for text in column(table, title)]
    assert set(run.frame("phases")["joules_per_correct"]) == {50.0}


def test_what_was_not_measured_is_a_dash_and_none_in_a_frame(run: Run) -> None:
    names = ("peak_vram_bytes", "peak_reserved_bytes", "peak_process_bytes", "peak_device_bytes", "peak_rss_bytes", "energy_j")
    unknown = tuple(dataclasses.replace(phase, **dict.fromkeys(names)) for phase in run.phases)
    blind = dataclasses.replace(run, phases=unknown)
    for title in ("allocated", "reserved", "process", "device", "host memory", "energy, J", "J a right answer"):
        assert set(column(phases(blind), title)) == {"–"}
    assert blind.frame("phases")[[*names, "joules_per_correct"]].isna().all(axis=None)
    assert cell_costs(blind)[["energy_j", "joules_per_correct"]].isna().all(axis=None)
    focus = focus_on(blind)
    assert focus is not None
    assert energy(blind, focus) is None


def test_a_pass_without_a_right_answer_has_no_joules_for_one(run: Run) -> None:
    none = dataclasses.replace(run, phases=tuple(dataclasses.replace(phase, correct=0) for phase in run.phases))
    assert set(column(phases(none), "J a right answer")) == {"–"}


def test_a_passs_energy_is_shared_out_by_output_tokens(run: Run) -> None:
    costs = cell_costs(run)
    assert len(costs) == len(run.cells)
    for _, cells in costs.groupby(["arm", "suite", "split"]):
        assert cells["energy_j"].sum() == pytest.approx(ENERGY_J)
        assert (cells["energy_j"] / cells["output_tokens"]).max() == pytest.approx((cells["energy_j"] / cells["output_tokens"]).min())
    some = costs[costs["correct"] > 0].iloc[0]
    assert some["joules_per_correct"] == pytest.approx(some["energy_j"] / some["correct"])
    assert costs[costs["correct"] == 0]["joules_per_correct"].isna().all()
    focus = focus_on(run)
    assert focus is not None
    assert len(column(energy(run, focus), "J a right answer")) == len(focus.compared) * len(focus.efforts)


def test_energy_of_passes_that_made_other_answers_is_nobodys(run: Run) -> None:
    """After a cell was asked anew, the passes on record made more than what is there."""
    first = run.phases[0]
    again = dataclasses.replace(run, phases=(dataclasses.replace(first, output_tokens=7), *run.phases))
    costs = cell_costs(again)
    unknown = costs["energy_j"].isna()
    assert set(costs[unknown][["arm", "split"]].itertuples(index=False, name=None)) == {(first.arm, first.split)}
