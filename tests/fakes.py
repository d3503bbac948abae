"""The one seam at which tests replace a model: an engine that says what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.engines import Generation, Row
from bench.harmony import decoder, find_specials


def harmony(analysis: str | None, final: str | None) -> str:
    """A complete reply, as it stands after `<|start|>assistant`."""
    thought = f"<|channel|>analysis<|message|>{analysis}<|end|>" if analysis is not None else ""
    between = "<|start|>assistant" if thought and final is not None else ""
    answer = f"<|channel|>final<|message|>{final}<|return|>" if final is not None else ""
    return thought + between + answer


class FakeEngine:
    """Answers each row with a text: from a list, in order, or from a function of (prompt text, row).

    Texts hold Harmony's tokens by name and become ids with the real tokenizer; one that is longer than its row's limit is cut there.
    Rows end in reverse order, because an engine may end them in any. `asked` and `calls` keep what was asked.
    """

    name = "fake"
    slots = 1
    halvings = 0

    def __init__(self, tokenizer: Any, answers: Sequence[str] | Callable[[str, Row], str]):
        self.tokenizer = tokenizer
        self.answers = answers
        self.model_s = 0.0
        self.asked: list[Row] = []
        self.calls = 0

    def generate(self, rows: Sequence[Row]) -> Iterator[Generation]:
        self.asked += rows
        self.calls += 1
        stop_ids, decode = find_specials(self.tokenizer).stop_ids, decoder(self.tokenizer)
        for index in reversed(range(len(rows))):
            row = rows[index]
            text = self.answers(decode(row.prompt), row) if callable(self.answers) else self.answers[index]
            tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"][: row.max_new_tokens]
            yield Generation(index, tuple(tokens), "stop" if tokens and tokens[-1] in stop_ids else "length", 0.25, 0.125)
