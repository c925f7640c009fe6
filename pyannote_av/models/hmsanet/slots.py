"""Items of a batch have different numbers of target speakers; no work is done for padding."""

from __future__ import annotations

import torch


class Slots:
    """Which slots of a batch are somebody; between one row per slot and one row per somebody.

    Parameters
    ----------
    mask : (batch, slots) bool tensor
    """

    def __init__(self, mask: torch.Tensor):
        self.mask = mask
        self.shape = mask.shape
        rows = mask.flatten().nonzero().squeeze(1)
        # without padding, nothing has to be moved
        self._rows = rows if len(rows) < mask.numel() else None
        self._items = rows.div(mask.shape[1], rounding_mode="floor")

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, slots, ...) to (n, ...), where n slots are somebody."""
        x = x.flatten(0, 1)
        return x if self._rows is None else x.index_select(0, self._rows)

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) to (batch, slots, ...), 0 for padding."""
        if self._rows is not None:
            dense = x.new_zeros(self.mask.numel(), *x.shape[1:])
            x = dense.index_copy(0, self._rows, x)
        return x.unflatten(0, self.shape)

    def each(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, ...) to (n, ...): what is said of an item, for each of its slots."""
        return x.index_select(0, self._items)
