"""A real run behind closed doors: it connects to nothing, tells nobody, and writes down no key of its environment."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import zlib
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.catalog import SUITES
from bench.executors import QUIET

pytestmark = pytest.mark.slow

SECRETS = {
    "HF_TOKEN": "hf_FakeTokenOfATest0123456789",
    "OPENAI_API_KEY": "sk-FakeKeyOfATest0123456789",
    "WANDB_API_KEY": "fa4e0123456789abcdef0123456789abcdef0123",
    "HTTPS_PROXY": "http://somebody:FakePasswordOfATest@proxy.invalid:3128",
    "HTTP_PROXY": "http://somebody:FakePasswordOfATest@proxy.invalid:3128",
}
LEAKS = ("FakeTokenOfATest", "FakeKeyOfATest", "fa4e0123456789abcdef", "FakePasswordOfATest")

DOORKEEPER = """
import json, os, socket, sys

WITNESS = os.environ["EFFORTBENCH_TEST_WITNESS"]

def tell(**what):
    line = json.dumps({"process": os.getpid(), "argv": sys.orig_argv[1:4], **what}) + "\\n"
    descriptor = os.open(WITNESS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)

def guard(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        tell(event=event, address=repr(arguments[0]))
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family != socket.AF_UNIX:
        tell(event=event, address=repr(arguments[-1]))
    else:
        return
    raise OSError("this test forbids connections")

sys.addaudithook(guard)
tell(event="started", environment={name: os.environ.get(name) for name in os.environ["EFFORTBENCH_TEST_NAMES"].split()})
"""
"""What every Python process of the run does before anything else: `sitecustomize`, inherited by PYTHONPATH."""


@dataclass(frozen=True)
class Sealed:
    """A run that was made behind closed doors."""

    kind: str
    folder: Path
    code: int
    said: str
    """Standard output and error together."""
    witnessed: list[dict[str, object]]
    """What the doorkeepers of all its processes saw."""

    @property
    def workers(self) -> list[dict[str, object]]:
        return [seen for seen in self.witnessed if seen["event"] == "started" and seen["argv"] == ["-m", "bench.worker"]]

    @property
    def connections(self) -> list[dict[str, object]]:
        return [seen for seen in self.witnessed if seen["event"] != "started"]


def behind_doors(folder: Path) -> dict[str, str]:
    """An environment with fake keys and offline mode, where every connection of a Python process is refused and witnessed."""
    (folder / "doorkeeper").mkdir(parents=True)
    (folder / "doorkeeper" / "sitecustomize.py").write_text(DOORKEEPER, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(folder / "doorkeeper"), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        **SECRETS,
        "PYTHONPATH": path,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "EFFORTBENCH_TEST_WITNESS": str(folder / "witness"),
        "EFFORTBENCH_TEST_NAMES": " ".join(QUIET),
    }


def seen_in(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "witness").read_text(encoding="utf-8").splitlines()]


def sealed(kind: str, folder: Path, command: list[str], experiment: dict[str, object]) -> Sealed:
    """Run effortbench on an experiment."""
    (folder / "tiny.yaml").write_text(json.dumps(experiment), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "bench", *command, "--out", "run"],
        cwd=folder,
        env=behind_doors(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    return Sealed(kind, folder / "run", done.returncode, done.stdout, seen_in(folder))


def asked(**changes: object) -> dict[str, object]:
    evaluate = {"suites": ["stories"], "languages": ["en"], "efforts": ["low"], "max_new_tokens": {"low": 24}, "slots": 2}
    return {
        "name": "tiny",
        "model": {"id": "embedded", "load_in_4bit": False, "dtype": "float32"},
        "evaluate": {**evaluate, **changes},
    }


def whole() -> dict[str, object]:
    """Training with Unsloth and with plain TRL, selection, gates: all that a run does."""
    finetune = {"method": ["unsloth", "trl"], "dataset": {"id": "rows.jsonl"}, "ranks": [2], "steps": [1], "targets": "attention"}
    finetune |= {"held_out_rows": 2, "gradient_accumulation": 1, "gradient_checkpointing": False}
    return {
        **asked(),
        "finetune": finetune,
        "select": {"suite": "stories", "split": "select", "effort": "low", "subject_to": {"accuracy_drop": 1}},
        "confirm": {"suite": "stories", "split": "dev"},
        "gates": [{"name": "accuracy", "metric": "accuracy", "effort": "low", "margin": 0.5}],
    }


BASE, WHOLE, CRASH = "base alone", "training, gates and report", "an error in the worker"


@pytest.fixture(scope="module", params=[BASE, pytest.param(WHOLE, marks=pytest.mark.faults), CRASH])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    kind, folder = request.param, tmp_path_factory.mktemp("sealed")
    if kind == BASE:
        return sealed(kind, folder, ["run", "tiny.yaml", "--limit", "1"], asked())
    if kind == CRASH:
        suite = write_leaking_suite(folder)
        return sealed(kind, folder, ["run", "tiny.yaml", "--limit", "1"], asked(suites=[str(suite)], languages="all"))
    rows = (SUITES / "stories" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:6]
    (folder / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    return sealed(kind, folder, ["bench", "tiny.yaml", "--limit", "2"], whole())


LEAKING = """
import os, sys
def load(**_):
    print(dict(os.environ), file=sys.stderr, flush=True)
    raise RuntimeError(f"refused: {os.environ['HF_TOKEN']} by {os.environ['HTTPS_PROXY']}")
"""


def write_leaking_suite(folder: Path) -> Path:
    """A suite whose code puts keys into its output and its error."""
    suite = folder / "leaking"
    suite.mkdir()
    (suite / "utils.py").write_text(LEAKING, encoding="utf-8")
    head = "name: leaking\nsplits: {dev: test}\ndefault_split: dev\nlanguages: {en: English}\n"
    (suite / "suite.yaml").write_text(head, encoding="utf-8")
    task = "task: leaking_en\ncustom_dataset: !function utils.load\ntest_split: test\ndoc_to_text: x\ndoc_to_target: x\n"
    (suite / "leaking_en.yaml").write_text(task + "output_type: generate_until\nmetric_list: [{metric: exact_match}]\n", encoding="utf-8")
    return suite


def test_the_doorkeeper_refuses_and_witnesses_what_these_tests_forbid(tmp_path: Path) -> None:
    attempts = """
import socket, urllib.request
for attempt in (
    lambda: urllib.request.urlopen("http://192.0.2.1/", timeout=2),
    lambda: socket.getaddrinfo("host.invalid", 80),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
):
    try:
        attempt()
    except OSError as error:
        print("forbids" in str(error))
socket.socketpair(socket.AF_UNIX)
"""
    done = subprocess.run([sys.executable, "-c", attempts], env=behind_doors(tmp_path), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"] * 3, done.stderr
    events = [seen["event"] for seen in seen_in(tmp_path)]
    assert (events[0], {"socket.getaddrinfo", "socket.sendto"} <= set(events)) == ("started", True)


def test_the_run_did_what_it_was_asked(run: Sealed) -> None:
    """Else the claims below would be about nothing."""
    state = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert state["finished"], run.said
    lines = sum(len(path.read_bytes().splitlines()) for path in run.folder.glob("cells/*/*.jsonl"))
    assert (run.code, len(run.workers), lines) == {BASE: (0, 1, 1), WHOLE: (4, 7, 10), CRASH: (0, 1, 0)}[run.kind], run.said
    if run.kind == WHOLE:  # two items are too few for a verdict
        assert (run.folder / "report" / "index.html").is_file()
        assert {path.stem for path in (run.folder / "training").iterdir()} == {"r2-s1-unsloth", "r2-s1-trl"}
    if run.kind == CRASH:
        assert "refused: [HF_TOKEN] by http://somebody:[HTTPS_PROXY]@proxy.invalid" in state["failed_arms"]["base"]
        assert any("[OPENAI_API_KEY]" in log.read_text(encoding="utf-8") for log in run.folder.glob("logs/*.log"))


def texts(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file of a folder, and what is packed inside: gzip in base64, as the page carries answers."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            yield path, text
            for packed in re.findall(r"H4sI[A-Za-z0-9+/=]{20,}", text):
                try:
                    yield path, gzip.decompress(b64decode(packed)).decode("latin-1")
                except (ValueError, OSError, EOFError, zlib.error):
                    continue


def test_no_key_of_the_environment_stands_in_any_file_or_in_what_was_said(run: Sealed) -> None:
    found = [(str(path), leak) for path, text in texts(run.folder) for leak in LEAKS if leak in text]
    assert found == []
    assert not any(leak in run.said for leak in LEAKS), run.said


def test_a_run_in_offline_mode_makes_no_connection(run: Sealed) -> None:
    assert run.connections == []


def test_every_worker_has_third_parties_quiet_before_it_imports_anything(run: Sealed) -> None:
    assert [worker["environment"] for worker in run.workers] == [QUIET] * len(run.workers)
