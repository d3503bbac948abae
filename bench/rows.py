"""A suite's rows of one language: a file of a local folder, else of the hub at a pinned commit. Read by the suites' own loaders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.answers import extract_choice
from bench.catalog import Hub, Suite, find_suite
from bench.errors import SuiteError

if TYPE_CHECKING:
    import pandas as pd

Folder = str | os.PathLike[str]


INVALID = "[invalid]"
"""Stands for "no answer found", as in lm-eval's own filters; no target equals it."""


def suite_of(loader: str) -> Suite:
    """The suite whose folder holds a loader, by its `__file__`; that loader is running already."""
    return find_suite(str(Path(loader).parent), is_trusted=True)


def find_file(loader: str, language: str, data: Mapping[str, Folder] | None, options: Mapping[str, object]) -> Path:
    """The language's file for the suite that holds a loader: a local one, else the hub's. Raises SuiteError."""
    suite = suite_of(loader)
    return local_file(suite, language, data) or download(suite, language, options)


def final_letter(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """The letter in each reply, one of the question's `letters` (A to D where it names none); INVALID where there is none.

    A filter of lm-eval, for the suites of multiple choice.
    """
    return [
        [extract_choice(reply, doc["language"], doc.get("letters", "ABCD")) or INVALID for reply in replies]
        for replies, doc in zip(resps, docs, strict=True)
    ]


def local_file(suite: Suite, language: str, data: Mapping[str, Folder] | None) -> Path | None:
    """The language's file in the experiment's folder, else in EFFORTBENCH_DATA/<suite>; None leaves it to the hub.

    Raises SuiteError where the experiment names a folder that lacks it.
    """
    given = (data or {}).get(suite.name)
    shared = os.environ.get("EFFORTBENCH_DATA")
    folder = Path(given) if given is not None else Path(shared) / suite.name if shared else None
    found = suite.find_local(folder, language) if folder else None
    if found is None and given is not None:
        raise SuiteError(
            f"no {_names(suite, language)} in {given}: put it there, or leave out evaluate.data.{suite.name} to take "
            f"{suite.hub.id if suite.hub else 'it'} from the hub"
        )
    return found


def download(suite: Suite, language: str, options: Mapping[str, object]) -> Path:
    """The language's file from the hub, at the commit that the suite or its option `revision` names. Raises SuiteError."""
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    hub = suite.find_hub(options)
    assert hub is not None, "only a suite without rows of its own has a loader that downloads"
    try:
        return Path(hf_hub_download(hub.id, hub.file_of(language), repo_type="dataset", revision=hub.revision))
    except (OSError, HfHubHTTPError, httpx.HTTPError) as error:
        raise SuiteError(
            f"no {_names(suite, language)}: give a folder with it (evaluate.data.{suite.name}, or EFFORTBENCH_DATA with a folder "
            f"{suite.name}), or let {hub.id} be reached on the hub ({type(error).__name__})"
        ) from error


def is_cached(hub: Hub, language: str) -> bool:
    """Whether an earlier run has downloaded the language's file at this commit."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub.id, hub.file_of(language), repo_type="dataset", revision=hub.revision), str)


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of a .csv, .jsonl or .parquet file with these columns, all text; None in an optional one. Raises SuiteError."""
    import pandas as pd

    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        elif path.suffix == ".jsonl":
            table = pd.read_json(path, lines=True, dtype=False)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table[[*columns, *(name for name in optional if name in table)]].astype(object)
    except (KeyError, ValueError, OSError) as error:
        raise SuiteError(f"{path}: expected columns {', '.join(columns)} ({' '.join(str(error).split())[:160]})") from error
    if table.empty:
        raise SuiteError(f"{path}: expected rows; no rows")
    if table[list(columns)].isna().any(axis=None):
        raise SuiteError(f"{path}: expected a value in every column of {', '.join(columns)}; found an empty one")
    return table.where(table.isna(), table.astype(str)).where(table.notna(), None)


def check_answers(path: Path, answers: pd.Series, allowed: Sequence[str]) -> None:
    """Raise SuiteError on the first answer that is none of those allowed."""
    strange = ~answers.isin(list(allowed))
    if strange.any():
        named = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        raise SuiteError(
            f"{path}: expected rows with an answer {named}; row {int(strange.argmax())} has answer {answers[strange].iloc[0]!r}"
        )


def first_of_each(rows: Sequence[dict[str, Any]], key: str, count: object, option: str) -> list[dict[str, Any]]:
    """The first `count` rows of every value of a key; all where it is None. Raises SuiteError naming the option."""
    if count is None:
        return list(rows)
    if not isinstance(count, int) or count < 1:
        raise SuiteError(f"evaluate.options.{option} must be a number of rows above 0, found {count!r}")
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row[key]] += 1
        if seen[row[key]] <= count:
            kept.append(row)
    return kept


def _names(suite: Suite, language: str) -> str:
    name = suite.local_file(language)
    return " or ".join([name, *(str(Path(name).with_suffix(ending)) for ending in suite.local_formats)])
