"""Decode steps that are recorded and replayed, against transformers' generate: here the recording is a closure, on CUDA a graph."""

from __future__ import annotations

import pytest
import torch
from test_slots import CONFIGS, NEVER, forwards, tiny, tiny_rows, tokens

from bench.engines import Row, slot_cache
from bench.engines import graphs as graphs_module
from bench.engines.graphs import STEPS, GraphedSteps, Step
from bench.engines.plain import GenerateEngine
from bench.engines.slot_cache import SlotCache
from bench.engines.slots import SlotEngine


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


class Recorder:
    """Replays a step by running it again, and insists that the slots lie where they lay when it was recorded, as a graph does."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Step) -> Step:
        self.recorded += 1
        step()
        held = [cell.cell_contents for cell in step.__closure__ or ()]
        (cache,) = (each.cache for each in held if isinstance(each, GraphedSteps))
        places = self.places(cache)

        def replay() -> torch.Tensor:
            self.replayed += 1
            assert self.places(cache) == places
            return step()

        return replay

    @staticmethod
    def places(cache: SlotCache) -> list[int]:
        return [buffer.data_ptr() for pair in cache.layers.values() for buffer in pair]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("columns", [16, 256])
def test_replayed_steps_say_what_generate_says(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs_module, "COLUMNS", columns)
    rows, recorder = tiny_rows(20), Recorder()
    reference = tokens(GenerateEngine(tiny(name), NEVER), rows)
    for slots in (1, 6, 32):
        assert tokens(SlotEngine(tiny(name), NEVER, slots, recorder=lambda: recorder), rows) == reference
    assert recorder.replayed > 2 * recorder.recorded


def test_few_shapes_are_recorded_and_steps_are_as_wide() -> None:
    recorder = Recorder()
    with forwards(tiny("llama")) as seen:
        tokens(SlotEngine(tiny("llama"), NEVER, 12, recorder=lambda: recorder), [Row((1, 2, 3), limit) for limit in range(2, 14)])
    assert {rows for rows, queries in seen if queries == 1} == {1, 2, 4, 8, 12}
    assert recorder.recorded == 5


def test_what_was_recorded_is_thrown_away_where_slots_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_cache, "FIRST_COLUMNS", 8)
    recorder = Recorder()
    rows = [Row((1, 2, 3), 300)]
    assert tokens(SlotEngine(tiny("gpt-oss"), NEVER, 1, recorder=lambda: recorder), rows) == tokens(
        GenerateEngine(tiny("gpt-oss"), NEVER), rows
    )
    assert recorder.recorded == 2  # below 256 columns, and above


def test_slots_grow_once_for_a_width() -> None:
    cache = SlotCache(2)
    cache.begin(0, torch.tensor([0, 0]), 1, 1)
    new = torch.ones(2, 1, 1, 4)
    cache.extend(0, new, new, None)
    cache.extend(1, new, new, 8)
    assert not cache.reserve(slot_cache.FIRST_COLUMNS), "there is room for so many from the start"
    assert cache.reserve(1000)
    assert not cache.reserve(1000)
    assert [cache.layers[layer][0].shape[2] for layer in (0, 1)] == [1001, 9]


def test_rows_that_sample_draw_alike_whether_steps_come_one_by_one_or_several_on_end() -> None:
    rows = [Row((1, 2, 3), 5 + number, 2.0 * (number % 3), number) for number in range(11)]
    alone = tokens(SlotEngine(tiny("llama"), NEVER, 4), rows)
    assert tokens(SlotEngine(tiny("llama"), NEVER, 4, recorder=Recorder), rows) == alone


def test_a_row_that_stops_within_steps_on_end_keeps_nothing_behind_its_stop() -> None:
    (free,) = SlotEngine(tiny("llama"), NEVER, 1).generate([Row((1, 2, 3), 12)])
    for place in range(12):
        stop = frozenset({free.tokens[place]})
        end = free.tokens.index(free.tokens[place]) + 1
        (done,) = SlotEngine(tiny("llama"), stop, 1, recorder=Recorder).generate([Row((1, 2, 3), 12)])
        assert (done.tokens, done.stop_reason) == (free.tokens[:end], "stop")


def test_no_step_is_run_beyond_a_rows_limit() -> None:
    recorder = Recorder()
    with forwards(tiny("llama")) as seen:
        tokens(SlotEngine(tiny("llama"), NEVER, 1, recorder=lambda: recorder), [Row((1, 2, 3), 2 + 2 * STEPS)])
    assert (recorder.recorded, recorder.replayed) == (1, 1 + 2 * STEPS)
    assert len(seen) == 1 + 1 + recorder.replayed  # the prompt, and the run that recording takes
