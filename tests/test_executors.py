"""Jobs in child processes: whatever a child does, `run` comes back, with the reason, and leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from busy import allowed_s, slowdown
from fabricated import fabricate_experiment

from bench.executors import PIPE_GRACE_S, QUIET, Failure, LocalExecutor, child_environment
from bench.jobs import START_S, WHERE_SIGNAL, EvaluateJob, Event, Job, PassSpec, Stop, TrainJob, longest_silence_s

EXPERIMENT = fabricate_experiment()
DONE = "say(event='done')"
PRELUDE = """
import ctypes, json, os, resource, signal, subprocess, sys, time
say = lambda **event: print(json.dumps(event), flush=True)
order = lambda: json.load(sys.stdin)
"""

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def in_time() -> Any:
    """A test that hangs fails after two minutes."""

    def give_up(*_: object) -> None:
        raise TimeoutError("the executor hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def job(name: str = "a", done: tuple[dict[str, Any], ...] = ()) -> EvaluateJob:
    passes = (PassSpec(suite="stories", split="dev", languages=("en",), done=done),)
    return EvaluateJob(name=name, experiment=EXPERIMENT, base=Path("nowhere"), arm="base", adapter=None, passes=passes)


def executor(tmp_path: Path, program: str, workers: int = 2, silence_s: float = 3600) -> LocalExecutor:
    """Children run a small program instead of bench.worker."""
    command = [sys.executable, "-S", "-c", PRELUDE + program]
    return LocalExecutor(workers, tmp_path / "logs", command=command, silence_s=lambda _: silence_s)


def run(tmp_path: Path, program: str, jobs: Sequence[Job] = (), workers: int = 2) -> tuple[list[tuple[str, Event]], dict[str, Failure]]:
    heard: list[tuple[str, Event]] = []
    failures = executor(tmp_path, program, workers).run(jobs or [job()], lambda job, event: heard.append((job.name, event)))
    return heard, failures


def only_failure(tmp_path: Path, program: str) -> Failure:
    _, failures = run(tmp_path, program)
    assert list(failures) == ["a"]
    return failures["a"]


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_gone(pid: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


# --- what goes well


def test_a_child_reads_its_job_and_its_events_arrive_in_order(tmp_path: Path) -> None:
    heard, failures = run(tmp_path, f"name = order()['name']\nfor n in range(1000): say(event='step', step=n, name=name)\n{DONE}")
    assert failures == {}
    assert heard == [("a", {"event": "step", "step": n, "name": "a"}) for n in range(1000)]


def test_no_more_children_run_than_there_are_workers(tmp_path: Path) -> None:
    jobs = [job(str(number)) for number in range(6)]
    heard, failures = run(tmp_path, f"say(event='begin')\ntime.sleep(0.2)\nsay(event='end')\n{DONE}", jobs)
    running = most = 0
    for _, event in heard:
        running += 1 if event["event"] == "begin" else -1
        most = max(most, running)
    assert failures == {}
    assert sorted(name for name, event in heard if event["event"] == "end") == sorted(job.name for job in jobs)
    assert most <= 2


def test_events_are_handed_on_in_the_callers_thread(tmp_path: Path) -> None:
    threads = set()
    executor(tmp_path, f"say(event='step')\n{DONE}").run([job()], lambda *_: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_nothing_to_do_is_done_at_once(tmp_path: Path) -> None:
    assert executor(tmp_path, DONE).run([], lambda *_: None) == {}


def test_an_executor_can_be_used_again(tmp_path: Path) -> None:
    used = executor(tmp_path, DONE)
    assert used.run([job()], lambda *_: None) == {}
    assert used.run([job()], lambda *_: None) == {}


def test_a_child_gets_quiet_libraries_one_thread_and_a_folder_of_its_own(tmp_path: Path) -> None:
    heard, _ = run(tmp_path, f"say(event='env', env=dict(os.environ))\n{DONE}", [job("a"), job("b")])
    first, second = (event["env"] for _, event in heard)
    assert first.items() >= QUIET.items()
    assert first["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")
    assert first["UNSLOTH_COMPILE_LOCATION"] != second["UNSLOTH_COMPILE_LOCATION"]
    assert not Path(first["UNSLOTH_COMPILE_LOCATION"]).parent.exists()


def test_a_users_own_thread_count_stands() -> None:
    assert child_environment({})["OMP_NUM_THREADS"] == "1"
    assert child_environment({"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_standard_error_goes_to_the_jobs_log(tmp_path: Path) -> None:
    run(tmp_path, f"print('a banner', file=sys.stderr)\n{DONE}")
    assert (tmp_path / "logs" / "a.log").read_text(encoding="utf-8") == "a banner\n"


# --- what goes wrong


def test_a_reason_given_by_the_child_is_the_failure(tmp_path: Path) -> None:
    failure = only_failure(tmp_path, "say(event='failed', reason='no such model', exit_code=2)\nsys.exit(1)")
    assert failure == Failure("no such model", 2)


def test_an_exit_code_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    failure = only_failure(tmp_path, "print('one\\n\\n', *'abcdef', sep='\\n', file=sys.stderr)\nsys.exit(3)")
    assert failure == Failure("the process exited with 3; its log ends: b | c | d | e | f", 70)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL (out of memory, or killed by hand)"),
        ("resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.string_at(0)", "was ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "was ended by SIGTERM"),
        ("resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), 40)", "was ended by signal 40"),
        ("raise ValueError('deep inside')", "exited with 1; its log ends: "),
        ("os._exit(0)", "ended without saying that its job was done"),
        ("sys.stdout.close()", "ended without saying that its job was done"),
    ],
)
def test_a_death_without_a_word_is_told(tmp_path: Path, program: str, expected: str) -> None:
    failure = only_failure(tmp_path, f"say(event='step')\n{program}")
    assert expected in failure.reason
    assert failure.exit_code == 70


def test_samples_told_before_a_death_are_heard(tmp_path: Path) -> None:
    heard, failures = run(tmp_path, "say(event='step', step=1)\nos.kill(os.getpid(), signal.SIGKILL)")
    assert heard == [("a", {"event": "step", "step": 1})]
    assert "SIGKILL" in failures["a"].reason


@pytest.mark.parametrize(
    "garbage",
    ["hello", "", "7", "[]", "{}", '{"event": 1}', '{"event": "ended", "returncode": 0}', '{"event": "failed"}', "[" * 100_000, "\\xff"],
    ids=lambda text: text[:12] or "empty",
)
def test_garbage_on_the_protocol_ends_the_child_and_is_shown(tmp_path: Path, garbage: str) -> None:
    program = f"say(event='pid', pid=os.getpid())\nos.write(1, b'''{garbage}''' + b'\\n')\ntime.sleep(60)"
    heard, failures = run(tmp_path, program)
    assert failures["a"].reason.startswith("the process wrote something that is no event: ")
    assert len(failures["a"].reason) < 200
    assert is_gone(heard[0][1]["pid"])


def test_one_childs_death_does_not_disturb_the_others(tmp_path: Path) -> None:
    jobs = [job(name) for name in ("good", "bad", "fine", "evil")]
    program = (
        f"name = order()['name']\nif name == 'bad': os.abort()\nif name == 'evil': print('boo', flush=True)\nsay(event='step')\n{DONE}"
    )
    heard, failures = run(tmp_path, "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n" + program, jobs)
    assert sorted(failures) == ["bad", "evil"]
    assert sorted(name for name, _ in heard) == ["fine", "good"]


def test_events_after_a_childs_failure_are_not_handed_on(tmp_path: Path) -> None:
    heard, failures = run(tmp_path, f"say(event='failed', reason='first', exit_code=70)\nsay(event='step')\n{DONE}")
    assert heard == []
    assert failures["a"].reason == "first"


def test_a_program_that_cannot_be_started_is_a_failure_not_a_hang(tmp_path: Path) -> None:
    failures = LocalExecutor(1, tmp_path / "logs", command=["/no/such/program"]).run([job("a"), job("b")], lambda *_: None)
    assert sorted(failures) == ["a", "b"]
    assert "could not be started" in failures["a"].reason
    assert "/no/such/program" in failures["a"].reason


def test_a_log_that_cannot_be_written_is_a_failure_not_a_hang(tmp_path: Path) -> None:
    (tmp_path / "logs" / "a.log").mkdir(parents=True)
    assert "could not be started" in only_failure(tmp_path, DONE).reason


@pytest.mark.parametrize("last", ["sys.exit(3)", "say(event='failed', reason='refused: ' + os.environ['HF_TOKEN'], exit_code=70)"])
def test_a_key_that_a_child_prints_stands_neither_in_its_log_nor_in_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_a_test")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.invalid:3128")
    failure = only_failure(tmp_path, f"print(os.environ, file=sys.stderr, flush=True)\n{last}")
    log = (tmp_path / "logs" / "a.log").read_text(encoding="utf-8")
    assert "[HF_TOKEN]" in log
    assert "http://me:[HTTPS_PROXY]@proxy.invalid:3128" in log
    assert "[HF_TOKEN]" in failure.reason or "exited with 3" in failure.reason
    assert not any(secret in log + failure.reason for secret in ("hf_secret_of_a_test", "hunter2"))


HUGE = job("huge", done=({"completion": "x" * 3_000_000},))


@pytest.mark.parametrize(
    ("program", "fails"),
    [
        ("sys.exit(5)", True),
        ("sys.stdin.close(); time.sleep(0.1); sys.exit(5)", True),
        ("sys.stdin.read(10); sys.exit(5)", True),
        (f"for n in range(20_000): say(event='step', text='x' * 100)\norder()\n{DONE}", False),
        (f"assert len(order()['passes'][0]['done'][0]['completion']) == 3_000_000\n{DONE}", False),
    ],
)
def test_a_huge_job_blocks_nobody_whether_it_is_read_or_not(tmp_path: Path, program: str, fails: bool) -> None:
    _, failures = run(tmp_path, program, [HUGE])
    assert bool(failures) is fails
    assert not fails or "exited with 5" in failures["huge"].reason


def test_a_process_left_behind_by_a_dead_child_is_ended_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    program = "pid = os.fork()\nif pid == 0: time.sleep(60)\nsay(event='pid', pid=pid)\nos.kill(os.getpid(), signal.SIGKILL)"
    busy = slowdown()
    started = time.monotonic()
    heard, failures = run(tmp_path, program)
    assert time.monotonic() - started < allowed_s(PIPE_GRACE_S, busy)
    assert "SIGKILL" in failures["a"].reason
    assert is_gone(heard[0][1]["pid"])


# --- one process after the other's job

SEVERAL = """
name, orders = order()["name"], os.fdopen(int(os.environ["EFFORTBENCH_ORDERS"]))
while True:
    print("log of", name, file=sys.stderr, flush=True)
    say(event="step", name=name, pid=os.getpid())
    {each}
    say(event="done", rests=True)
    line = orders.readline()
    if not line: break
    further = json.loads(line)
    os.dup2(os.open(further["log"], os.O_WRONLY | os.O_CREAT), 2)
    name = json.load(open(further["job"]))["name"]
    os.unlink(further["job"])
