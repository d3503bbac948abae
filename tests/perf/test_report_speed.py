"""The report over many samples. Run it with `pytest -m bench tests/perf/test_report_speed.py`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pandas as pd
import pytest
from fabricated import fabricate_run

from bench.records import Run
from bench.report import write_report

pytestmark = pytest.mark.bench

COPIES = 10


def seconds(run: Run) -> float:
    started = time.perf_counter()
    write_report(run)
    return time.perf_counter() - started


def test_ten_times_the_samples_take_less_than_ten_times_as_long(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path)
    seconds(run)  # fonts and imports
    copies = [run.samples.assign(item_id=run.samples["item_id"] + f"/{copy}") for copy in range(COPIES)]
    large = dataclasses.replace(run, samples=pd.concat(copies, ignore_index=True))
    assert seconds(large) < COPIES * seconds(run)
