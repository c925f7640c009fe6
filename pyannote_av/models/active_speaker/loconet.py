"""LoCoNet: active speaker detection that compares the faces in a scene.

References
----------
Wang, Cheng, Bertasius. LoCoNet: long-short context network for active speaker detection. CVPR 2024.
https://github.com/SJTUwxz/LoCoNet_ASD
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn

from pyannote_av.models.active_speaker.base import ActiveSpeakerModel, Heads
from pyannote_av.models.active_speaker.scene import NUM_FACES, Scenes, find_scenes
from pyannote_av.models.active_speaker.talknet import rename_attention, rename_common
from pyannote_av.models.blocks.attention import AttentionLayer, CrossAttention
from pyannote_av.models.blocks.logmel import LogMel
from pyannote_av.models.blocks.vggish import VGGish
from pyannote_av.models.blocks.visual_frontend import REACH, VisualEncoder, normalise

_DIMENSION = 128
_NUM_LAYERS = 3

# number of windows of five images that are encoded at once in inference
_CHUNK = 128


class InterSpeaker(nn.Module):
    """Short-term context between the faces of a scene. Weights depend on their order."""

    def __init__(self, dimension: int):
        super().__init__()
        self.mix = nn.Conv2d(dimension, NUM_FACES * dimension, (NUM_FACES, 7), padding=(0, 3))
        self.project = nn.Sequential(
            nn.LayerNorm(dimension),
            nn.Linear(dimension, 2 * dimension),
            nn.GELU(),
            nn.Linear(2 * dimension, dimension),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(scenes, 3, frames, dimension) to the same shape."""
        mixed = self.mix(x.permute(0, 3, 1, 2)).squeeze(2)
        # channels are the outer axis, faces the inner one
        mixed = mixed.unflatten(1, (x.shape[3], NUM_FACES)).permute(0, 2, 3, 1)
        return x + self.project(mixed)


