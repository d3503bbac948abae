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
