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
    faces : (n, 3) int tensor
        Indices of the faces in each scene. A face may occur several times.
    scored : (n, 3) bool tensor
        Faces that take their scores from the scene.
    """

    span: tuple[int, int]
    item: torch.Tensor
    faces: torch.Tensor
    scored: torch.Tensor

    def cast(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Unique faces (item, face), (m, 2), and their indices in each scene, (n, 3)."""
        item = self.item[:, None].expand_as(self.faces)
        who, role = (
            torch.stack([item, self.faces], dim=-1).flatten(0, 1).unique(dim=0, return_inverse=True)
        )
        return who, role.view_as(self.faces)


def find_scenes(present: torch.Tensor, faces: torch.Tensor, as_one: bool = False) -> list[Scenes]:
    """Group faces into scenes.

    Each face gets its own scene, in which it comes first. The two faces that share the most frames
    with it follow. Ties are broken by brightness (the darker face first), so the order of faces
    never matters. A single other face is repeated. A face without any other is repeated itself.

    Parameters
    ----------
    present : (batch, faces, frames) bool tensor
    faces : (batch, faces, frames, height, width) tensor
        Grey face crops.
    as_one : bool, optional
        Use the three faces of each item, in order, as one scene. Faces that are never present are
        replaced by other faces.

    Returns
    -------
    scenes : list of Scenes
        Faces that are never present do not occur in any scene.
    """
    presence = present.cpu().numpy()
    light = torch.where(present, faces.sum(dim=(3, 4)), 0).sum(dim=2).cpu().numpy()
    light = light / np.maximum(1, presence.sum(axis=2))
    groups: dict[tuple[int, int], list[tuple[int, list[int], list[bool]]]] = {}
    for item, there in enumerate(presence):
        visible = there.any(axis=1).nonzero()[0].tolist()
        if as_one and visible:
            cast = [k if k in visible else visible[k % len(visible)] for k in range(NUM_FACES)]
            scored = [k in visible for k in range(NUM_FACES)]
            groups.setdefault(_span(there.any(axis=0)), []).append((item, cast, scored))
        elif not as_one:
            for face in visible:
                cast = [face, *_company(face, visible, there, light[item])]
                scored = [True] + [False] * (NUM_FACES - 1)
                groups.setdefault(_span(there[face]), []).append((item, cast, scored))
    return [
        Scenes(
            span, *(torch.tensor(part, device=present.device) for part in zip(*group, strict=True))
        )
        for span, group in groups.items()
    ]


def _company(face: int, visible: list[int], there: np.ndarray, light: np.ndarray) -> list[int]:
    """The other faces of a scene, the one with the most shared frames first."""
    shared = (there & there[face]).sum(axis=1)
    others = [k for k in visible if k != face and shared[k]]
    others = sorted(others, key=lambda k: (-shared[k], light[k])) or [face]
    return [others[k % len(others)] for k in range(NUM_FACES - 1)]


def _span(there: np.ndarray) -> tuple[int, int]:
    frames = there.nonzero()[0]
    return int(frames[0]), int(frames[-1]) + 1