class ContextLayer(nn.Module):
    """Context between faces over 0.3 s, then within each face over the whole sequence."""

    def __init__(self, dimension: int):
        super().__init__()
        self.between = InterSpeaker(dimension)
        self.within = AttentionLayer(dimension)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(scenes, 3, frames, dimension) to the same shape."""
        x = self.between(x)
        return self.within(x.flatten(0, 1)).unflatten(0, (-1, NUM_FACES))


class LoCoNet(ActiveSpeakerModel):
    """LoCoNet; see :class:`~pyannote_av.models.active_speaker.base.ActiveSpeakerModel`.

    The network scores scenes of three faces. The face to score comes first. The two other faces
    that share the most frames with it follow (see
    :func:`~pyannote_av.models.active_speaker.scene.find_scenes`). A single other face is repeated,
    and a face without any other is its own context. Scores therefore work for any number of faces,
    and depend neither on the order of faces nor on faces that are never present. (The published
    evaluation draws the other two faces at random, from those present in the middle of the track.)

    In training, the three faces form one scene. A single pass gives the scores of all three faces,
    and their order matters, as in the published code. Tasks put the face that a training example
    is drawn for first.

    As in the published code, a face is a black image in each frame of the scene from which it is
    absent. A scene lasts from the first to the last frame of the face to score. In training, it
    lasts from the first to the last frame in which any of the three faces is present.

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.
    per_clip_conv3d : bool, optional
        Whether to process each face as a separate clip. The published code concatenates all faces
        of all scenes of a batch in time before the first convolution. The first and last two
        frames of a face then include frames of another face. ``False`` reproduces this: scores
        also depend on the other faces of the scene through this convolution, and in training on
        the rest of the batch. (Outside of training, scenes are scored one by one, as in the
        published evaluation.) Imported checkpoints of the authors have ``False``, because their
        weights were trained this way. A network that is trained here has ``True`` by default:
        faces do not depend on the order in which they are batched, and each is encoded once per
        frame instead of once per scene.
    per_clip_audio : bool, optional
        Whether to pair each scene with its own audio. In the published code, the faces of a batch
        are ordered by scene but the repeated audio is not, so batches of several scenes pair faces
        with the audio of other scenes. ``False`` reproduces this.
    """

    loss_weights: ClassVar = {"fused": 1.0, "acoustic": 0.4, "visual": 0.4}
    learning_rate: ClassVar[float] = 5e-5
    num_faces: ClassVar[int] = NUM_FACES
    PUBLISHED: ClassVar = {"per_clip_conv3d": False}

    def __init__(
        self,
        sample_rate: int = 16000,
        num_channels: int = 1,
        task=None,
        per_clip_conv3d: bool = True,
        per_clip_audio: bool = True,
    ):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.save_hyperparameters("per_clip_conv3d", "per_clip_audio")
        self.per_clip_audio = per_clip_audio
        self.spectrum = LogMel(sample_rate)
        self.acoustic = VGGish()
        self.visual = VisualEncoder(per_clip_conv3d)
        self.fusion = CrossAttention(_DIMENSION)
        self.decoder = nn.Sequential(*(ContextLayer(2 * _DIMENSION) for _ in range(_NUM_LAYERS)))
        self.classifier = nn.Linear(2 * _DIMENSION, 2)
        self.acoustic_classifier = nn.Linear(_DIMENSION, 2)
        self.visual_classifier = nn.Linear(_DIMENSION, 2)

    @staticmethod
    def rename(name: str) -> str | None:
        """See :meth:`ActiveSpeakerModel.rename`."""
        if match := re.fullmatch(r"model\.audioEncoder\.features\.(\d+)\.(\w+)", name):
            # index of a convolution among the layers of VGGish, pooling and activations included
            places = {0: "1.0", 3: "2.0", 6: "3.0", 8: "3.2", 11: "4.0", 13: "4.2"}
            place = places.get(int(match[1]))
            return place and f"acoustic.block{place}.{match[2]}"
        if match := re.fullmatch(r"model\.audioEncoder\.(deconv|conv1|conv2)\.(\w+)", name):
            part = {"deconv": "upsample", "conv1": "reduce.0", "conv2": "reduce.1"}[match[1]]
            return f"acoustic.{part}.{match[2]}"
        if match := re.fullmatch(r"model\.convAV\.(\d)\.(.+)", name):
            layer, is_within = divmod(int(match[1]), 2)
            if is_within:
                part = rename_attention(match[2])
                return part and f"decoder.{layer}.within.{part}"
            part, _, tensor = match[2].partition(".")
            parts = {
                "conv2d": "mix",
                "ln": "project.0",
                "conv2d_1x1": "project.1",
                "conv2d_1x1_2": "project.3",
            }
            return f"decoder.{layer}.between.{parts[part]}.{tensor}" if part in parts else None
        return rename_common(name)

    def heads(self, spectra: torch.Tensor, faces: torch.Tensor) -> Heads:
        """Score scenes of three faces that are present in all frames.

        Parameters
        ----------
        spectra : (n, 4 x frames, 64) tensor
            Log-mel spectra of the audio.
        faces : (n, 3, frames, 112, 112) tensor
            Grey face crops in [0, 255], of any type.

        Returns
        -------
        heads : Heads of (n, 3, frames, ...) tensors
        """
        acoustic = self.acoustic(spectra)
        if self.per_clip_audio:
            acoustic = acoustic.repeat_interleave(NUM_FACES, dim=0)
        else:
            acoustic = acoustic.repeat(NUM_FACES, 1, 1)
        fused, *others = (
            x.unflatten(0, (-1, NUM_FACES))
            for x in self._fuse(acoustic, self.visual(faces.flatten(0, 1)))
        )
        return Heads(self.classifier(self.decoder(fused)), *others)

    def _fuse(self, *features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Fuse (n, frames, 128) features to (n, frames, 256); also return the rest of ``Heads``."""
        acoustic, visual = self.fusion(*features)
        fused = torch.cat([acoustic, visual], dim=-1)
        return (
            fused,
            self.acoustic_classifier(acoustic),
            self.visual_classifier(visual),
            *features,
        )

    def _predict(self, spectra, faces, present) -> Heads:
        """Score each face in its own scene (in training, all faces in one scene)."""
        as_one = self.training and present.shape[1] == NUM_FACES
        scenes = find_scenes(present, faces, as_one)
        is_mended = self.visual.per_clip_conv3d and self.per_clip_audio
        score = self._score_shared if is_mended else self._score_as_published
        found: dict[str, torch.Tensor] = {}
        for group, heads in zip(scenes, score(spectra, faces, present, scenes), strict=True):
            first, last = group.span
            frames = torch.arange(first, last, device=faces.device)
            scene, place = group.scored.nonzero(as_tuple=True)
            item, face = group.item[scene], group.faces[scene, place]
            # a face may come later, or leave earlier, than the scene begins or ends
            there = present[item, face, first:last].int()
            has_come = there.cummax(dim=1).values
            will_be = there.flip(1).cummax(dim=1).values.flip(1)
            within = (has_come & will_be).bool()[..., None]
            for name, values in heads._asdict().items():
                if name not in found:
                    found[name] = values.new_zeros(*present.shape, values.shape[-1])
                values = torch.where(within, values[scene, place], 0.0)
                where = (item[:, None], face[:, None], frames[None])
                found[name] = found[name].index_put(where, values)
        return Heads(**found) if found else Heads(spectra.new_zeros(*present.shape, 2))

    def _score_as_published(self, spectra, faces, present, scenes: list[Scenes]) -> Iterator[Heads]:
        """Score scenes as in the published code: encode three faces for each scene."""
        for (first, last), item, members, _ in scenes:
            size = len(item) if self.training else 1
            heads = []
            for i, s in zip(item.split(size), members.split(size), strict=True):
                visible = present[i[:, None], s, first:last, None, None]
                pictures = torch.where(visible, faces[i[:, None], s, first:last], 0)
                heads.append(self.heads(spectra[i, 4 * first : 4 * last], pictures))
            yield Heads(*(torch.cat(parts) for parts in zip(*heads, strict=True)))

    def _score_shared(self, spectra, faces, present, scenes: list[Scenes]) -> Iterator[Heads]:
        """Score scenes with separate clips, and encode only once what scenes have in common."""
        casts = [group.cast() for group in scenes]
        spans = [group.span for group in scenes]
        pictures = self._encode_pictures(faces, present, spans, [who for who, _ in casts])
        for (first, last), (who, role), features in zip(spans, casts, pictures, strict=True):
            items, item = who[:, 0].unique(return_inverse=True)
            acoustic = self.acoustic(spectra[items, 4 * first : 4 * last])[item]
            fused, *others = self._fuse(acoustic, self.visual.temporal(features))
            logits = self.classifier(self.decoder(fused[role]))
            yield Heads(logits, *(values[role] for values in others))

    def _encode_pictures(self, faces, present, spans, casts) -> list[torch.Tensor]:
        """Encode single crops. Windows of five crops that occur several times are encoded once.

        Parameters
        ----------
        faces, present
            As in :meth:`predict`.
        spans : list of (int, int)
            First frame, and one past the last, of each group of scenes.
        casts : list of (n, 2) int tensors
            Faces (item, face) to encode in each span.

        Returns
        -------
        features : list of (n, frames, 512) tensors
        """
        wanted = []
        for (first, last), who in zip(spans, casts, strict=True):
            frame = torch.arange(first, last, device=faces.device)
            bounds = [frame, (frame - REACH).clamp_min(first), (frame + REACH).clamp_max(last - 1)]
            window = torch.stack(bounds, dim=-1).expand(len(who), -1, -1)
            wanted.append(torch.cat([who[:, None].expand(-1, last - first, -1), window], dim=-1))
        if not wanted:
            return []
        windows, which = torch.unique(
            torch.cat([window.flatten(0, 1) for window in wanted]), dim=0, return_inverse=True
        )
        around = torch.arange(-REACH, REACH + 1, device=faces.device)
        features = []
        # in training, batch normalisation needs all windows at once
        for chunk in windows.split(len(windows) if self.training else _CHUNK):
            item, face, frame, first, last = (column[:, None] for column in chunk.unbind(1))
            frames = frame + around
            exists = ((frames >= first) & (frames <= last))[..., None, None]
            frames = torch.minimum(torch.maximum(frames, first), last)
            visible = present[item, face, frames][..., None, None]
            pictures = normalise(torch.where(visible, faces[item, face, frames], 0))
            features.append(self.visual.pictures(torch.where(exists, pictures, 0.0)))
        features = torch.cat(features)[which]
        counts = [window.shape[:2] for window in wanted]
        parts = features.split([count.numel() for count in counts])
        return [part.unflatten(0, count) for part, count in zip(parts, counts, strict=True)]
