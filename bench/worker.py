"""What a child process does: train one LoRA, evaluate one arm, or time two. `python -m bench.worker` reads a job, writes events.

Behind an evaluation it waits for another arm of the same base, whose weights it holds, where the conductor has a way to give it one.
Standard output carries events alone: whatever libraries print there is sent to standard error, which the conductor keeps as a log.
"""

from __future__ import annotations

import ctypes
import dataclasses
import faulthandler
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import TypeAdapter

from bench.errors import EffortbenchError
from bench.jobs import CONDUCTOR, ORDERS, WHERE_SIGNAL, EvaluateJob, Event, Job, Order, PassSpec, ProbeJob, TrainJob
from bench.models import HeldBase
from bench.records import Phase, Sample

if TYPE_CHECKING:
    from bench.lm import Ask

Emit = Callable[[Event], None]
CANARY_ROWS = 6
CANARY_TOKENS = 32
"""Most tokens of a canary's answer: one by one they cost a step each."""


def main() -> None:
    """Run the job on standard input, and those ordered behind it; exit 0 where all were done, 1 where one failed and said why."""
    _die_with_parent()
    _tell_where()
    protocol = _take_stdout()

    def emit(event: Event) -> None:
        protocol.write(json.dumps(event, ensure_ascii=False) + "\n")
        protocol.flush()

    read = TypeAdapter(Job).validate_json
    job: Job | None = read(sys.stdin.read())
    orders = os.fdopen(int(os.environ[ORDERS]), encoding="utf-8") if ORDERS in os.environ else None
    base = HeldBase()
    try:
        while job is not None:
            run_job(job, base, emit)
            emit({"event": "done", "rests": orders is not None})
            job = read(order) if orders is not None and (order := _next_order(orders)) else None
    except EffortbenchError as error:
        emit({"event": "failed", "reason": str(error), "exit_code": error.exit_code})
        sys.exit(1)
    except Exception as error:  # the last frame of this process: the conductor must hear why, and the log keeps the traceback
        traceback.print_exc()
        emit({"event": "failed", "reason": f"{type(error).__name__}: {error}", "exit_code": EffortbenchError.exit_code})
        sys.exit(1)


def _die_with_parent() -> None:
    """A killed conductor leaves nobody behind who would write into a folder that is being resumed. Linux only."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    conductor = os.environ.get(CONDUCTOR)
    if conductor is not None and os.getppid() != int(conductor):  # it was killed while we started: no signal will come
        sys.exit(1)


def _tell_where() -> None:
    """Into the log, where this process crashed, or where it is when the conductor asks because nothing was heard of it."""
    faulthandler.enable()
    faulthandler.register(WHERE_SIGNAL, all_threads=True)


def _take_stdout() -> TextIO:
    """The real standard output, for events alone; descriptor 1 becomes standard error."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return protocol


