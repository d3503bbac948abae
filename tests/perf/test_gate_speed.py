"""The gate over two large runs: seconds and memory. Run it with `pytest -m bench tests/perf/test_gate_speed.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

MOST_SECONDS = 20
MOST_BYTES = 2 * 2**30

RECORD = """
    import sys, json, dataclasses
    from pathlib import Path
    import numpy as np, pandas as pd
    from fabricated import fabricate_environment, fabricate_experiment
    from bench.records import CellRecord, Sample
    from bench.store import SAMPLE_FIELDS

    EFFORTS, LANGUAGES, ITEMS, SAMPLES = ["low", "medium", "high"], [f"l{n:02d}" for n in range(11)], 250, 2
    ARMS = ["base", "ours", *[f"other{n:02d}" for n in range(18)]]
    axes = np.indices((len(ARMS), len(LANGUAGES), len(EFFORTS), ITEMS, SAMPLES)).reshape(5, -1)
    arm, language, effort, item, index = axes
    item_id, rng = np.array([f"i{n:04d}" for n in range(ITEMS)])[item], np.random.default_rng(int(sys.argv[2]))
    score = (rng.random(arm.size) < 0.8).astype(float)
    frame = pd.DataFrame({
        "arm": np.array(ARMS)[arm], "suite": "stories", "split": "gate", "language": np.array(LANGUAGES)[language],
        "effort": np.array(EFFORTS)[effort], "item_id": item_id, "sample_index": index, "seed": 1.0,
        "outcome": np.where(score == 1, "correct", "wrong"), "score": score, "answer": "42", "target": "42", "prompt_tokens": 60,
        "reasoning_tokens": 80.0, "final_tokens": 5.0, "output_tokens": 90.0 + rng.integers(0, 9, arm.size), "stop_reason": "stop",
        "latency_s": 0.5, "ttft_s": 0.1, "asked_reasoning_language": np.array(LANGUAGES)[language],
        "reasoning_language": np.array(LANGUAGES)[language], "final_language": None,
        "prompt_hash": item_id, "completion": "word " * 40, "error": None,
    })[SAMPLE_FIELDS]
    folder = Path(sys.argv[1])
    folder.mkdir()
    frame.to_parquet(folder / "samples.parquet", index=False)
    asked = fabricate_experiment().model_dump(mode="json") | {
        "finetune": None, "select": None, "adapters": [{"name": "ours", "path": "ours"}],
        "gates": [{"name": f"{against}-{effort}", "metric": "accuracy", "effort": effort, "margin": 0.05, "against": against}
                  for against in ("base", "baseline") for effort in EFFORTS],
    }
    cells = frame.groupby(["arm", "suite", "split", "language", "effort"]).size()
    environment = dataclasses.asdict(fabricate_environment()) | {"started_at": sys.argv[2]}
    state = {
        "schema": 1, "finished": True, "command": "", "experiment": asked, "environment": environment, "failed_arms": {},
        "selection": None, "suite_revisions": {"stories": "abc"}, "phases": [], "comparisons": [],
        "cells": [dataclasses.asdict(CellRecord(*cell, key="k", samples=int(n), file="x")) for cell, n in cells.items()],
    }
    (folder / "run.json").write_text(json.dumps(state))
"""
GATE = """
    import json, resource, sys
    from bench import cli
    sys.argv = ["effortbench", "gate", "new", "--baseline", "old"]
    try:
        cli.main()
    except SystemExit as ended:
        print(json.dumps([ended.code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]), file=sys.stderr)
"""


def python(script: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n{textwrap.dedent(script)}"]
    return subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, check=True).stderr


def test_six_gates_over_two_runs_of_330_000_samples(tmp_path: Path) -> None:
    """20 arms x 11 languages x 3 efforts x 250 items x 2 samples, read from their folders."""
    for number, name in enumerate(("old", "new")):
        python(RECORD, name, str(number), cwd=tmp_path)
    started = time.perf_counter()
    code, peak = json.loads(python(GATE, cwd=tmp_path).splitlines()[-1])
    seconds = time.perf_counter() - started
    print(f"{seconds:.1f} s, {peak / 2**30:.2f} GiB")
    verdict = json.loads((tmp_path / "new" / "verdict.json").read_text(encoding="utf-8"))
    assert (code, verdict["verdict"], [gate["clusters"] for gate in verdict["gates"]]) == (0, "pass", [250] * 6)
    assert seconds <= MOST_SECONDS
    assert peak <= MOST_BYTES
