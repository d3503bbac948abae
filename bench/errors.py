"""Every error a user can meet, and the exit code it ends in.

    EffortbenchError            70  the root; never raised itself
    ├── UsageError               2  what the user gave cannot be used
    │   ├── ExperimentError         the experiment file or a --set override
    │   ├── SuiteError              a suite, split, language or its data
    │   ├── ModelError              a model or adapter folder, or its tokenizer
    │   ├── DatasetError            the fine-tuning data
    │   ├── RunFolderError          a run folder: exists, missing, or not one
    │   └── BaselineError           a baseline cannot be made of a run, or is none
    └── ArmError                    one arm failed; recorded, the others go on

A message says what was found, what was expected and what to do, in one line where it can.
The exit codes of a verdict (0 pass, 1 fail, 3 inconclusive, 4 invalid) are no errors; they live in `records.EXIT_CODES`.
"""

MEMORY_SIGNS = ("can't allocate memory", "Cannot allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In messages of errors that are no OutOfMemoryError: of torch's CPU allocator, the system, the driver, and cuBLAS for its workspace."""


class EffortbenchError(Exception):
    """Root of all errors raised on purpose."""

    exit_code = 70


class UsageError(EffortbenchError):
    """What the user gave cannot be used; shown as one line, without a traceback."""

    exit_code = 2


class ExperimentError(UsageError):
    """The experiment file or an override is wrong."""


class SuiteError(UsageError):
    """A suite, split, language or its data is unknown or unreadable."""


class ModelError(UsageError):
    """A model or adapter folder, or its tokenizer, cannot be used."""


class DatasetError(UsageError):
    """The fine-tuning data are missing or have the wrong shape."""


class RunFolderError(UsageError):
    """A run folder exists already, is missing, or is not a run folder."""


class BaselineError(UsageError):
    """A run cannot become a baseline, or what was given as a baseline is none or damaged."""


class ArmError(EffortbenchError):
    """Training or evaluating one arm failed. The run records it and goes on with the other arms."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the device, or the host, had no memory left, whatever was made of that error on its way. Imports torch."""
    import torch

    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in MEMORY_SIGNS):
            return True
        error = error.__cause__
    return False
