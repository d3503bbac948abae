"""axe-core finds nothing serious on the report, the comparison of two runs and the history, in light, dark and at phone width.

axe-core is not part of this repository: `npm install axe-core` in the checkout, or EFFORTBENCH_AXE with the path of its axe.min.js.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser
from fabricated import fabricate_run

from bench.report import write_comparison, write_history, write_report

ROOT = Path(__file__).parent.parent
ASKED = "axe.run(document, {resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"


@pytest.fixture(scope="module")
def axe() -> str:
    path = Path(os.environ.get("EFFORTBENCH_AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
    if not path.is_file():
        pytest.skip("no axe-core here: npm install axe-core, or set EFFORTBENCH_AXE to its axe.min.js")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    runs = [fabricate_run(root / verdict, verdict, 4, 40) for verdict in ("pass", "invalid")]
    for run in runs:
        run.folder.mkdir()
    return {
        "pass": write_report(runs[0]),
        "invalid": write_report(runs[1]),
        "compared": write_comparison(*runs, root / "compared", ("base", "base"))[0],
        "history": write_history([], ["something is left out"], root / "history"),
    }


def node_reasons(found: dict[str, Any]) -> list[str]:
    return [" ".join(node["failureSummary"].split())[:200] for node in found["nodes"][:4]]


@pytest.mark.parametrize("name", ["pass", "invalid", "compared", "history"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_nothing_serious_is_found(browser: Browser, axe: str, pages: dict[str, Path], name: str, width: int, dark: bool) -> None:
    browser.open(pages[name], width, dark)
    if name != "history":
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
