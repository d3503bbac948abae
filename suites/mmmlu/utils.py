"""MMMLU rows from a local folder or the hub, and the letter in a reply. Named by the YAML files beside it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.answers import extract_choice
from bench.errors import SuiteError

HUB_ID = "openai/MMMLU"
LOCALES = {
    "ar": ("AR-XY",),
    "bn": ("BN-BD",),
    "de": ("DE-DE",),
    "es": ("ES-LA",),
    "fr": ("FR-FR",),
    "hi": ("HI-IN",),
    "id": ("ID-ID",),
    "it": ("IT-IT",),
    "ja": ("JA-JP",),
    "ko": ("KO-KR",),
    "pt": ("PT-BR",),
    "sw": ("SW-KE",),
    "yo": ("YO-NG",),
    "zh": ("ZH-CN", "ZN-CN"),  # the hub's own card has misspelt it
}
COLUMNS = {"Question": "question", "A": "a", "B": "b", "C": "c", "D": "d", "Answer": "target", "Subject": "subject"}
INVALID = "[invalid]"
"""Stands for "no letter found", as in lm-eval's own filters; no target equals it."""


def load(
    language: str,
    data: Mapping[str, str | os.PathLike[str]] | None = None,
    subset: int | None = None,
    revision: str | None = None,
    **_metadata: Any,
) -> dict[str, Any]:
    """The test split of one language, or its first `subset` rows of every subject. Called by lm-eval.

    `data` is {"mmmlu": FOLDER}; without it EFFORTBENCH_DATA/mmmlu is read, then the hub at `revision`. Raises SuiteError.
    """
    from datasets import Dataset

    if subset is not None and (not isinstance(subset, int) or subset < 1):
        raise SuiteError(f"evaluate.options.mmmlu.subset must be a number of rows above 0, found {subset!r}")
    path = _find(language, (data or {}).get("mmmlu"), revision)
    rows = [{"item_id": f"mmmlu-{number}", "language": language, **row} for number, row in enumerate(_read(path))]
    return {"test": Dataset.from_list(rows if subset is None else _first_of_each(rows, subset))}


def final_letter(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """The letter in each reply; INVALID where there is none. A filter of lm-eval."""
    return [[extract_choice(reply, doc["language"]) or INVALID for reply in replies] for replies, doc in zip(resps, docs, strict=True)]


def _read(path: Path) -> list[dict[str, str]]:
    import pandas as pd

    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table[list(COLUMNS)].rename(columns=COLUMNS).astype(str)
    except (KeyError, ValueError, OSError) as error:
        raise SuiteError(f"{path}: expected columns {', '.join(COLUMNS)} ({' '.join(str(error).split())[:160]})") from error
    strange = ~table["target"].isin(list("ABCD"))
    if strange.any() or table.empty:
        found = f"row {int(strange.idxmax())} has answer {table['target'][strange].iloc[0]!r}" if strange.any() else "no rows"
        raise SuiteError(f"{path}: expected rows with an answer A, B, C or D; {found}")
    return [{str(name): str(value) for name, value in row.items()} for row in table.to_dict("records")]


def _first_of_each(rows: list[dict[str, str]], subset: int) -> list[dict[str, str]]:
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row["subject"]] += 1
        if seen[row["subject"]] <= subset:
            kept.append(row)
    return kept


def _find(language: str, folder: str | os.PathLike[str] | None, revision: str | None) -> Path:
    names = [f"mmmlu_{language}.csv", f"mmmlu_{language}.parquet"]
    shared = os.environ.get("EFFORTBENCH_DATA")
    place = Path(folder) if folder is not None else Path(shared) / "mmmlu" if shared else None
    found = [place / name for name in names if (place / name).is_file()] if place else []
    if found:
        return found[0]
    if folder is not None:
        raise SuiteError(
            f"no {' or '.join(names)} in {folder}: put it there, or leave out evaluate.data.mmmlu to take {HUB_ID} from the hub"
        )
    return _download(language, revision)


def _download(language: str, revision: str | None) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    causes = []
    for locale in LOCALES[language]:
        try:
            return Path(hf_hub_download(HUB_ID, f"test/mmlu_{locale}.csv", repo_type="dataset", revision=revision))
        except (OSError, EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError) as error:
            causes.append(error)
    raise SuiteError(
        f"no mmmlu_{language}.csv: give a folder with it (evaluate.data.mmmlu, or EFFORTBENCH_DATA with a folder mmmlu), "
        f"or let {HUB_ID} be reached on the hub ({type(causes[0]).__name__})"
    ) from causes[0]
