"""Group faces into scenes, for networks that compare a fixed number of faces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

#: faces in a scene
NUM_FACES = 3


class Scenes(NamedTuple):
    """Scenes with the same first and last frame.

    Attributes
    ----------
    span : (int, int)
        First frame, and one past the last.
    item : (n,) int tensor
        Index in the batch of the item that each scene belongs to.
    slots : (n, 3) int tensor
        Slots of the faces in each scene. A face may occur several times.
    scored : (n, 3) bool tensor
        Faces that take their scores from the scene.
    """

    span: tuple[int, int]
    item: torch.Tensor
    slots: torch.Tensor
    scored: torch.Tensor

    def cast(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Unique faces (item, slot), (m, 2), and their indices in each scene, (n, 3)."""
        item = self.item[:, None].expand_as(self.slots)
        who, role = (
            torch.stack([item, self.slots], dim=-1).flatten(0, 1).unique(dim=0, return_inverse=True)
        )
        return who, role.view_as(self.slots)


def find_scenes(present: torch.Tensor, faces: torch.Tensor, as_one: bool = False) -> list[Scenes]:
    """Group faces into scenes.

    Each face gets its own scene, in which it comes first. The two faces that share the most frames
    with it follow. Ties are broken by brightness (the darker face first), so the order of slots
    never matters. A single other face is repeated. A face without any other is repeated itself.

    Parameters
    ----------
    present : (batch, slots, frames) bool tensor
    faces : (batch, slots, frames, height, width) tensor
        Grey face crops.
    as_one : bool, optional
        Use the three slots of each item, in order, as one scene. Slots without a face are filled
        by repeating other faces.

    Returns
    -------
    scenes : list of Scenes
        Faces that are never present do not occur in any scene.
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
    """The other faces of a scene, the one with the most shared frames first."""
    shared = (there & there[slot]).sum(axis=1)
    others = [k for k in slots if k != slot and shared[k]]
    others = sorted(others, key=lambda k: (-shared[k], light[k])) or [slot]
    return [others[k % len(others)] for k in range(NUM_FACES - 1)]


def _span(there: np.ndarray) -> tuple[int, int]:
    frames = there.nonzero()[0]
    return int(frames[0]), int(frames[-1]) + 1
