"""Our scores beside those of lm-eval's own command line and of simple-evals' scorer, item by item.

    python tests/parity.py cli [--limit N] [--efforts low,medium,high] [--batch N]     # the embedded model, asked by both
    python tests/parity.py recorded                                                    # the completions in tests/data

Both print the Markdown tables of docs/parity.md. `cli` needs EFFORTBENCH_DATA for MGSM.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes import FakeEngine

from bench.catalog import find_suite
from bench.engines import Engine
from bench.experiment import Evaluate
from bench.lm import INVALID, Ask, Listener, run_pass
from bench.models import EMBEDDED, load_checked, load_tokenizer
from bench.records import Sample

ROOT = Path(__file__).parents[1]
RECORDED = Path(__file__).parent / "data" / "mgsm_completions.jsonl"
LIMITS = {"low": 48, "medium": 160, "high": 256}


@dataclass(frozen=True)
class Place:
    """A task that both sides ask: lm-eval by its name or file, we as a language of a suite."""

    task: str
    """What lm-eval's command line calls it."""
    suite: str
    split: str
    language: str


@dataclass(frozen=True)
class Pair:
    """One answer, scored by both."""

    task: str
    effort: str
    item: str
    outcome: str
    ours: tuple[float, str | None]
    """Score and what was read."""
    theirs: tuple[float, str | None]
    text: str
    """What lm-eval scored."""

    @property
    def reason(self) -> str | None:
        """Why the two differ; None where they do not, or where nobody knows."""
        if self.ours == self.theirs:
            return None
        if self.outcome == "truncated":
            return "lm-eval reads an unfinished reply: half a thought, or half an answer"
        if self.outcome == "malformed":
            return "lm-eval reads a reply that stopped without a final channel"
        return None

    @property
    def is_unexplained(self) -> bool:
        """Whether they differ for no reason we know."""
        return self.ours != self.theirs and self.reason is None


def write_custom_task(folder: Path, rows: int = 40) -> Path:
    """An exact-match task that is nobody's suite: its own rows, lm-eval's regex filter, a stop string."""
    data = folder / "sums.jsonl"
    lines = [{"question": f"{a} + {b} = ?", "answer": str(a + b)} for a, b in ((3 + i, 2 + (7 * i) % 11) for i in range(rows))]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    path = folder / "sums.yaml"
    path.write_text(
        f"""task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: generate_until
description: "reasoning language: English"
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{do_sample: false, until: ["\\n\\n"]}}
filter_list:
  - name: last-number
    filter:
      - {{function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
""",
        encoding="utf-8",
    )
    return path


def ask_us(engine: Engine, place: Place, efforts: Sequence[str], limit: int | None, **changes: Any) -> list[Sample]:
    """Our samples of one place."""
    samples: list[Sample] = []
    asked = {"suites": [place.suite], "efforts": list(efforts), "max_new_tokens": LIMITS, **changes}
    ask = Ask("base", find_suite(place.suite), place.split, (place.language,), Evaluate(**asked), limit)
    run_pass(ask, engine, load_tokenizer(EMBEDDED), {}, Listener(lambda _: None, lambda *_: None, samples.append))
    return samples


