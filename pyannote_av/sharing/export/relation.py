"""ONNX export of networks for clustering: AVR-Net and similar networks, and CYS-MSD."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.export import Dim

from pyannote_av.clustering.avrnet import FACE_SIZE, AVRNet
from pyannote_av.clustering.cysmsd import CYSMSD
from pyannote_av.clustering.embedded import FusedEmbeddings, RelationOfEmbeddings
from pyannote_av.clustering.linkage_tree import NUM_FEATURES
from pyannote_av.sharing.export.graph import Graph, convert

_PAIR = ("audio_a", "face_a", "audio_b", "face_b", "visible_a", "visible_b")


class _AudioMap(nn.Module):
    """``AVRNet.audio_map`` of windows of 2 s"""

    def __init__(self, model: AVRNet):
        super().__init__()
        self.model = model

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.model.audio_map(waveforms)


class _FaceMap(nn.Module):
    """``AVRNet.face_map`` without data-dependent shapes: missing faces are computed as black"""

    def __init__(self, model: AVRNet):
        super().__init__()
        self.model = model

    def forward(self, faces: torch.Tensor, face_mask: torch.Tensor) -> torch.Tensor:
        shape, there = faces.shape[:2], face_mask[:, :, None, None, None]
        pictures = torch.where(there, faces, 0).flatten(0, 1).float()
        maps = self.model._resize(self.model.visual(pictures / 127.5 - 1.0)).unflatten(0, shape)
        count = face_mask.sum(dim=1)[:, None, None, None]
        mean = (maps * there).sum(dim=1) / count.clamp_min(1)
        return torch.where(count > 0, mean, maps[:, 0])


class _Relate(nn.Module):
    """Scores of pairs, from maps or from embeddings"""

    def __init__(self, model: nn.Module, embedded: bool):
        super().__init__()
        self.model, self.embedded = model, embedded

    def forward(self, audio_a, face_a, audio_b, face_b, visible_a, visible_b) -> torch.Tensor:
        model = self.model
        if self.embedded:
            audio_a, audio_b = map(model.audio_map, (audio_a, audio_b))
            face_a = model.face_map(face_a, visible_a)
            face_b = model.face_map(face_b, visible_b)
        if isinstance(model, FusedEmbeddings):
            return model.relate(audio_a, face_a, audio_b, face_b, visible_a, visible_b)
        a, b = torch.cat([face_a, audio_a], dim=1), torch.cat([face_b, audio_b], dim=1)
        a, b = (x if x.ndim == 4 else x[..., None, None] for x in (a, b))
        # score each order separately: the number of pairs is dynamic
        scores = model.relation(model.mask.join(a, b, visible_a, visible_b))
        if not model.hparams.siamese:
            return scores
        return (scores + model.relation(model.mask.join(b, a, visible_b, visible_a))) / 2


def _pairs(model: nn.Module, audio: tuple[int, ...], face: tuple[int, ...]) -> Graph:
    """Graph ``relate`` for audio and face inputs of given shapes"""
    shapes = {"audio": audio, "face": face, "visible": ()}
    module = _Relate(model, embedded=len(audio) == 1)
    enter = (model.audio_map, model.face_map) if module.embedded else (lambda x: x, lambda x, _: x)

    def reference(audio_a, face_a, audio_b, face_b, visible_a, visible_b) -> torch.Tensor:
        audio = enter[0](audio_a), enter[0](audio_b)
        face = enter[1](face_a, visible_a), enter[1](face_b, visible_b)
        return model.relate(audio[0], face[0], audio[1], face[1], visible_a, visible_b)

    def inputs(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        found = {}
        for name in _PAIR:
            shape = shapes[name.partition("_")[0]]
            noise = torch.randn(sizes["pairs"], *shape, generator=generator)
            found[name] = noise if shape else noise > 0
        return found

    axes = {name: {0: Dim("pairs", max=2**20)} for name in _PAIR}
    return Graph(
        "relate",
        reference,
        inputs,
        [{"pairs": 1}, {"pairs": 7}],
        lambda: convert(module, inputs({"pairs": 4}, torch.Generator()), ["scores"], axes),
    )


def embedded(model: RelationOfEmbeddings | FusedEmbeddings) -> list[Graph]:
    """Graph ``relate``: scores of pairs of voice and face embeddings."""
    hparams = model.hparams
    return [_pairs(model.eval(), (hparams.voice_dimension,), (hparams.face_dimension,))]


def avrnet(model: AVRNet) -> list[Graph]:
    """Graphs of AVR-Net: ``audio_map``, ``face_map``, and ``relate``, which compares their outputs.

    Windows have 2 s of sound. Faces are 112 x 112, and ``face_mask`` marks those that are present.
    Each window needs at least one face, which may be masked.
    """
    samples = model.spectrum.num_samples

    def sounds(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"waveforms": 0.1 * torch.randn(sizes["windows"], 1, samples, generator=generator)}

    def faces(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        shape = sizes["windows"], sizes["pictures"]
        pictures = torch.randint(256, (*shape, 3, FACE_SIZE, FACE_SIZE), generator=generator)
        mask = torch.rand(shape, generator=generator) > 0.4
        mask[0] = False  # no visible face
        return {"faces": pictures.byte(), "face_mask": mask}

    windows, pictures = Dim("windows", max=2**16), Dim("pictures", max=2**10)
    axes = {name: {0: windows, 1: pictures} for name in ("faces", "face_mask")}
    generator = torch.Generator()
    example = {"windows": 2, "pictures": 2}
    with torch.inference_mode():
        audio = model.audio_map(sounds(example, generator)["waveforms"]).shape[1:]
        face = model.face_map(*faces(example, generator).values()).shape[1:]
    return [
        Graph(
            "audio_map",
            model.audio_map,
            sounds,
            [{"windows": 1}, {"windows": 3}],
            lambda: convert(
                _AudioMap(model), sounds(example, generator), ["maps"], {"waveforms": {0: windows}}
            ),
        ),
        Graph(
            "face_map",
            model.face_map,
            faces,
            [{"windows": 1, "pictures": 1}, {"windows": 2, "pictures": 3}],
            lambda: convert(_FaceMap(model), faces(example, generator), ["maps"], axes),
        ),
        _pairs(model, tuple(audio), tuple(face)),
    ]


class _Windows(nn.Module):
    """Outputs of CYS-MSD, with or without the speaker count"""

    def __init__(self, model: CYSMSD, counts: bool):
        super().__init__()
        self.model, self.counts = model, counts

    def forward(self, voices, faces, face_mask, window_mask) -> tuple[torch.Tensor, ...]:
        output = self.model(voices, faces, face_mask, window_mask)
        return output[:3] if self.counts else output[:2]


class _Tree(nn.Module):
    """Logits of the number of speakers, from features of the linkage tree of voices"""

    def __init__(self, model: CYSMSD):
        super().__init__()
        self.norm, self.counter = model.tree_norm, model.counter

    def forward(self, tree: torch.Tensor) -> torch.Tensor:
        return self.counter(self.norm(tree))


def cysmsd(model: CYSMSD) -> list[Graph]:
    """Graph of CYS-MSD: ``windows``, which processes the windows of recordings.

    If the network counts speakers from the linkage tree of voices, ``windows`` does not estimate
    their number. A second graph, ``count``, maps ``linkage_tree.tree_features`` to the logits of
    1, 2, ... speakers.
    """
    by_tree = model.hparams.counter == "tree"
    dimensions = model.hparams.voice_dimension, model.hparams.face_dimension

    def inputs(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        shape = sizes["batch"], sizes["windows"]
        voices, faces = (torch.randn(*shape, d, generator=generator) for d in dimensions)
        there = torch.ones(2, *shape, dtype=torch.bool)
        there[0] = torch.rand(shape, generator=generator) > 0.5
        there[0, 0] = False  # no visible face
        there[1, 1:, shape[1] // 2 + 1 :] = False  # padding
        return dict(zip(_WINDOWS, (voices, faces, *there), strict=True))

    def trees(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"tree": torch.rand(sizes["batch"], NUM_FEATURES, generator=generator)}

    network = model
    if by_tree:  # the rest of the network is the same; the tree itself is not built from tensors
        network = CYSMSD(**{**model.hparams, "counter": "mean"})
        state = {k: v for k, v in model.state_dict().items() if not k.startswith(_COUNTER)}
        network.load_state_dict(state, strict=False)
    module = _Windows(network.eval(), counts=not by_tree)
    batch, windows = Dim("batch", max=4096), Dim("windows", max=2**16)
    axes = {name: {0: batch, 1: windows} for name in _WINDOWS}
    names = ("embeddings", "activity_logits", "count")[: 2 + (not by_tree)]
    example = {"batch": 2, "windows": 6}
    whole = Graph(
        "windows",
        lambda *x: model(*x)[: len(names)],
        inputs,
        [{"batch": 1, "windows": 1}, {"batch": 3, "windows": 11}],
        lambda: convert(module, inputs(example, torch.Generator()), names, axes),
    )
    if not by_tree:
        return [whole]
    count = _Tree(model).eval()
    tree_axes = {"tree": {0: batch}}
    return [
        whole,
        Graph(
            "count",
            count,
            trees,
            [{"batch": 1}, {"batch": 5}],
            lambda: convert(count, trees({"batch": 2}, torch.Generator()), ["logits"], tree_axes),
        ),
    ]


_WINDOWS = ("voices", "faces", "face_mask", "window_mask")
_COUNTER = ("counter.", "tree_norm.")