"""


def pids(heard: list[tuple[str, Event]]) -> dict[str, int]:
    assert all(name == event["name"] for name, event in heard)
    return {name: event["pid"] for name, event in heard}


def test_a_process_that_waits_gets_the_next_job_and_each_job_its_own_log(tmp_path: Path) -> None:
    heard, failures = run(tmp_path, SEVERAL.format(each="pass"), [job(name) for name in "abcdef"], workers=2)
    used = pids(heard)
    assert failures == {}
    assert sorted(used) == list("abcdef")
    assert len(set(used.values())) == 2
    assert all(map(is_gone, used.values()))
    assert [(tmp_path / "logs" / f"{name}.log").read_text() for name in "abcdef"] == [f"log of {name}\n" for name in "abcdef"]


def test_weights_that_the_next_job_does_not_need_are_given_up(tmp_path: Path) -> None:
    other = job("b").model_copy(update={"base": Path("elsewhere")})
    heard, failures = run(tmp_path, SEVERAL.format(each="pass"), [job("a"), other, job("c")], workers=1)
    assert failures == {}
    assert len(set(pids(heard).values())) == 3


def test_a_death_in_a_later_job_is_that_jobs_alone_and_what_waits_gets_a_new_process(tmp_path: Path) -> None:
    dies = "if name == 'b': print('it was b', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    heard, failures = run(tmp_path, SEVERAL.format(each=dies), [job(name) for name in "abcd"], workers=1)
    assert list(failures) == ["b"]
    assert failures["b"].may_differ
    assert "SIGSEGV; its log ends: log of b | it was b" in failures["b"].reason
    used = pids(heard)
    assert (used["a"] == used["b"], used["c"] == used["d"], used["b"] == used["c"]) == (True, True, False)


def test_a_later_jobs_log_that_cannot_be_read_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Its process ended in that job, whatever else goes wrong behind it."""
    spoils = "if name == 'b': os.unlink(further['log']); os.mkdir(further['log']); os.kill(os.getpid(), signal.SIGKILL)"
    _, failures = run(tmp_path, SEVERAL.format(each=spoils), [job(name) for name in "abc"], workers=1)
    assert list(failures) == ["b"]


