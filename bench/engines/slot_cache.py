"""Keys and values of the rows that are being continued, one slot a row.

Live rows fill slots [0, live). Column 0 of a slot is the attention sink: a zero key, whose logit the attention function sets, and a zero
value, so that it takes probability and adds nothing. Position p lies in column 1 + p, in a sliding layer in column 1 + p % window, so
that a slot there is a ring. Buffers are made by the first layer that writes to them and grow on demand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FIRST_COLUMNS = 512
"""Fewest positions that new buffers hold, or a ring's: to grow copies them, and graphs over them are recorded anew."""


@dataclass(frozen=True)
class Layout:
    """Where one forward writes and what its queries see, for the layers of one window."""

    columns: int
    """Columns in use, the sink not counted."""
    where: Tensor
    """Decode: column of each row's new token, (rows, 1). Prefill: which input, the shared ones first, ends up in each column,
    (rows, 1, columns)."""
    mask: Tensor | None
    """Additive, (rows, 1, 1, queries, keys + 1), the sink first; None where every query sees every key."""


class SlotCache:
    """Slots of all layers; the attention function calls `extend` once a layer."""

    def __init__(self, slots: int):
        self.slots = slots
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._windows: dict[int, int | None] = {}
        self._edges: dict[tuple[int, torch.dtype], Tensor] = {}
        """Zeros, then as many times minus infinity, by that number: what a row sees, and does not, is a piece of one. Kept, as are the
        starts below: graphs that were recorded over one read it again."""
        self._starts: dict[tuple[int, int], Tensor] = {}
        """Where the columns of each slot's heads start, by the number of heads and of columns, (slots, heads)."""
        self.prefix: tuple[int, ...] = ()
        """Tokens that prompts begin with and whose keys and values lie beside the slots."""
        self._prefix: dict[int, tuple[Tensor, Tensor]] = {}
        """Those of each layer, (1, heads, tokens, dim)."""

    def begin(self, first: int, last: Tensor, queries: int, width: int, shortest: int = 0, shared: int = 0) -> None:
        """Announce a forward over slots [first, first + rows).

        `last` is the newest position of each row, (rows,); inputs are left-padded to `queries` tokens a row; no position is `width` or
        beyond, and every row has at least `shortest`. The host says so, that it need not wait for the device. Prompts that begin with
        the first `shared` tokens of the prefix have these left out of their inputs.
        """
        self.first, self.last, self.queries, self.width, self.shortest, self.shared = first, last, queries, width, shortest, shared
        self._is_prefix = False
        self._layouts: dict[int | None, Layout] = {}
        self._taken: dict[tuple[int | None, int, int], Tensor] = {}
        self._seen: Tensor | None = None

    def begin_prefix(self, tokens: tuple[int, ...], device: torch.device) -> None:
        """Announce a forward of one row of tokens, which are kept as the prefix and fill no slot."""
        self.begin(0, torch.tensor([len(tokens) - 1], device=device), len(tokens), len(tokens))
        self.prefix, self._is_prefix = tokens, True

    def move(self, source: int, target: int, width: int) -> None:
        """Copy one slot, whose positions are all below `width`, over another."""
        for layer in self.layers.values():
            for buffer in layer:
                buffer[target, :, : width + 1] = buffer[source, :, : width + 1]

    def clear(self, slot: int) -> None:
        """Zero a slot: a hidden column still takes part, with weight zero, and zero times NaN is NaN."""
        for layer in self.layers.values():
            for buffer in layer:
                buffer[slot] = 0

    def reserve(self, width: int) -> bool:
        """Make room for positions below `width` in every layer that has written; True where buffers had to move for it."""
        before = dict(self.layers)
        for layer, (keys, values) in before.items():
            self._reserve(layer, keys, values, min(self._windows[layer] or width, width) + 1)
        return any(self.layers[layer][0] is not keys for layer, (keys, _) in before.items())

    def extend(self, layer: int, keys: Tensor, values: Tensor, window: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store new keys and values, (rows, heads, queries, dim); returns all that the queries may see, and the mask."""
        layout, is_step = self._layouts.get(window), self.queries == 1 and not self.shared
        if layout is None:
            make = self._decode_layout if is_step else self._prefill_layout
            layout = self._layouts[window] = make(window or self.width, keys.dtype)
        if self._is_prefix:
            self._prefix[layer] = keys, values
            return functional.pad(keys, (0, 0, 1, 0)), functional.pad(values, (0, 0, 1, 0)), layout.mask
        self._windows[layer] = window
        buffers = self._reserve(layer, keys, values, layout.columns + 1)
        held = [buffer.narrow(0, self.first, len(keys)).narrow(2, 0, layout.columns + 1) for buffer in buffers]
        if is_step:
            places = self._places(window, *buffers[0].shape[1:3])
            for buffer, new in zip(buffers, (keys, values), strict=True):
                buffer.view(-1, buffer.shape[3]).index_copy_(0, places, new.reshape(-1, buffer.shape[3]))
            return held[0], held[1], layout.mask
        if self.shared:
            before = [kept[:, :, : self.shared].expand(len(keys), -1, -1, -1) for kept in self._prefix[layer]]
            keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
        rows, heads, inputs, _ = keys.shape
        taken = (_starts(rows, heads, inputs, keys.device)[..., None] + layout.where).flatten()
        for view, new in zip(held, (keys, values), strict=True):
            view[:, :, 1:] = new.reshape(-1, new.shape[3]).index_select(0, taken).view(rows, heads, -1, new.shape[3])
        return functional.pad(keys, (0, 0, 1, 0)), functional.pad(values, (0, 0, 1, 0)), layout.mask

    def _places(self, window: int | None, heads: int, columns: int) -> Tensor:
        """Which rows of a buffer, taken as (slots x heads x columns, dim), the new tokens go to, (rows x heads,)."""
        if (places := self._taken.get((window, heads, columns))) is not None:
            return places
        if (start := self._starts.get((heads, columns))) is None:
            start = self._starts[heads, columns] = _starts(self.slots, heads, columns, self.last.device)
        places = (start[self.first : self.first + len(self.last)] + self._layouts[window].where).flatten()
        self._taken[window, heads, columns] = places
        return places

    def _decode_layout(self, window: int, dtype: torch.dtype) -> Layout:
        columns = min(window, self.width)
        where = (self.last + 1 if window >= self.width else self.last % window + 1)[:, None]
        if self.shortest >= columns:
            return Layout(columns, where, None)
        if self._seen is None:  # a ring's is its beginning: every column of a full one is seen
            self._seen = self._seen_columns(dtype)
        return Layout(columns, where, self._seen[..., : columns + 1])

    def _seen_columns(self, dtype: torch.dtype) -> Tensor:
        """Additive mask over all columns in use, (rows, 1, 1, 1, columns + 1): a window on an edge, as far before it as the row is long."""
        columns = self.width + 1
        half = 1 << columns.bit_length()
        if (edge := self._edges.get((half, dtype))) is None:
            edge = torch.zeros(2 * half, dtype=dtype, device=self.last.device)
            edge[half:] = float("-inf")
            self._edges[half, dtype] = edge
        return edge.unfold(0, columns, 1).index_select(0, half - 2 - self.last).view(len(self.last), 1, 1, 1, columns)

    def _prefill_layout(self, window: int, dtype: torch.dtype) -> Layout:
        columns, shared, device = min(window, self.width), self.shared, self.last.device
        padding = shared + self.queries - 1 - self.last[:, None]
        column = torch.arange(columns, device=device)
        newest = self.last[:, None] - (self.last[:, None] - column) % window  # the newest position that falls into a column
        at = torch.arange(shared + self.queries, device=device)
        is_own = at >= shared
        position = at - padding * is_own
        behind = position[:, shared:, None] - position[:, None]
        visible = (behind >= 0) & (behind < window) & ~(is_own & (at < shared + padding))[:, None]
        visible |= at[shared:, None] == at  # a padding query must see something, or its output is NaN
        held = newest.clamp(min=0)
        where = (held + padding * (held >= shared))[:, None]
        return Layout(columns, where, _additive(functional.pad(visible, (1, 0)), dtype))

    def _reserve(self, layer: int, keys: Tensor, values: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        held = self.layers.get(layer)
        if held is None:
            columns = max(columns, min(FIRST_COLUMNS, self._windows[layer] or FIRST_COLUMNS) + 1)
            held = tuple(new.new_zeros(self.slots, new.shape[1], columns, new.shape[3]) for new in (keys, values))
        elif held[0].shape[2] < columns:
            grown = max(columns, held[0].shape[2] * 3 // 2)
            held = tuple(functional.pad(buffer, (0, 0, 0, grown - buffer.shape[2])) for buffer in held)
        self.layers[layer] = held
        return held


def _starts(rows: int, heads: int, columns: int, device: torch.device) -> Tensor:
    """Where each head's columns start once all are laid end to end, (rows, heads)."""
    return torch.arange(rows * heads, device=device).view(rows, heads) * columns


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where visible and -inf elsewhere. The sink's column is set by the attention function, whatever stands there."""
    return torch.where(visible, 0.0, float("-inf")).to(dtype)[:, None, None]
