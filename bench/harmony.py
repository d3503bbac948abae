"""Conversation and effort -> prompt ids; generated ids -> channels, form and token counts.

Works with any tokenizer that names Harmony's special tokens, so the embedded model's vocabulary and the real o200k one take the
same code. Rendering is the tokenizer's own chat template with its date pinned. Parsing goes by token ids and never raises on what
a model wrote: where the official parser (openai-harmony) succeeds, the channels hold the same text; where it raises, they hold
what could be read and the form says `malformed`. Special tokens spelled with ordinary tokens are malformed too. Whether an answer
is right is not decided here.
"""

from __future__ import annotations

import datetime
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import jinja2
import regex

from bench.errors import ExperimentError, ModelError
from bench.experiment import EFFORTS

Channel = Literal["analysis", "commentary", "final"]
Form = Literal["complete", "truncated_analysis", "truncated_final", "malformed", "empty"]
Decode = Callable[[Sequence[int]], str]

CHANNELS: tuple[Channel, ...] = ("analysis", "commentary", "final")
PINNED_DATE = datetime.date(2025, 8, 5)
"""What a template that prints today's date prints instead: a prompt must not change overnight."""
LONGEST_HEADER = 64
"""Tokens; a longer header is malformed without a closer look."""

_CHANNEL = regex.compile(r"<\|channel\|>(?P<name>[^\s<]*+)")
_TO = r"(?: to=[^\s<]++)?+"
_CONTENT_TYPE = r"(?:\s*+<\|constrain\|>\w++|\s++\w++)?+"
_FIRST_HEADER = rf"{_TO}\s*+<\|channel\|>(?:analysis|commentary|final)(?!\w){_TO}{_CONTENT_TYPE}\s*+"
_HEADERS = {True: regex.compile(_FIRST_HEADER), False: regex.compile("assistant" + _FIRST_HEADER)}
"""By whether it is the reply's first, whose role stands in the prompt."""


@dataclass(frozen=True, slots=True)
class Specials:
    """Ids of Harmony's special tokens in one vocabulary."""

    start: int
    channel: int
    message: int
    end: int
    return_: int
    call: int
    constrain: int
    end_of_text: int | None = None
    """The vocabulary's <|endoftext|>, where it has one: gpt-oss lists it among its stop tokens."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a generation."""
        return frozenset({self.return_, self.call} | ({self.end_of_text} if self.end_of_text is not None else set()))

    @property
    def ids(self) -> frozenset[int]:
        """All of them."""
        return self.stop_ids | {self.start, self.channel, self.message, self.end, self.constrain}


@dataclass(frozen=True, slots=True)
class Reply:
    """One generated reply, taken apart."""

    analysis: str | None
    """Text of the channel; several messages of it are joined by a newline. None where the channel never opened."""
    commentary: str | None
    final: str | None
    form: Form
    """`complete`: a final answer, closed. `truncated_*`: the tokens ran out before or after the final channel opened. `empty`: no
    tokens, or a closed final channel with nothing in it. `malformed`: not Harmony, or it stopped without a final answer."""
    stopped: bool
    """Whether a stop token ended it; False where the token limit did."""
    reasoning_tokens: int
    """Content tokens of the analysis channel."""
    final_tokens: int
    """Content tokens of the final channel."""
    output_tokens: int
    """All tokens, Harmony's own and the stop token included."""


def find_specials(tokenizer: Any) -> Specials:
    """The special tokens of a transformers tokenizer. Raises ModelError naming the first that is missing."""
    return _find_specials(tokenizer, len(tokenizer))


@lru_cache(maxsize=8)
def _find_specials(tokenizer: Any, _size: int) -> Specials:
    """Kept, as every prompt asks for them; looked for anew where the vocabulary has grown."""
    names = ("start", "channel", "message", "end", "return", "call", "constrain")
    found = {name: _special_id(tokenizer, f"<|{name}|>") for name in names}
    missing = [f"<|{name}|>" for name, token_id in found.items() if token_id is None]
    if missing:
        raise ModelError(
            f"tokenizer has no special token {', '.join(missing)}: expected the vocabulary of a gpt-oss model (Harmony format)"
        )
    ids = {name.replace("return", "return_"): token_id for name, token_id in found.items() if token_id is not None}
    return Specials(**ids, end_of_text=_special_id(tokenizer, "<|endoftext|>"))


