"""axe-core finds nothing serious on the report, the comparison of two runs and the history, in light, dark and at phone width.

axe-core is not part of this repository: `npm install axe-core` in the checkout, or EFFORTBENCH_AXE with the path of its axe.min.js.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser
from fabricated import fabricate_run

from bench.baseline import of_run
from bench.history import Line, Release, join_releases
from bench.records import VerdictName
from bench.report import write_comparison, write_history, write_report

VERDICTS: tuple[VerdictName, ...] = ("pass", "fail", "inconclusive", "invalid")
ROOT = Path(__file__).parent.parent
ASKED = "axe.run(document, {resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"


@pytest.fixture(scope="module")
def axe() -> str:
    path = Path(os.environ.get("EFFORTBENCH_AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
    if not path.is_file():
        pytest.skip("no axe-core here: npm install axe-core, or set EFFORTBENCH_AXE to its axe.min.js")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a name, written once and only where it is asked for."""
    root = tmp_path_factory.mktemp("pages")

    @functools.cache
    def write(name: str) -> Path:
        if name == "history":
            return write_history([two_releases()], ["something is left out"], root / name)
        if name == "empty history":
            return write_history([], [], root / name)
        verdicts: tuple[VerdictName, ...] = ("pass", "fail") if name == "compared" else tuple(one for one in VERDICTS if one == name)
        runs = [fabricate_run(root / f"{name}-{verdict}", verdict, 4, 40) for verdict in verdicts]
        for run in runs:
            run.folder.mkdir()
        return write_report(runs[0]) if len(runs) == 1 else write_comparison(runs[0], runs[1], root / name, (None, None))[0]

    return write


def two_releases() -> Line:
    """The second is worse, so that the page has a step."""
    releases = []
    for number, verdict in enumerate(("pass", "fail"), start=1):
        made = fabricate_run(Path("nowhere"), verdict, 2, 120, gpu=True)
        environment = dataclasses.replace(made.environment, started_at=f"2026-0{number}-01T00:00:00+00:00")
        release = of_run(dataclasses.replace(made, environment=environment, suite_revisions={"stories": "abc"}))
        assert not isinstance(release, str), release
        releases.append(Release(f"r{number}", "", release))
    line = join_releases(("embedded", "gpu", "stories", "gate"), releases)
    assert any(step.is_marked for made in line.steps for step in made.values())
    return line


def node_reasons(found: dict[str, Any]) -> list[str]:
    return [" ".join(node["failureSummary"].split())[:200] for node in found["nodes"][:4]]


@pytest.mark.parametrize("name", ["pass", "fail", "inconclusive", "invalid", "compared", "history", "empty history"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_nothing_serious_is_found(browser: Browser, axe: str, page_of: Callable[[str], Path], name: str, width: int, dark: bool) -> None:
    browser.open(page_of(name), width, dark)
    if "history" not in name:
        browser.wait("document.getElementById('answers').dataset.ready === 'yes' && !!document.querySelector('#answers-detail .reply')")
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.evaluate(axe + "; 0")
    found: list[dict[str, Any]] = browser.evaluate(f"{ASKED}.then((said) => said.violations)")
    serious = [
        {"id": one["id"], "impact": one["impact"], "where": [node["html"][:160] for node in one["nodes"][:4]], "why": node_reasons(one)}
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    print(json.dumps([(one["id"], one["impact"], len(one["nodes"])) for one in found]))
    assert serious == []