def ask_lm_eval(places: Sequence[Place], effort: str, limit: int | None, batch: int) -> dict[tuple[str, str], dict[str, Any]]:
    """What `lm_eval run --log_samples` wrote, by task and document, of each task's first filter; greedy, on the embedded model."""
    tokenizer = load_tokenizer(EMBEDDED)
    arguments = {
        "pretrained": str(EMBEDDED),
        "dtype": "float32",
        "chat_template_args": {"reasoning_effort": effort},
        "think_end_token": tokenizer.convert_tokens_to_ids("<|message|>"),
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", json.dumps(arguments)]
        command += ["--tasks", *(place.task for place in places), "--include_path", str(ROOT / "suites")]
        command += ["--apply_chat_template", "--gen_kwargs", f"max_gen_toks={LIMITS[effort]}", "--batch_size", str(batch)]
        command += ["--device", "cpu", "--log_samples", "--output_path", folder]
        command += ["--limit", str(limit)] if limit else []
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(f"lm_eval ended with {ran.returncode}: {ran.stderr[-2000:]}")
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for place in places:
            name = Path(place.task).stem
            (path,) = Path(folder).rglob(f"samples_{name}_2*.jsonl")
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                found.setdefault((name, str(row["doc"].get("item_id", row["doc_id"]))), row)
    return found


def pair_up(place: Place, effort: str, ours: Sequence[Sample], theirs: dict[tuple[str, str], dict[str, Any]]) -> list[Pair]:
    """The same items of both. Raises ValueError where one side lacks some."""
    name = Path(place.task).stem
    here = {sample.item_id: sample for sample in ours if sample.effort == effort}
    there = {item: row for (task, item), row in theirs.items() if task == name}
    if here.keys() != there.keys():
        raise ValueError(f"{name}: other items: {sorted(here.keys() ^ there.keys())}")
    pairs = []
    for item, sample in here.items():
        row = there[item]
        (read,) = row["filtered_resps"]
        answer = None if read in ("", INVALID) else read
        score = (sample.score if sample.score is not None else float("nan"), sample.answer)
        text = str(row["resps"][0][0])
        pairs.append(Pair(name, effort, item, sample.outcome, score, (float(row["exact_match"]), answer), text))
    return pairs


def compare_with_cli(limit: int | None, efforts: Sequence[str], batch: int, with_mgsm: bool) -> list[Pair]:
    """Every item of every task at every effort, asked by both on the embedded model."""
    import torch

    from bench.engines.slots import SlotEngine
    from bench.harmony import find_specials

    torch.set_num_threads(1)
    specials = find_specials(load_tokenizer(EMBEDDED))
    engine = SlotEngine(load_checked(EMBEDDED, "float32").eval(), specials.stop_ids, 32)
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        custom = str(write_custom_task(Path(folder)))
        places = [Place("stories_de", "stories", "dev", "de"), Place(custom, custom, "test", "en")]
        places += [Place(f"mgsm_{code}", "mgsm", "test", code) for code in ("bn", "de")] if with_mgsm else []
        ours = {place: ask_us(engine, place, efforts, limit) for place in places}
        for effort in efforts:
            theirs = ask_lm_eval(places, effort, limit, batch)
            for place in places:
                pairs += pair_up(place, effort, ours[place], theirs)
    return pairs


# --- recorded completions


@dataclass(frozen=True)
class Recorded:
    """One recorded completion and what each scorer makes of it."""

    row: dict[str, Any]
    right: dict[str, bool]
    read: dict[str, str | None]


def score_recorded() -> list[Recorded]:
    """Each recorded completion through the whole adapter, under our scorer, simple-evals' and the two of lm-eval's own MGSM task."""
    rows = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    found: dict[int, Recorded] = {row["item"]: Recorded(row, {}, {}) for row in rows}
    for scorer, language, sample, item in _scored(rows):
        assert sample.language == language or scorer in ("strict-match", "flexible-extract")
        found[item].right[scorer] = sample.score == 1
        found[item].read[scorer] = sample.answer
    return list(found.values())


def _scored(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, Sample, int]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for language in dict.fromkeys(row["language"] for row in rows):
            mine = [row for row in rows if row["language"] == language]
            (folder / f"mgsm_{language}.tsv").write_text("".join(f"Q{row['item']}\t{row['target']}\n" for row in mine), encoding="utf-8")
            for scorer in ("answer", "simple-evals"):
                place = Place("", "mgsm", "test", language)
                samples = _replay(mine, place, data={"mgsm": folder}, scorer={"mgsm": scorer})
                yield from ((scorer, language, sample, mine[int(sample.item_id.rpartition("-")[2])]["item"]) for sample in samples)
            theirs = folder / language
            theirs.mkdir()
            docs = [{"question": f"Q{row['item']}", "answer": None, "answer_number": int(row["target"])} for row in mine]
            for split in ("train", "test"):
                (theirs / f"{split}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
            suite = f"lm-eval:mgsm_native_cot_{language}"
            for scorer in ("strict-match", "flexible-extract"):
                samples = _replay(mine, Place("", suite, "test", "en"), data={suite: theirs}, scorer={suite: scorer})
                yield from ((scorer, language, sample, mine[int(sample.item_id)]["item"]) for sample in samples)


def replay_in_lm_eval(rows: Sequence[dict[str, Any]], folder: Path) -> list[Pair]:
    """Recorded completions of one language, scored by lm-eval itself as its hf model would hand them over, and by us.

    With think_end_token at `<|message|>` that model drops what stands before the last one, and special tokens everywhere.
    """
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    tokenizer = load_tokenizer(EMBEDDED)
    language = rows[0]["language"]
    texts = [_without_specials(row["completion"].rpartition("<|message|>")[2], tokenizer) for row in rows]

    class Replay(LM):
        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            return [texts[request.doc_id] for request in requests]

        def loglikelihood(self, requests: list[Any], **_: Any) -> Any:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    (folder / f"mgsm_{language}.tsv").write_text("".join(f"Q{row['item']}\t{row['target']}\n" for row in rows), encoding="utf-8")
    manager = TaskManager(include_path=str(ROOT / "suites" / "mgsm"), include_defaults=False, metadata={"data": {"mgsm": str(folder)}})
    made = simple_evaluate(Replay(), tasks=[f"mgsm_{language}"], task_manager=manager, bootstrap_iters=0, log_samples=True)
    theirs = {(f"mgsm_{language}", row["doc"]["item_id"]): row for row in made["samples"][f"mgsm_{language}"] if row["filter"] == "answer"}
    place = Place(f"mgsm_{language}", "mgsm", "test", language)
    return pair_up(place, "high", _replay(rows, place, data={"mgsm": folder}), theirs)


def _without_specials(text: str, tokenizer: Any) -> str:
    return str(tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True))


def recorded_by_language() -> Iterator[list[dict[str, Any]]]:
    """The recorded completions, language by language."""
    rows = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    for language in dict.fromkeys(row["language"] for row in rows):
        yield [row for row in rows if row["language"] == language]


def replay_all() -> list[Pair]:
    """All recorded completions, as lm-eval and as we score them."""
    pairs = []
    for rows in recorded_by_language():
        with tempfile.TemporaryDirectory() as folder:
            pairs += replay_in_lm_eval(rows, Path(folder))
    return pairs


def _replay(rows: Sequence[dict[str, Any]], place: Place, **changes: Any) -> list[Sample]:
    engine = FakeEngine(load_tokenizer(EMBEDDED), [row["completion"] for row in rows])
    return ask_us(engine, place, ["high"], None, max_new_tokens={"high": 2048}, **changes)


# --- tables


def cli_table(pairs: Sequence[Pair]) -> str:
    """One row a task and effort."""
    lines = ["| task | effort | items | ours | lm-eval | equal | differ, with the reason | differ, unexplained |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for task, effort in dict.fromkeys((pair.task, pair.effort) for pair in pairs):
        here = [pair for pair in pairs if (pair.task, pair.effort) == (task, effort)]
        means = [f"{sum(scores) / len(here):.1%}" for scores in ([p.ours[0] for p in here], [p.theirs[0] for p in here])]
        equal, unexplained = sum(p.ours == p.theirs for p in here), sum(p.is_unexplained for p in here)
        lines.append(
            f"| {task} | {effort} | {len(here)} | {' | '.join(means)} | {equal} | {len(here) - equal - unexplained} | {unexplained} |"
        )
    return "\n".join(lines)


def differing_items(pairs: Sequence[Pair]) -> str:
    """Every item whose score or extracted answer differs, with the reason."""
    lines = ["| task, effort, item | ours | lm-eval | reason |", "|---|---|---|---|"]
    for pair in pairs:
        if pair.ours != pair.theirs:
            where = f"{pair.task}, {pair.effort}, {pair.item}"
            lines.append(f"| {where} | {pair.outcome} | read {pair.theirs[1]}, {pair.theirs[0]:g} | {pair.reason or 'UNEXPLAINED'} |")
    return "\n".join(lines)


def recorded_table(found: Sequence[Recorded]) -> str:
    """Agreement of each scorer with the labels, and its accuracy."""
    lines = ["| scorer | scored right | agrees with the label | right answers lost | wrong answers passed |", "|---|---|---|---|---|"]
    for scorer in ("answer", "simple-evals", "strict-match", "flexible-extract"):
        right = [one.right[scorer] for one in found]
        labels = [one.row["right"] for one in found]
        agree = sum(a == b for a, b in zip(right, labels, strict=True))
        lost = sum(b and not a for a, b in zip(right, labels, strict=True))
        passed = sum(a and not b for a, b in zip(right, labels, strict=True))
        lines.append(f"| `{scorer}` | {sum(right)} | {agree} of {len(found)} | {lost} | {passed} |")
    return "\n".join(lines)


def disagreements(found: Sequence[Recorded]) -> str:
    """Every completion on which simple-evals' scorer and ours differ."""
    lines = ["| item | language | what it is | label | ours reads | simple-evals reads |", "|---|---|---|---|---|---|"]
    for one in found:
        if one.right["answer"] != one.right["simple-evals"]:
            label = "right" if one.row["right"] else "wrong"
            read = [f"{value}" if (value := one.read[scorer]) is not None else "nothing" for scorer in ("answer", "simple-evals")]
            lines.append(f"| {one.row['item']} | {one.row['language']} | {one.row['about']} | {label} | {' | '.join(read)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["cli", "recorded"])
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--efforts", default="low,medium,high")
    parser.add_argument("--batch", type=int, default=1)
    asked = parser.parse_args()
    if asked.what == "recorded":
        found = score_recorded()
        pairs = replay_all()
        print(recorded_table(found), disagreements(found), cli_table(pairs), differing_items(pairs), sep="\n\n")
        return
    pairs = compare_with_cli(asked.limit, asked.efforts.split(","), asked.batch, "EFFORTBENCH_DATA" in os.environ)
    print(cli_table(pairs), differing_items(pairs), sep="\n\n")


if __name__ == "__main__":
    main()
