"""Pack the target speakers of a batch into rows, so that padding slots cost no computation."""

from __future__ import annotations

import torch


class Slots:
    """Convert between one row per slot and one row per target speaker.

    The items of a batch may have different numbers of target speakers. The remaining slots are
    padding.

    Parameters
    ----------
    mask : (batch, slots) bool tensor
        True for slots that hold a target speaker.
    """

    def __init__(self, mask: torch.Tensor):
        self.mask = mask
        self.shape = mask.shape
        rows = mask.flatten().nonzero().squeeze(1)
        # without padding, no rows have to be moved
        self._rows = rows if len(rows) < mask.numel() else None
        self._items = rows.div(mask.shape[1], rounding_mode="floor")

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, slots, ...) to (n, ...), where n is the number of target speakers."""
        x = x.flatten(0, 1)
        return x if self._rows is None else x.index_select(0, self._rows)

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) to (batch, slots, ...), with 0 in padding slots."""
        if self._rows is not None:
            dense = x.new_zeros(self.mask.numel(), *x.shape[1:])
            x = dense.index_copy(0, self._rows, x)
        return x.unflatten(0, self.shape)

    def each(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, ...) to (n, ...): repeat each item for each of its target speakers."""
        return x.index_select(0, self._items)