@pytest.mark.parametrize("ending", ["say(event='failed', reason='it was', exit_code=70)", "sys.exit(3)"])
def test_what_fails_in_a_process_that_did_others_before_may_end_otherwise_in_one_of_its_own(tmp_path: Path, ending: str) -> None:
    _, failures = run(tmp_path, SEVERAL.format(each=f"if name in 'ac': {ending}"), [job(name) for name in "abc"], workers=1)
    assert {name: failure.may_differ for name, failure in failures.items()} == {"a": False, "c": True}


@pytest.mark.parametrize("ending", ["sys.exit(0)", "sys.exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_process_that_ends_though_it_said_it_would_wait_keeps_nobody_waiting(tmp_path: Path, ending: str) -> None:
    program = f"say(event='step', name=order()['name'], pid=os.getpid()); say(event='done', rests=True); {ending}"
    for jobs in ("ab", "abcdefgh"):
        heard, failures = run(tmp_path, program, [job(name) for name in jobs], workers=1)
        done = {name for name, _ in heard}
        assert done | set(failures) == set(jobs)
        assert done >= {"a"}


def test_a_silence_in_a_later_job_is_counted_from_its_order(tmp_path: Path) -> None:
    program = SEVERAL.format(each="time.sleep(60 if name == 'c' else 0.4)")
    used = executor(tmp_path, program, workers=1, silence_s=1.5)
    failures = used.run([job(name) for name in "abcd"], lambda *_: None)
    assert list(failures) == ["c"]
    assert "told nothing for 1.5 s" in failures["c"].reason


def test_training_takes_no_further_orders(tmp_path: Path) -> None:
    stop = Stop(arm="a", steps=1, adapter=tmp_path, key="k")
    jobs = [
        TrainJob(name=name, experiment=EXPERIMENT, base=Path("nowhere"), rank=1, seed=1, stops=(stop,), checkpoints=tmp_path)
        for name in "ab"
    ]
    program = f"say(event='step', name=order()['name'], orders=os.environ.get('EFFORTBENCH_ORDERS'))\n{DONE}"
    heard, failures = run(tmp_path, program, jobs)
    assert failures == {}
    assert [event["orders"] for _, event in heard] == [None, None]


# --- ending


@pytest.mark.parametrize("polite", [True, False], ids=["ends when asked", "ignores SIGTERM"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_while_listening_ends_all_children_within_two_seconds(
    tmp_path: Path, error: type[BaseException], polite: bool
) -> None:
    pids: list[int] = []
    busy, raised_at = slowdown(), 0.0

    def on_event(_: Job, event: Event) -> None:
        nonlocal raised_at
        pids.append(event["pid"])
        if len(pids) == 2:
            raised_at = time.monotonic()
            raise error("stop")

    program = "" if polite else "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    used = executor(tmp_path, program + "say(event='pid', pid=os.getpid())\ntime.sleep(60)")
    with pytest.raises(error):
        used.run([job(name) for name in "abc"], on_event)
    assert all(map(is_gone, pids))
    assert time.monotonic() - raised_at < allowed_s(2, busy)
    assert not (tmp_path / "logs" / "c.log").exists()


def test_children_of_a_child_are_ended_with_it(tmp_path: Path) -> None:
    pids = []

    def on_event(_: Job, event: Event) -> None:
        pids.extend(event["pids"])
        raise KeyboardInterrupt

    program = "pid = os.fork()\nif pid: say(event='pids', pids=[os.getpid(), pid])\ntime.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        executor(tmp_path, program).run([job()], on_event)
    assert all(map(is_gone, pids))


def test_an_interruption_while_children_start_leaves_none_behind(tmp_path: Path) -> None:
    """Ctrl-C comes at random moments of the first 0.2 s, again and again."""
    mark = f"effortbench-test-{os.getpid()}-{time.monotonic_ns()}"
    loop = f"""
import os, signal, sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_executors import *
for turn in range(12):
    timer = threading.Timer(0.015 * turn, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        executor(Path({str(tmp_path)!r}), "time.sleep(60)", workers=3).run([job(name) for name in "abcd"], lambda *_: None)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", loop], env={**os.environ, "MARK": mark}, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.stdout.split() == ["interrupted"] * 12, done.stderr
    assert survivors(mark) == []


def survivors(mark: str) -> list[int]:
    """Processes that carry a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (OSError, ProcessLookupError):
            continue
    return [pid for pid in found if not is_gone(pid)]


# --- silence


ABLE_TO_TELL = "import faulthandler; faulthandler.register(signal.SIGUSR1, all_threads=True)\n"


@pytest.mark.parametrize(
    "program",
    [
        "time.sleep(60)",
        "while True: pass",
        ABLE_TO_TELL + "time.sleep(60)",
        ABLE_TO_TELL + "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, signal.SIG_IGN)\ntime.sleep(60)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "sys.stdout.close()\ntime.sleep(60)",
    ],
)
def test_a_child_that_tells_nothing_for_too_long_is_ended_with_all_it_started(tmp_path: Path, program: str) -> None:
    family = "pid = os.fork()\nif pid == 0: time.sleep(60)\nsay(event='pids', pids=[os.getpid(), pid])\n"
    used = executor(tmp_path, family + program, silence_s=0.5)
    heard: list[Event] = []
    failures = used.run([job()], lambda _, event: heard.append(event))
    assert failures["a"].reason.startswith("the process told nothing for 0.5 s, more than its work can take, and was ended")
    assert failures["a"].may_differ
    assert all(map(is_gone, heard[0]["pids"]))


def test_the_log_of_a_hanging_child_says_where_it_hung(tmp_path: Path) -> None:
    program = ABLE_TO_TELL + "def stuck_in_a_kernel(): time.sleep(60)\nstuck_in_a_kernel()"
    failures = executor(tmp_path, program, silence_s=0.3).run([job()], lambda *_: None)
    assert "stuck_in_a_kernel" in failures["a"].reason


def test_a_child_that_tells_something_now_and_then_is_left_alone_and_so_are_the_others(tmp_path: Path) -> None:
    program = f"""
name = order()["name"]
if name == "stuck": time.sleep(60)
for turn in range(10):
    time.sleep(0.3)
    say(event="step")
{DONE}
"""
    failures = executor(tmp_path, program, workers=3, silence_s=2.5).run([job(name) for name in ("one", "stuck", "two")], lambda *_: None)
    assert list(failures) == ["stuck"]


def test_a_late_word_saves_a_child_that_was_asked_where_it_is(tmp_path: Path) -> None:
    program = f"def answer(*_):\n    say(event='step')\n    {DONE}\n    os._exit(0)\nsignal.signal(signal.SIGUSR1, answer)\ntime.sleep(60)"
    heard: list[Event] = []
    assert executor(tmp_path, program, silence_s=1.0).run([job()], lambda _, event: heard.append(event)) == {}
    assert heard == [{"event": "step"}]


def test_work_that_is_done_counts_though_its_process_cannot_exit(tmp_path: Path) -> None:
    used = executor(tmp_path, f"say(event='pid', pid=os.getpid())\n{DONE}\ntime.sleep(60)", silence_s=0.3)
    heard: list[Event] = []
    assert used.run([job()], lambda _, event: heard.append(event)) == {}
    assert is_gone(heard[0]["pid"])


def test_a_conductor_that_was_stopped_blames_no_child(tmp_path: Path) -> None:
    """While it cannot listen, its children go on; their words lie in the pipes."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_executors import *
program = "for turn in range(40):\\n    time.sleep(0.1)\\n    say(event='step', turn=turn)\\n" + DONE
def on_event(_, event):
    print(json.dumps(event), flush=True)
print(executor(Path({str(tmp_path)!r}), program, silence_s=2.0).run([job()], on_event))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as conductor:
        assert conductor.stdout
        conductor.stdout.readline()
        conductor.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        conductor.send_signal(signal.SIGCONT)
        assert conductor.stdout.read().splitlines()[-1] == "{}"


@pytest.mark.parametrize(
    ("program", "died"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", True),
        ("resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.string_at(0)", True),
        ("sys.exit(3)", False),
        ("print('boo', flush=True); time.sleep(60)", False),
        ("say(event='failed', reason='no such model', exit_code=2); os.kill(os.getpid(), signal.SIGKILL)", False),
        ("pass", False),
    ],
)
def test_only_a_process_that_died_or_hung_may_end_otherwise_next_time(tmp_path: Path, program: str, died: bool) -> None:
    assert only_failure(tmp_path, program).may_differ is died


def test_the_longest_silence_follows_from_what_was_asked(tmp_path: Path) -> None:
    asked = job()
    longer = asked.experiment.evaluate.model_copy(update={"max_new_tokens": {"low": 10, "medium": 20, "high": 40_000}})
    grown = asked.model_copy(update={"experiment": EXPERIMENT.model_copy(update={"evaluate": longer})})
    assert START_S < longest_silence_s(asked) < longest_silence_s(grown) == START_S + 20_000
    assert EXPERIMENT.finetune
    stop = Stop(arm="r8-s40", steps=40, adapter=tmp_path, key="")
    training = TrainJob(name="t", experiment=EXPERIMENT, base=tmp_path, rank=8, seed=1, stops=(stop,), checkpoints=tmp_path)
    wide = EXPERIMENT.finetune.model_copy(update={"gradient_accumulation": 4096})
    assert START_S < longest_silence_s(training)
    assert longest_silence_s(training.model_copy(update={"experiment": EXPERIMENT.model_copy(update={"finetune": wide})})) > 86_400


# --- the real worker


def test_the_real_worker_tells_where_it_is_when_it_is_asked(tmp_path: Path) -> None:
    """A child that reads its job from a pipe nobody writes to."""
    worker = subprocess.Popen([sys.executable, "-m", "bench.worker"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stderr
    while not catches(Path(f"/proc/{worker.pid}/status").read_text(encoding="utf-8")):
        time.sleep(0.05)
    worker.send_signal(WHERE_SIGNAL)
    while "bench/worker.py" not in (line := worker.stderr.readline()):
        assert line, "it ended and said nothing"
    assert "in main" in line
    worker.kill()
    worker.communicate()


def catches(status: str) -> bool:
    """Whether a process has a handler for the signal, by its /proc status."""
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (WHERE_SIGNAL - 1) & 1)


def test_the_real_worker_says_why_a_job_cannot_be_done(tmp_path: Path) -> None:
    wrong = job().model_copy(update={"base": tmp_path / "no-model"})
    failures = LocalExecutor(1, tmp_path / "logs").run([wrong], lambda *_: None)
    assert failures["a"].exit_code == 2
    assert "no-model" in failures["a"].reason


LITTLE_MEMORY = """
import resource, psutil
from bench.models import EMBEDDED, load_checked
load_checked(EMBEDDED, "float32")  # all that it imports is imported
limit = psutil.Process().memory_info().vms + 2**26
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from bench.worker import main
main()
"""


@pytest.mark.slow
def test_an_evaluation_that_finds_no_memory_for_its_model_says_so_with_the_peak(tmp_path: Path) -> None:
    """As training says it; it was called a model that could not be loaded, which is the user's to mend."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from bench.models import EMBEDDED

    config = AutoConfig.from_pretrained(EMBEDDED)
    config.vocab_size = 400_000
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "large")
    large = job().model_copy(update={"base": tmp_path / "large"})
    failures = LocalExecutor(1, tmp_path / "logs", command=[sys.executable, "-c", LITTLE_MEMORY]).run([large], lambda *_: None)
    told = re.match(r"out of memory in load, with (\d+\.\d\d) GiB resident: ", failures["a"].reason)
    assert told is not None, failures["a"].reason
    assert 0 < float(told[1]) < 8  # what the libraries took depends on the machine; the model did not fit
    assert failures["a"].exit_code == 70


def test_the_real_worker_given_no_job_exits_and_its_log_says_why(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "bench.worker"], input="{}", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ValidationError" in done.stderr


CONDUCTOR = """
import sys
sys.path.insert(0, {tests!r})
from test_executors import *
from bench.executors import LocalExecutor
worker = '''
import json, os, time
import bench.worker
bench.worker._die_with_parent()
print(json.dumps(dict(event="pid", pid=os.getpid())), flush=True)
time.sleep(60)
'''
command = [sys.executable, "-c", worker]
LocalExecutor(1, Path({logs!r}), command=command).run([job()], lambda job, event: print(json.dumps(event), flush=True))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_a_worker_dies_with_a_killed_conductor(tmp_path: Path) -> None:
    source = CONDUCTOR.format(tests=str(Path(__file__).parent), logs=str(tmp_path / "logs"))
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as conductor:
        assert conductor.stdout
        worker = json.loads(conductor.stdout.readline())["pid"]
        assert is_alive(worker)
        conductor.kill()
    assert is_gone(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_a_worker_whose_conductor_died_while_it_started_does_nothing() -> None:
    """Else it would train on, and write adapters and checkpoints into a folder that another conductor has gone on with."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    order = job().model_dump_json()
    done = subprocess.run(
        [sys.executable, "-m", "bench.worker"],
        input=order,
        env={**os.environ, "EFFORTBENCH_CONDUCTOR": str(dead.pid)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
