"""Which faces are looked at together, for networks that compare a fixed number of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

#: faces in a scene
NUM_FACES = 3


class Scenes(NamedTuple):
    """Scenes that last for the same stretch of time.

    Attributes
    ----------
    span : (int, int)
        First frame and one past the last.
    item : (n,) int tensor
        Which item of the batch each scene is from.
    slots : (n, 3) int tensor
        The faces in it, by their slot in the item; a face may be there several times.
    scored : (n, 3) bool tensor
        Whose scores are to be read from it.
    """

    span: tuple[int, int]
    item: torch.Tensor
    slots: torch.Tensor
    scored: torch.Tensor

    def cast(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The (item, slot) of all faces, each once: (m, 2); and who is who in scenes: (n, 3)."""
        item = self.item[:, None].expand_as(self.slots)
        who, role = (
            torch.stack([item, self.slots], dim=-1).flatten(0, 1).unique(dim=0, return_inverse=True)
        )
        return who, role.view_as(self.slots)


def find_scenes(present: torch.Tensor, faces: torch.Tensor, as_one: bool = False) -> list[Scenes]:
    """Put faces into scenes.

    Each face gets a scene of its own where it comes first, followed by the two faces present
    together with it in the largest number of frames. Where that number is the same, what the
    pictures show decides (the darker face first), so that the order of slots never matters. One
    face is repeated when there is no second, the face itself when there is no other.

    Parameters
    ----------
    present : (batch, slots, frames) bool tensor
    faces : (batch, slots, frames, height, width) tensor
        Grey pictures.
    as_one : bool, optional
        Take the three slots of each item as the scene, in their order. Slots where no face ever is
        are filled by repeating others.

    Returns
    -------
    scenes : list of Scenes
        With faces that are never present in none of them.
    """
    seen = present.cpu().numpy()
    light = torch.where(present, faces.sum(dim=(3, 4)), 0).sum(dim=2).cpu().numpy()
    light = light / np.maximum(1, seen.sum(axis=2))
    groups: dict[tuple[int, int], list[tuple[int, list[int], list[bool]]]] = {}
    for item, there in enumerate(seen):
        slots = there.any(axis=1).nonzero()[0].tolist()
        if as_one and slots:
            cast = [k if k in slots else slots[k % len(slots)] for k in range(NUM_FACES)]
            scored = [k in slots for k in range(NUM_FACES)]
            groups.setdefault(_span(there.any(axis=0)), []).append((item, cast, scored))
        elif not as_one:
            for slot in slots:
                cast = [slot, *_company(slot, slots, there, light[item])]
                scored = [True] + [False] * (NUM_FACES - 1)
                groups.setdefault(_span(there[slot]), []).append((item, cast, scored))
    return [
        Scenes(
            span, *(torch.tensor(part, device=present.device) for part in zip(*group, strict=True))
        )
        for span, group in groups.items()
    ]


def _company(slot: int, slots: list[int], there: np.ndarray, light: np.ndarray) -> list[int]:
    """The other faces of a scene, most important one first."""
    shared = (there & there[slot]).sum(axis=1)
    others = [k for k in slots if k != slot and shared[k]]
    others = sorted(others, key=lambda k: (-shared[k], light[k])) or [slot]
    return [others[k % len(others)] for k in range(NUM_FACES - 1)]


def _span(there: np.ndarray) -> tuple[int, int]:
    frames = there.nonzero()[0]
    return int(frames[0]), int(frames[-1]) + 1