def _special_id(tokenizer: Any, name: str) -> int | None:
    """None where the vocabulary lacks the token, or spells it with ordinary tokens when it stands in text."""
    ids = list(tokenizer(name, add_special_tokens=False)["input_ids"])
    return ids[0] if len(ids) == 1 and tokenizer.convert_ids_to_tokens(ids[0]) == name else None


def decoder(tokenizer: Any) -> Decode:
    """Ids -> exact text, special tokens included: what `parse` needs."""
    quick = getattr(tokenizer, "backend_tokenizer", None)  # transformers' own decode looks at every id, three times as long as it decodes

    def decode(token_ids: Sequence[int]) -> str:
        ids = list(token_ids)
        text: str = (
            tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if quick is None
            else quick.decode(ids, skip_special_tokens=False)
        )
        return text

    return decode


def render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], effort: str) -> list[int]:
    """Prompt ids, ending in `<|start|>assistant`, of {role, content[, thinking]} messages; None in a message is left out.

    Special tokens spelled out inside a message stay ordinary text, as the official renderer has it. Raises ModelError where the
    tokenizer has no Harmony chat template, or one that refuses the messages or ignores the effort.
    """
    text = _apply_template(tokenizer, messages, effort, is_prompt=True)
    if not text.endswith("<|start|>assistant"):
        raise ModelError(f"the chat template is not Harmony: expected a prompt ending in '<|start|>assistant', found {text[-30:]!r}")
    return _encode(tokenizer, text)


def render_lesson(tokenizer: Any, messages: Sequence[Mapping[str, Any]], effort: str) -> list[int]:
    """Ids of a whole conversation, the last answer and its thinking included, to train on; all else is as in `render`."""
    return _encode(tokenizer, _apply_template(tokenizer, messages, effort, is_prompt=False))


def _apply_template(tokenizer: Any, messages: Sequence[Mapping[str, Any]], effort: str, *, is_prompt: bool) -> str:
    """The conversation's text, the special tokens that its messages spell out masked."""
    if effort not in EFFORTS:
        raise ExperimentError(f"reasoning effort must be {', '.join(EFFORTS)}; found {effort!r}")
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError("tokenizer has no chat template: expected chat_template.jinja beside the model (Harmony format)")
    find_specials(tokenizer)
    # without what is None: parquet gives every message a `thinking`, and the published template looks into it wherever it is
    masked = [{key: _mask(value) for key, value in message.items() if value is not None} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            masked,
            tokenize=False,
            add_generation_prompt=is_prompt,
            reasoning_effort=effort,
            strftime_now=PINNED_DATE.strftime,
        )
    except jinja2.TemplateError as error:
        raise ModelError(f"the chat template refused the conversation: {error}") from error
    if f"Reasoning: {effort}" not in text:
        raise ModelError(f"the chat template ignores reasoning_effort: its prompt has no line 'Reasoning: {effort}'")
    return text


_SPECIAL = regex.compile(r"(<\|[a-z0-9_]++\|>)")
_SPELLED = regex.compile(r"<(?=\|[a-z0-9_]++\|>)")
_MASK = "\ue0ff"
"""A private-use character that no chat template prints."""