def _next_order(orders: TextIO) -> str | None:
    """The next job's text, from now on logged where the order says; None where none comes any more."""
    line = orders.readline()
    if not line:
        return None
    order = Order.model_validate_json(line)
    if order.log is not None:
        with order.log.open("w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 2)
    text = order.job.read_text(encoding="utf-8")
    order.job.unlink()
    return text


def run_job(job: Job, base: HeldBase, emit: Emit) -> None:
    """Do what kind of job it is."""
    if isinstance(job, TrainJob):
        run_training(job, emit)
    elif isinstance(job, ProbeJob):
        run_probe(job, emit)
    else:
        run_evaluation(job, base, emit)


def run_training(job: TrainJob, emit: Emit) -> None:
    """Train, telling every step, what each phase cost, and every arm's record as soon as it is saved."""
    if job.method == "unsloth":
        import unsloth  # noqa: F401  # patches torch's users on import, so it must come first in this process

    from bench.finetune.train import Listener, train

    _one_thread_on_cpu()
    listener = Listener(
        on_step=lambda point: emit({"event": "step", **dataclasses.asdict(point)}),
        on_phase=lambda phase: emit({"event": "training_phase", "phase": dataclasses.asdict(phase)}),
        on_known=lambda known: emit({"event": "training_known", "training": dataclasses.asdict(known)}),
        on_trained=lambda training: emit({"event": "trained", "training": dataclasses.asdict(training)}),
    )
    train(job, listener)


def run_evaluation(job: EvaluateJob, base: HeldBase, emit: Emit) -> None:
    """Load the arm once, ask its canaries, run every pass, tell each sample as it ends and each pass's cost."""
    from bench.meter import memory_told
    from bench.models import load_tokenizer

    _one_thread_on_cpu()
    with memory_told("load"):
        model = base.adapted(job.base, job.experiment.model, job.adapter)
        if not job.has_canaries:
            model = base.merged()
    tokenizer = load_tokenizer(job.base)  # behind the model, whose loader may import unsloth, which patches transformers
    if job.has_canaries:
        model = _ask_canaries(job, base, model, tokenizer, emit)
    for spec in job.passes:
        emit({"event": "phase", "phase": dataclasses.asdict(_run_pass(job, spec, model, tokenizer, emit))})


def run_probe(job: ProbeJob, emit: Emit) -> None:
    """Time base and the arm in turn, telling each block."""
    from bench.probe import probe

    _one_thread_on_cpu()
    probe(job, lambda block: emit({"event": "timing", "block": dataclasses.asdict(block)}))


def _ask_canaries(job: EvaluateJob, base: HeldBase, model: Any, tokenizer: Any, emit: Emit) -> Any:
    """Ask a few rows of the first pass in two ways, tell how far they differ, and return the model that the passes use.

    `model` is the arm with its adapter beside the weights. Raises ArmError where float32 answers differ by more than rounding.
    """
    from bench.engines.canary import answer, differ, refuse_fault
    from bench.engines.choose import choose_engine
    from bench.engines.plain import GenerateEngine
    from bench.harmony import find_specials
    from bench.lm import pick_rows

    evaluate, precision = job.experiment.evaluate, "4-bit" if job.experiment.model.load_in_4bit else job.experiment.model.dtype
    ask = _ask(job, job.passes[0])
    rows = pick_rows(ask, tokenizer, CANARY_ROWS, CANARY_TOKENS)
    unmerged = None
    if job.adapter is not None and precision != "4-bit":
        unmerged = answer(choose_engine(model, tokenizer, evaluate.slots), rows)
        model = base.merged()
    engine = choose_engine(model, tokenizer, evaluate.slots)
    together = answer(engine, rows)
    ways = {"repeat": answer(engine, rows)}
    if (engine.name, engine.slots) != ("generate", 1):
        ways["batch"] = answer(GenerateEngine(model, find_specials(tokenizer).stop_ids), rows)
    if unmerged is not None:
        ways["merge"] = unmerged
    for check, other in ways.items():
        difference = differ(model, rows, together, other)
        if precision == "float32":
            refuse_fault(check, difference)
        seen = {**dataclasses.asdict(difference), "engine": engine.name, "slots": engine.slots, "precision": precision, "check": check}
        if difference.max_gap == math.inf:
            seen["max_gap"] = None  # JSON has no word for it
        emit({"event": "canary", "canary": {"arm": job.arm, "suite": ask.suite.name, "split": ask.split, **seen}})
    return model


def _ask(job: EvaluateJob, spec: PassSpec) -> Ask:
    from bench.catalog import find_asked
    from bench.lm import Ask

    return Ask(job.arm, find_asked(spec.suite, job.experiment.evaluate), spec.split, spec.languages, job.experiment.evaluate, job.limit)


def _run_pass(job: EvaluateJob, spec: PassSpec, model: Any, tokenizer: Any, emit: Emit) -> Phase:
    from bench.engines.choose import choose_engine
    from bench.lm import Listener, run_pass
    from bench.meter import metered

    evaluate, ask = job.experiment.evaluate, _ask(job, spec)
    engine = choose_engine(model, tokenizer, evaluate.slots)
    done = {(sample.language, sample.effort, sample.item_id, sample.sample_index): sample for sample in map(Sample.from_dict, spec.done)}
    tokens = correct = 0

    def on_sample(sample: Sample) -> None:
        nonlocal tokens, correct
        tokens += sample.output_tokens or 0
        correct += sample.outcome == "correct"
        emit({"event": "sample", "sample": dataclasses.asdict(sample)})

    listener = Listener(
        on_plan=lambda counts: emit({"event": "plan", "cells": [[*cell, count] for cell, count in counts.items()]}),
        on_prompt=lambda prompt_hash, text: emit({"event": "prompt", "prompt_hash": prompt_hash, "prompt": text}),
        on_sample=on_sample,
    )
    with metered() as reading:
        run_pass(ask, engine, tokenizer, done, listener)
    assert reading.wall_s is not None
    return Phase(
        arm=job.arm,
        suite=ask.suite.name,
        split=spec.split,
        wall_s=reading.wall_s,
        model_s=engine.model_s,
        output_tokens=tokens,
        peak_vram_bytes=reading.peak_vram_bytes,
        peak_reserved_bytes=reading.peak_reserved_bytes,
        peak_rss_bytes=reading.peak_rss_bytes,
        engine=engine.name,
        slots=engine.slots,
        peak_process_bytes=reading.peak_process_bytes,
        peak_device_bytes=reading.peak_device_bytes,
        energy_j=reading.energy_j,
        correct=correct,
        halvings=engine.halvings,
    )


def _one_thread_on_cpu() -> None:
    """Two torch threads on a busy machine can be ten times slower than one; parallel work is done by processes."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)


if __name__ == "__main__":
    main()
