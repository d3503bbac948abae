"""What a block cost: read while it runs, and unknown where it failed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch

from bench import meter
from bench.errors import ArmError, ModelError, is_out_of_memory
from bench.meter import Meter, Reading, memory_told, metered, read_environment, resident_bytes

MB = 10**6


def test_a_block_that_holds_200_mb_for_a_moment_shows_it() -> None:
    before = resident_bytes()
    with metered() as reading:
        held = bytearray(b"x") * (200 * MB)
        time.sleep(0.25)
        del held
        time.sleep(0.1)
    assert reading.peak_rss_bytes is not None
    assert 195 * MB < reading.peak_rss_bytes - before < 320 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mark of resident memory")
def test_memory_that_is_held_for_less_than_a_look_is_seen() -> None:
    before = resident_bytes()
    with metered() as reading:
        held = bytearray(b"x") * (200 * MB)
        del held
    assert reading.peak_rss_bytes is not None
    assert 195 * MB < reading.peak_rss_bytes - before < 320 * MB


def test_without_a_mark_that_can_be_lowered_resident_memory_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_reset_resident_mark", lambda: False)
    monkeypatch.setattr(meter, "_resident_mark", lambda: 2**60)
    monkeypatch.setattr(meter, "SAMPLING_INTERVAL_S", 0.05)
    test_a_block_that_holds_200_mb_for_a_moment_shows_it()


def test_the_peak_is_the_blocks_own_not_that_of_an_earlier_one() -> None:
    held = bytearray(b"x") * (200 * MB)
    high = resident_bytes()
    del held
    with metered() as reading:
        pass
    assert reading.peak_rss_bytes is not None
    assert reading.peak_rss_bytes < high - 150 * MB


def test_wall_time_is_that_of_the_block() -> None:
    with metered() as reading:
        time.sleep(0.1)
    assert reading.wall_s is not None
    assert 0.1 <= reading.wall_s < 1


def test_nothing_is_known_until_the_block_has_ended() -> None:
    with metered() as reading:
        assert reading == Reading(None, None, None, None)
    assert reading.wall_s is not None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_block_leaves_all_readings_unknown_and_its_error_alone(error: type[BaseException]) -> None:
    readings = []

    def fail() -> None:
        with metered() as reading:
            readings.append(reading)
            raise error("inside")

    with pytest.raises(error, match="inside"):
        fail()
    assert readings == [Reading(None, None, None, None)]


def test_device_memory_is_known_exactly_where_there_is_a_device() -> None:
    with metered() as reading:
        pass
    assert (reading.peak_vram_bytes is not None) == torch.cuda.is_available()
    assert (reading.peak_reserved_bytes is not None) == torch.cuda.is_available()


def test_nvml_is_asked_only_where_there_is_a_device() -> None:
    with metered() as reading:
        pass
    if not torch.cuda.is_available():
        assert (reading.peak_process_bytes, reading.peak_device_bytes, reading.energy_j) == (None, None, None)
    else:
        assert reading.peak_device_bytes is not None
        assert reading.peak_device_bytes > 0


class Card:
    """A device as NVML tells of it."""

    def __init__(self, process_bytes: int | None):
        self._process_bytes = process_bytes

    def process_bytes(self) -> int | None:
        return self._process_bytes

    def used_bytes(self) -> int:
        return 50 * MB


@pytest.mark.parametrize(("of_process", "expected"), [(40 * MB, 240 * MB), (None, None)])
def test_device_memory_that_was_given_back_between_two_looks_counts(of_process: int | None, expected: int | None) -> None:
    sampler = meter._Sampler(Card(of_process))
    sampler.start()
    sampler.end(200 * MB)
    assert (sampler.process_bytes, sampler.device_bytes) == (expected, 250 * MB)


def test_a_block_that_failed_keeps_its_peaks_and_has_no_time() -> None:
    reading = Meter().stop(failed=True)
    assert (reading.wall_s, reading.energy_j) == (None, None)
    assert reading.peak_rss_bytes is not None
    assert reading.peak_rss_bytes > MB


def test_the_environment_names_the_machine_and_no_person(tmp_path: Path) -> None:
    environment = read_environment(tmp_path)
    assert environment.cpu
    assert environment.cpu_count >= 1
    assert environment.memory_bytes > 10**8
    assert {"torch", "transformers", "numpy"} <= set(environment.packages)
    assert datetime.fromisoformat(environment.started_at).utcoffset() is not None
    if environment.gpu is None:
        assert environment.hardware == "cpu"
        assert environment.torch_threads == 1
    assert str(Path.home()) not in repr(environment) or Path.home() == Path("/")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_and_whether_anything_tracked_differs_from_it(tmp_path: Path) -> None:
    assert (read_environment(tmp_path).git_commit, read_environment(tmp_path).git_dirty) == (None, None)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1", encoding="utf-8")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "one")
    (tmp_path / "untracked").write_text("", encoding="utf-8")
    clean = read_environment(tmp_path)
    (tmp_path / "file").write_text("2", encoding="utf-8")
    assert (clean.git_commit, clean.git_dirty) == (git(tmp_path, "rev-parse", "HEAD"), False)
    assert read_environment(tmp_path).git_dirty


# --- out of memory


def too_much() -> None:
    torch.empty(2**60)


def too_much_of_a_model() -> None:
    """As loaders tell it: the error that was met is the cause of theirs."""
    try:
        too_much()
    except RuntimeError as error:
        raise ModelError("the model could not be loaded") from error


@pytest.mark.parametrize("fail", [too_much, too_much_of_a_model])
def test_torchs_own_words_for_no_memory_are_known_under_any_other_error(fail: Callable[[], None]) -> None:
    with pytest.raises((RuntimeError, ModelError)) as caught:
        fail()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_every_librarys_words_for_no_memory_are_known(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_another_error_is_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(ModelError, match="^no such model$"), memory_told("load"):
        raise ModelError("no such model")


def test_a_block_without_memory_tells_the_peak_reached() -> None:
    words = r"^out of memory in load, with \d\.\d\d GiB resident: the model could not be loaded$"
    with pytest.raises(ArmError, match=words), memory_told("load"):
        too_much_of_a_model()