def _mask(value: Any) -> Any:
    """Break up special tokens spelled out in a message, so that the template's own are the only ones in the prompt's text."""
    return _SPELLED.sub(f"<{_MASK}", value) if isinstance(value, str) else value


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Piece by piece, each but once: efforts share the question, questions the system message; the cuts are where the tokenizer cuts."""
    size = len(tokenizer)
    return [token_id for piece in _SPECIAL.split(text) if piece for token_id in _encode_piece(tokenizer, size, piece)]


@lru_cache(maxsize=1024)
def _encode_piece(tokenizer: Any, _size: int, piece: str) -> array[int]:
    """A special token, or the text between two; encoded anew where the vocabulary has grown. An array, for lessons are long."""
    is_text = _MASK in piece
    ids = tokenizer(piece.replace(f"<{_MASK}|", "<|"), add_special_tokens=False, split_special_tokens=is_text)["input_ids"]
    return array("q", ids)


@dataclass(frozen=True, slots=True)
class _Message:
    """One message as cut from the stream."""

    header: Sequence[int]
    """Tokens before <|message|>, without the leading <|start|>."""
    content: Sequence[int] | None
    """None where the stream ended inside the header."""
    is_closed: bool


def parse(token_ids: Sequence[int], specials: Specials, decode: Decode) -> Reply:
    """Take apart what was generated after `<|start|>assistant`. Never raises on any ids that `decode` can read."""
    tokens, stopped = _without_end_of_text(token_ids, specials)
    stopped = stopped or bool(tokens) and tokens[-1] in specials.stop_ids
    messages, malformed = _cut(tokens, specials)
    texts: dict[str, list[str]] = {}
    counts = dict.fromkeys(CHANNELS, 0)
    for index, message in enumerate(messages):
        header = decode(message.header) if len(message.header) <= LONGEST_HEADER else None
        malformed |= not _is_header(header, message, is_first=index == 0, specials=specials)
        channel = _channel(header, is_first=index == 0)
        if channel is None or message.content is None:
            continue
        texts.setdefault(channel, []).append(decode(message.content))
        counts[channel] += len(message.content)
        # Inside the analysis nobody sees them; in a final answer they reach the user.
        malformed |= channel == "final" and not specials.ids.isdisjoint(message.content)
    joined = {channel: "\n".join(parts) for channel, parts in texts.items()}
    is_open = bool(messages) and not messages[-1].is_closed
    malformed |= stopped and is_open and messages[-1].content is None
    return Reply(
        analysis=joined.get("analysis"),
        commentary=joined.get("commentary"),
        final=joined.get("final"),
        form=_form(joined.get("final"), stopped=stopped, is_open=is_open, malformed=malformed, has_messages=bool(messages)),
        stopped=stopped,
        reasoning_tokens=counts["analysis"],
        final_tokens=counts["final"],
        output_tokens=len(token_ids),
    )


def _form(final: str | None, *, stopped: bool, is_open: bool, malformed: bool, has_messages: bool) -> Form:
    if malformed:
        return "malformed"
    if not has_messages:
        return "empty"
    if final is None:
        return "malformed" if stopped else "truncated_analysis"
    if is_open and not stopped:
        return "truncated_final"
    return "complete" if final.strip() else "empty"


def _without_end_of_text(token_ids: Sequence[int], specials: Specials) -> tuple[Sequence[int], bool]:
    """Drop trailing <|endoftext|>; says whether there was one."""
    length = len(token_ids)
    while length and token_ids[length - 1] == specials.end_of_text:
        length -= 1
    return token_ids[:length], length < len(token_ids)


def _cut(tokens: Sequence[int], specials: Specials) -> tuple[list[_Message], bool]:
    """Messages in order, and whether anything stood between them. The first one's <|start|>assistant is in the prompt."""
    closing = (specials.end, specials.return_, specials.call)
    if all(token in closing for token in tokens):
        return [], len(tokens) > 1
    messages, stray, position = [], False, 0
    while position < len(tokens):
        opened = _next(tokens, position, (specials.message,))
        if opened == len(tokens):
            messages.append(_Message(tokens[position:], None, is_closed=False))
            break
        closed = _next(tokens, opened + 1, closing)
        messages.append(_Message(tokens[position:opened], tokens[opened + 1 : closed], is_closed=closed < len(tokens)))
        started = _next(tokens, closed + 1, (specials.start,))
        stray |= started > closed + 1
        position = started + 1
        if started == len(tokens) - 1:
            messages.append(_Message([], None, is_closed=False))
    return messages, stray


def _next(tokens: Sequence[int], start: int, wanted: tuple[int, ...]) -> int:
    """Position of the first wanted token at or after `start`, at most len(tokens)."""
    return next((position for position in range(start, len(tokens)) if tokens[position] in wanted), len(tokens))


def _channel(header: str | None, *, is_first: bool) -> Channel | None:
    """Channel named by an assistant's header; None where it names none we know, or the role is another."""
    found = _CHANNEL.search(header) if header is not None else None
    if header is None or found is None:
        return None
    role = (header[: found.start()] + header[found.end() :]).replace("<|constrain|>", " <|constrain|>").split()
    if not is_first and role[:1] != ["assistant"]:
        return None
    return next((channel for channel in CHANNELS if channel == found["name"]), None)


def _is_header(header: str | None, message: _Message, *, is_first: bool, specials: Specials) -> bool:
    """Whether a header is Harmony, or, where the stream ended inside it, can still become it."""
    if header is None or header.count("<|") != sum(token in specials.ids for token in message.header):
        return False
    return _HEADERS[is_first].fullmatch(header, partial=message.content is None) is not None
