"""The task of target speaker segmentation: batches, losses, metrics, training."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from conversations import write_speech
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import binary_cross_entropy

pytest.importorskip("skimage", reason="the portraits need scikit-image: pip install '.[sample]'")

from pyannote.audio import Model as PyannoteModel
from pyannote.core import Segment, Timeline
from pyannote.database.protocol import SpeakerDiarizationProtocol

from pyannote_av import Model
from pyannote_av.core.batch import AVInput
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.data.array_store import ArrayStore, fill
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.first_pass import build_first_pass, read_first_pass
from pyannote_av.data.speaker_embeddings import build_speaker_embeddings, read_speaker_embeddings
from pyannote_av.data.visual_features import VisualFeatures, build_features, whole_tracks
from pyannote_av.models.embedding.campplus import CAMPPlus
from pyannote_av.models.embedding.voiceprints import voiceprint
from pyannote_av.models.hmsanet.model import HMSANet
from pyannote_av.models.loading import load_model
from pyannote_av.simulation.conversation import Cast, Options
from pyannote_av.simulation.faces import public_portraits
from pyannote_av.simulation.files import simulate_files
from pyannote_av.simulation.scene import SceneOptions
from pyannote_av.simulation.speech import SpeechLibrary
from pyannote_av.simulation.statistics import ConversationStatistics
from pyannote_av.tasks import TargetSpeakerSegmentation
from pyannote_av.tasks.first_pass import FirstPass
from pyannote_av.tasks.recordings import recording
from pyannote_av.tasks.target_batches import TargetBatches, fixed_chunks
from pyannote_av.tasks.target_chunks import Pictures
from pyannote_av.tasks.target_corruption import Corruption
from pyannote_av.tasks.target_metrics import TargetErrorRate, moments, target_metrics
from pyannote_av.tasks.target_speaker_segmentation import LOSSES, target_losses

TINY = {
    "width": 16,
    "heads": 2,
    "num_mels": 16,
    "channels": (4, 4, 4, 4),
    "cgima_layers": 1,
    "disa_layers": 1,
    "dropout": 0.0,
    "face_size": 28,
}
SECONDS = 8.0
URIS = [f"train-3-0000{i}" for i in range(3)]


class Conversations(SpeakerDiarizationProtocol):
    """A protocol of simulated conversations, the last of which are there to validate on"""

    name = "Simulated.SpeakerDiarization.Small"

    def __init__(self, folder, train: list[str], development: list[str]):
        super().__init__()
        self.folder, self._train, self._development = folder, train, development

    def _file(self, uri: str) -> dict:
        from pyannote.database.util import load_rttm

        return {
            "uri": uri,
            "database": "Simulated",
            "audio": str(self.folder / "audio" / f"{uri}.wav"),
            "annotation": load_rttm(self.folder / "rttm" / f"{uri}.rttm")[uri],
            "annotated": Timeline([Segment(0, SECONDS)], uri=uri),
            "face_tracks": str(self.folder / "tracks" / f"{uri}.npz"),
        }

    def train_iter(self):
        yield from map(self._file, self._train)

    def development_iter(self):
        yield from map(self._file, self._development)


@pytest.fixture(scope="module")
def embedder() -> CAMPPlus:
    return load_model("campplus")


@pytest.fixture(scope="module")
def folder(made_once, tmp_path_factory, embedder):
    """Three conversations of two people, and perhaps some who are silent, with voices"""

    def write(folder):
        speech = write_speech(tmp_path_factory.mktemp("speech"))
        library = SpeechLibrary(speech)
        cast = Cast(ConversationStatistics.read("ava_avd"), library, public_portraits())
        scene = SceneOptions(layout="gallery", size=(320, 180), distractors=(1, 1), camera_off=0.0)
        options = Options(speakers=(2, 2), scene=scene)
        report = simulate_files(cast, folder, 3, SECONDS, options, seed=3, store=True)
        assert report.written == URIS
        assert not build_speaker_embeddings(CropStore(folder), embedder=embedder).failed

    return made_once("conversations", write)


@pytest.fixture(scope="module")
def store(folder) -> CropStore:
    return CropStore(folder)


@pytest.fixture(scope="module")
def protocol(folder) -> Conversations:
    return Conversations(folder, URIS[:2], URIS[2:])


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    seed_everything(0)


def trainer(**kwargs) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": 1, **quiet, **kwargs})


@pytest.fixture(scope="module")
def said(store, protocol, tmp_path_factory) -> ArrayStore:
    """A first pass that is nearly right, whose clusters are in another order"""
    files = [*protocol.train(), *protocol.development()]
    recordings = {file["uri"]: recording(file, store) for file in files}

    def posteriors(uri: str) -> np.ndarray:
        activity = recordings[uri].activity(0, round(25 * SECONDS))[:, ::-1]
        count = np.minimum(activity.sum(axis=1), 2)[:, None] == np.arange(3)
        return np.concatenate([0.9 * activity + 0.05, count], axis=1).astype(np.float16)

    folder = tmp_path_factory.mktemp("said")
    digests = {uri: store[uri].index["sha256"]["waveform.npy"] for uri in recordings}
    assert not fill(folder, {}, digests, posteriors).failed
    return ArrayStore(folder)


def batches_of(protocol, store, subset="train", faces=None, **options) -> TargetBatches:
    files = getattr(protocol, subset)()
    recordings = [recording(file, store) for file in files]
    values = {"num_frames": 100, "batch_size": 4, "max_targets": 4, **options}
    if subset == "development":
        values["chunks"] = fixed_chunks(recordings, values["num_frames"])
    return TargetBatches(
        store, recordings, read_speaker_embeddings(store), faces or Pictures(store), **values
    )


# batches


def test_a_batch_is_what_the_files_say(protocol, store):
    """Development: all speakers of the recording, by name, and then whoever else is seen"""
    batches = batches_of(protocol, store, "development", num_frames=100)
    (batch,) = (batches[i] for i in range(len(batches)))
    X, y = batch["X"], batch["y"]
    file = next(protocol.development())
    tracks = FaceTracks.read(file["face_tracks"])
    names = [*sorted(file["annotation"].labels()), "silent0"]
    assert X.faces.shape == (2, 3, 100, 112, 112)
    assert X.waveforms.shape == (2, 1, 64000)
    assert X.speaker_features.shape == (2, 25, 192)
    assert X.voiceprints.shape == (2, 3, 192)
    assert y.shape == (2, 400, 3)
    assert X.target_mask.all()
    assert X.voiceprints.any(dim=2).tolist() == [[True, True, False]] * 2
    features = read_speaker_embeddings(store)[file["uri"]]
    for i, start in enumerate((0, 100)):
        assert (X.waveforms[i, 0].numpy() == store.waveform(file["uri"], start, start + 100)).all()
        np.testing.assert_allclose(X.speaker_features[i], features[start // 4 : start // 4 + 25])
        middle = (4 * start + np.arange(400) + 0.5) / 100
        for s, name in enumerate(names):
            turns = file["annotation"].label_timeline(name) if s < 2 else []
            speaks = np.array([any(t.start <= m < t.end for t in turns) for m in middle])
            assert (y[i, :, s].numpy() == speaks).mean() > 0.995
            (track,) = (t for t, who in tracks.speaker.items() if who == name)
            crops, present = store.crops(file["uri"], track, start, start + 100)
            assert (X.faces[i, s].numpy() == crops).all()
            assert (X.face_mask[i, s].numpy() == present).all()
    assert (batch["acoustic"][:, 2] == -1).all()
    seen = X.face_mask
    assert (batch["visual"][~seen] == -1).all()
    assert (
        batch["visual"][seen] == (batch["y"].transpose(1, 2)[:, :, 2::4])[seen]
    ).float().mean() > 0.9
    assert (batch["sync"][:, 2] == -1).all()
    assert set(batch["sync"].unique().tolist()) == {-1, 1}


def test_clusters_of_the_first_pass_are_given_to_speakers(protocol, store, said):
    batches = batches_of(protocol, store, "development", first_pass=FirstPass(said))
    batch = batches[0]
    X, y = batch["X"], batch["y"]
    assert X.first_pass.shape == (2, 3, 400)
    expected = torch.where(y == 1, 0.95, 0.05).transpose(1, 2)
    torch.testing.assert_close(X.first_pass[:, :2], expected[:, :2], atol=1e-3, rtol=0)
    assert (X.first_pass[:, 2] == -1).all()  # somebody who never speaks
    count = (y[..., :2] == 1).sum(dim=2)
    assert (X.num_speaking.argmax(dim=2) == count).all()


def test_the_first_pass_is_corrupted_in_training(protocol, store, said):
    def batch(**probabilities):
        corruption = Corruption.none(**probabilities)
        options = {"corruption": corruption, "first_pass": FirstPass(said), "num_frames": 200}
        return batches_of(protocol, store, **options)[0, 0, True]

    usual, swapped = batch(), batch(first_pass_swapped=1.0)
    assert not torch.equal(usual["X"].first_pass, swapped["X"].first_pass)
    # of the first chunk; chunks after it are drawn differently
    usual, swapped = usual["X"].first_pass[0], swapped["X"].first_pass[0]
    torch.testing.assert_close(usual.sum(dim=0), swapped.sum(dim=0))
    for dropped in (batch(first_pass_dropped=1.0), batch(sound_dropped=1.0)):
        assert (dropped["X"].first_pass[dropped["X"].target_mask] == -1).all()
        assert not dropped["X"].num_speaking.any()
    # who is known by the face alone is unknown to the first pass
    unheard = batch(voice_dropped=1.0)["X"]
    faceless = unheard.target_mask & ~unheard.voiceprints.any(dim=2)
    assert faceless.any()
    assert (unheard.first_pass[faceless] == -1).all()


def test_a_network_learns_to_correct_the_first_pass(protocol, store, said):
    task = small(protocol, store, first_pass=said.folder, batch_size=2, duration=2.0)
    model = HMSANet(**TINY, visual="compact", first_pass=True)
    model.configure_optimizers = lambda: torch.optim.Adam(model.parameters(), lr=1e-2)
    model.task = task
    trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1).fit(model)
    assert model.decoder.head.weight.any()
    with pytest.raises(FileNotFoundError, match="there are no posteriors of a first pass in"):
        small(protocol, store, first_pass=True)


def test_the_first_pass_is_computed_once(store, tmp_path):
    report = build_first_pass(store, URIS[:1], folder=tmp_path)
    assert report.written == URIS[:1]
    posteriors = read_first_pass(store, tmp_path)[URIS[0]]
    assert len(posteriors) == round(100 * SECONDS)
    assert posteriors.shape[1] > 3
    np.testing.assert_allclose(posteriors[:, -3:].sum(axis=1), 1, atol=0.01)
    assert build_first_pass(store, URIS[:1], folder=tmp_path).kept == URIS[:1]


def test_batches_depend_on_epoch_and_seed_only(protocol, store):
    varied = {
        "corruption": Corruption(sound_dropped=0.2, sound_mixed=0.5, face_mixed=0.3),
        "seed": 3,
    }
    one, other = (batches_of(protocol, store, **varied) for _ in range(2))
    sent = pickle.loads(pickle.dumps(other))
    a, b, c = one[(4, 0, True)], sent[(4, 0, True)], one[(5, 0, True)]
    for name, value in a["X"].present().items():
        assert (value == getattr(b["X"], name)).all()
    for name in ("y", "acoustic", "visual", "sync"):
        assert (a[name] == b[name]).all()
        assert (one[(4, 0, False)][name] == -1).all()
    assert (a["X"].waveforms != c["X"].waveforms).any()


def test_padding_is_never_labelled_and_targets_are_somebody(protocol, store):
    batches = batches_of(protocol, store, corruption=Corruption(), batch_size=8)
    counts, orders = set(), set()
    for epoch in range(6):
        batch = batches[(epoch, 0, True)]
        X = batch["X"]
        padding = ~X.target_mask
        for name in ("acoustic", "visual", "sync"):
            assert (batch[name][padding] == -1).all()
        assert (batch["y"].transpose(1, 2)[padding] == -1).all()
        assert not X.voiceprints[padding].any()
        assert not X.face_mask[padding].any()
        known = X.voiceprints.any(dim=2)
        assert (X.target_mask == (known | X.face_mask.any(dim=2))).all()
        # of who is known by face alone, the face is genuine
        alone = X.target_mask & ~known
        assert (batch["visual"][alone].ge(0) == X.face_mask[alone]).all()
        assert (batch["sync"][alone] != 0).all()
        counts |= set(X.target_mask.sum(dim=1).tolist())
        orders |= {tuple(row) for row in known.tolist()}
    assert len(counts) > 1
    assert len(orders) > 3


def test_without_sound_only_faces_tell(protocol, store):
    batch = batches_of(protocol, store, corruption=Corruption.none(sound_dropped=1.0))[0]
    X = batch["X"]
    assert not X.waveforms.any()
    assert not X.speaker_features.any()
    assert (batch["acoustic"] == -1).all()
    assert (batch["sync"] == -1).all()
    seen = X.face_mask.repeat_interleave(4, dim=2).transpose(1, 2)
    assert (batch["y"].ge(0) == seen).all()


def test_other_recordings_are_mixed_in(protocol, store, tmp_path):
    rng = np.random.default_rng(0)
    digests = dict.fromkeys(URIS, "")

    # in a file everybody sounds alike, and unlike anybody of other files
    voices = {uri: np.tile(voiceprint(rng.standard_normal((1, 192))), (50, 1)) for uri in URIS}
    fill(tmp_path / "strangers", {}, digests, voices.get)
    fill(tmp_path / "friends", {}, digests, lambda uri: voices[URIS[0]])
    waveforms = []
    for corruption in (Corruption.none(), Corruption.none(sound_mixed=1.0)):
        batches = batches_of(protocol, store, corruption=corruption)
        batches = replace(batches, speaker_embeddings=ArrayStore(tmp_path / "strangers"))
        waveforms.append(batches[0]["X"].waveforms)
    plain, mixed = waveforms
    assert (plain != mixed).flatten(1).any(dim=1).all()
    # not where it may be the same people: then targets would speak who are said to be silent
    batches = replace(batches, speaker_embeddings=ArrayStore(tmp_path / "friends"))
    assert (batches[0]["X"].waveforms == plain).all()
    alone = Conversations(protocol.folder, URIS[:1], [])
    batches = batches_of(alone, store, corruption=Corruption(sound_mixed=1.0, dummies=1.0))
    assert set(batches[0]["y"].unique().tolist()) <= {-1, 0, 1}


def test_mirrored_voices_are_as_alike_as_before(protocol, store):
    def voices_of(corruption):  # of the first chunk: what follows is drawn anew
        X = batches_of(protocol, store, corruption=corruption)[0]["X"]
        return X.voiceprints[0], X.speaker_features[0]

    prints, features = voices_of(Corruption.none())
    mirrored, around = voices_of(Corruption.none(voices_mirrored=1.0))
    torch.testing.assert_close(mirrored @ around.T, prints @ features.T)
    assert torch.equal(mirrored.abs(), prints.abs())
    assert (mirrored != prints).any()


def test_chunks_are_inside_of_what_is_annotated(protocol, store):
    files = [dict(file) for file in protocol.train()]
    for file in files:
        file["annotated"] = Timeline([Segment(1.0, 2.2), Segment(3.05, 7.9)])
    recordings = [recording(file, store) for file in files]
    assert [r.regions.tolist() for r in recordings] == [[[25, 55], [77, 197]]] * 2
    batches = TargetBatches(
        store, recordings, read_speaker_embeddings(store), Pictures(store), 50, 64, 4
    )
    rng, starts = np.random.default_rng(0), []
    for _ in range(300):
        chunk = batches._draw(rng)
        starts.append(chunk.start)
        inside = chunk.recording.annotated(chunk.start, chunk.stop)
        # or else it is longer than the region
        assert inside.all() or chunk.start == 28
    assert all(start % 4 == 0 for start in starts)
    share = np.mean(np.array(starts) >= 77)
    assert share == pytest.approx(120 / 150, abs=0.08)
    chunks = fixed_chunks(recordings[:1], 50)
    assert chunks.tolist() == [[0, 24], [0, 76], [0, 124], [0, 172]]
    covered = np.zeros(250, bool)
    for _, start in chunks.tolist():
        covered[start : start + 48] = True
    assert covered[25:55].all()
    assert covered[77:197].all()


# visual features


def test_pieces_of_tracks_are_joined():
    pieces = np.array(
        [[1, 0, 10, 0], [1, 10, 5, 10], [1, 30, 5, 15], [2, 35, 5, 20], [2, 40, 3, 40]]
    )
    assert whole_tracks(pieces).tolist() == [
        [1, 0, 15, 0],
        [1, 30, 5, 15],
        [2, 35, 5, 20],
        [2, 40, 3, 40],
    ]
    assert whole_tracks(pieces[:0]).shape == (0, 4)


@pytest.fixture(scope="module")
def features(store, tmp_path_factory):
    torch.manual_seed(0)
    model, folder = HMSANet(**TINY), tmp_path_factory.mktemp("features")
    report = build_features(store, model, folder)
    assert (report.written, report.failed) == (URIS, {})
    return model, folder


def test_features_are_what_the_model_makes_of_pictures(protocol, store, features):
    model, folder = features
    assert model.training
    faces = VisualFeatures(store, folder)
    assert faces.like().shape == (model.visual_dimension,)
    shard = store[URIS[0]]
    track, (first, last) = next(iter(shard.tracks.items()))
    crops, present = (torch.from_numpy(x)[None, None] for x in shard.crops(track, first, last))
    with torch.no_grad():
        expected = model.eval().visual_features(crops, present)[0, 0]
    found, seen = faces.read(URIS[0], track, first - 5, last + 5)
    assert not found[:5].any()
    assert not seen[-5:].any()
    np.testing.assert_allclose(
        found[5:-5][seen[5:-5]], expected[present[0, 0]], atol=2e-2, rtol=1e-2
    )
    # and are in batches where pictures are
    pictures, numbers = (
        batches_of(protocol, store, "development", faces=source)[0]["X"] for source in (None, faces)
    )
    assert numbers.faces.shape == (*pictures.faces.shape[:3], model.visual_dimension)
    assert (numbers.face_mask == pictures.face_mask).all()


def test_features_are_made_anew_for_another_encoder(store, features, tmp_path):
    model, folder = features
    assert build_features(store, model, folder).kept == URIS
    with torch.no_grad():
        model.decoder.head.weight += 1
    assert build_features(store, model, folder).kept == URIS
    build_features(store, model, tmp_path, URIS[:1])
    torch.manual_seed(1)
    other = HMSANet(**TINY)
    assert build_features(store, other, tmp_path, URIS[:1]).written == URIS[:1]
    with pytest.raises(FileNotFoundError, match="build_features"):
        VisualFeatures(store, tmp_path / "nothing")


# losses


def some_batch(protocol, store, **options):
    batches = batches_of(protocol, store, corruption=Corruption(), batch_size=6, **options)
    for epoch in range(20):
        batch = batches[(epoch, 0, True)]
        if (
            (batch["sync"] == 0).any()
            and (batch["sync"] == 1).any()
            and not batch["X"].target_mask.all()
        ):
            return batch
    raise AssertionError("no batch has it all")


@torch.no_grad()
def losses_of(model, batch) -> dict[str, float]:
    output = model.predict(**batch["X"].present())
    return {name: float(part.mean()) for name, part in target_losses(output, batch, LOSSES).items()}


def rearranged(batch, change):
    """With `change` applied along the axis of targets of all there is"""
    parts = batch["X"].present()
    targets = ("faces", "face_mask", "target_mask", "voiceprints")
    X = AVInput(**{name: change(x, 1) if name in targets else x for name, x in parts.items()})
    labels = {name: change(batch[name], 1) for name in ("acoustic", "visual", "sync")}
    return {"X": X, "y": change(batch["y"], 2), **labels}


def test_losses_do_not_depend_on_the_order_of_targets_nor_on_padding(protocol, store):
    batch, model = some_batch(protocol, store), HMSANet(**TINY).eval()
    expected = losses_of(model, batch)
    assert set(expected) == set(LOSSES)
    assert all(value > 0 for value in expected.values())
    order = torch.randperm(batch["y"].shape[2])
    found = losses_of(model, rearranged(batch, lambda x, axis: x.index_select(axis, order)))
    assert found == pytest.approx(expected, rel=1e-4)

    def padded(x, axis):
        fill = -1 if x.dtype == torch.int8 else 0
        extra = torch.full_like(x.narrow(axis, 0, 1), fill).repeat_interleave(2, dim=axis)
        return torch.cat([x, extra], dim=axis)

    assert losses_of(model, rearranged(batch, padded)) == pytest.approx(expected, rel=1e-4)


def test_nothing_that_is_not_labelled_is_in_a_loss(protocol, store):
    """Logits of padding, and of what is unknown, have no gradient"""
    batch, model = some_batch(protocol, store), HMSANet(**TINY).eval()
    with torch.no_grad():
        output = model.predict(**batch["X"].present())
    output = output._replace(
        **{
            name: value.detach().requires_grad_()
            for name, value in output._asdict().items()
            if isinstance(value, torch.Tensor)
        }
    )
    sum(part.mean() for part in target_losses(output, batch, LOSSES).values()).backward()
    y = batch["y"].transpose(1, 2)
    for name, labels in (
        ("logits", y),
        ("acoustic_logits", batch["acoustic"]),
        ("visual_logits", batch["visual"]),
        ("gate_logits", batch["sync"]),
    ):
        gradient = getattr(output, name).grad
        assert not gradient[labels == -1].any()
        assert gradient[labels != -1].any()
    assert not output.fused_logits.grad[~batch["X"].target_mask].any()
    assert not output.acoustic_sync.grad[batch["sync"] != 1].any()


@torch.no_grad()
def test_losses_are_means_over_what_is_labelled(protocol, store):
    batch, model = some_batch(protocol, store), HMSANet(**TINY).eval()
    output, y = model.predict(**batch["X"].present()), batch["y"].transpose(1, 2)
    found = target_losses(output, batch, {"diarization", "visual", "gate"})
    assert set(found) == {"diarization", "visual", "gate"}
    for name, logits, labels in (
        ("diarization", output.logits, y),
        ("visual", output.visual_logits, batch["visual"]),
        ("gate", output.gate_logits.mean(-1), batch["sync"][..., None].repeat(1, 1, 1, 2)),
    ):
        known = labels >= 0
        expected = binary_cross_entropy(logits[known].sigmoid(), labels[known].float())
        assert float(found[name].mean()) == pytest.approx(float(expected), rel=1e-4)
    unknown = {
        name: torch.full_like(batch[name], -1) for name in ("y", "acoustic", "visual", "sync")
    }
    assert all(part.mean() == 0 for part in target_losses(output, unknown, LOSSES).values())
    plain = HMSANet(**TINY, fusion="concat").eval().predict(**batch["X"].present())
    assert set(target_losses(plain, batch, LOSSES)) == {
        "diarization",
        "fused",
        "acoustic",
        "visual",
    }


# metrics


def test_errors_are_those_of_pyannote_where_targets_are_known():
    from pyannote.core import Annotation
    from pyannote.metrics.diarization import DiarizationErrorRate

    rng = np.random.default_rng(0)
    truth, found = (np.kron(rng.random((3, 20, 4)) < 0.4, np.ones((1, 10, 1))) for _ in range(2))
    reference, hypothesis = Annotation(), Annotation()
    for annotation, active in ((reference, truth), (hypothesis, found)):
        for b, step, s in zip(*np.nonzero(active), strict=True):
            start = b * 200 + step
            annotation[Segment(start, start + 1), s] = f"{b}{s}"
    expected = DiarizationErrorRate()
    # no matching of speakers: those of one name are the same
    components = expected.compute_components(
        reference.support(), hypothesis.support(), uem=Timeline([Segment(0, 600)])
    )
    target = torch.from_numpy(truth).to(torch.int8)
    activity = torch.from_numpy(found)
    values = target_metrics()
    where = moments(target, torch.ones(3, 50, 4, dtype=torch.bool))
    for metric in values.values():
        metric.update(activity, target, moments=where)
    wrong = float(values["DiarizationErrorRate"].compute())
    parts = [
        float(values[f"DiarizationErrorRate/{n}"].compute())
        for n in ("FalseAlarm", "Miss", "Confusion")
    ]
    assert sum(parts) == pytest.approx(wrong, abs=1e-6)
    total = components["total"]
    assert parts[0] == pytest.approx(components["false alarm"] / total, abs=1e-6)
    assert parts[1] == pytest.approx(components["missed detection"] / total, abs=1e-6)
    # matching may find a better permutation, never a worse one
    assert parts[2] >= components["confusion"] / total - 1e-6


def test_errors_by_moment():
    #            nobody  one  two  one, unseen; not scored
    target = torch.tensor([[[0, 0], [1, 0], [1, 1], [0, 1], [-1, -1]]], dtype=torch.int8)
    target = target.repeat_interleave(4, dim=1)
    seen = torch.tensor([[[1, 1], [1, 0], [1, 1], [1, 0], [1, 1]]], dtype=torch.bool)
    where = moments(target, seen)
    assert {name: moment[0, ::4].int().tolist() for name, moment in where.items()} == {
        "single": [0, 1, 0, 1, 0],
        "overlap": [0, 0, 1, 0, 0],
        "visible": [0, 1, 1, 0, 0],
        "hidden": [0, 0, 0, 1, 0],
    }
    # a false alarm, a confusion, a miss, a miss
    found = torch.tensor([[[1, 0], [0, 1], [1, 0], [0, 0], [1, 1]]]).repeat_interleave(4, dim=1)
    rates = {}
    for name in ("single", "overlap", "visible", "hidden", None):
        metric = TargetErrorRate(condition=name)
        metric.update(found, target, moments=where)
        rates[name] = float(metric.compute())
    assert rates == pytest.approx(
        {"single": 1.0, "overlap": 0.5, "visible": 2 / 3, "hidden": 1.0, None: 1.0}
    )
    assert float(TargetErrorRate().compute()) == 0


# training


def small(protocol, store, **options) -> TargetSpeakerSegmentation:
    values = {"duration": 4.0, "batch_size": 2, "num_workers": 0, "max_targets": 4, **options}
    return TargetSpeakerSegmentation(protocol, store, **values)


class Losses(Callback):
    """Notes the training loss of every epoch"""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, model):
        self.seen.append(float(trainer.callback_metrics["loss/train"]))


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_train_validate_save_and_load(num_workers, protocol, store, features, tmp_path):
    folder = features[1]
    task = small(
        protocol,
        store.folder,
        features=folder,
        cache=tmp_path / "cache.npz",
        num_workers=num_workers,
    )
    model = HMSANet(**TINY, task=task)
    monitor, mode = task.val_monitor
    assert (monitor, mode) == ("loss/val", "min")
    checkpoint = ModelCheckpoint(tmp_path, monitor=monitor, mode=mode, filename="best")
    run = trainer(max_epochs=2, enable_checkpointing=True, callbacks=[checkpoint])
    run.fit(model)
    assert run.global_step == 4
    assert {
        "loss/train",
        "loss/val",
        "loss/val/gate",
        "DiarizationErrorRate",
        "DiarizationErrorRate/Overlap",
    } <= set(run.callback_metrics)
    assert run.callback_metrics["loss/val"] == run.callback_metrics["loss/val/diarization"]
    assert all(math.isfinite(value) for value in run.callback_metrics.values())

    trained, X = run.lightning_module.eval(), task.batches("development")[0]["X"]
    trained.load_state_dict(
        torch.load(checkpoint.best_model_path, weights_only=False)["state_dict"]
    )
    with torch.no_grad():
        expected = trained(X)
        assert expected.shape == (*task.batches("development")[0]["y"].shape,)
        for load in (Model.from_pretrained, PyannoteModel.from_pretrained):
            loaded = load(checkpoint.best_model_path).eval()
            assert isinstance(loaded, HMSANet)
            assert torch.equal(loaded(X), expected)
            assert loaded.specifications == task.specifications
        assert torch.equal(Model.from_pretrained(trained.save(tmp_path))(X), expected)
    # fine-tuning: on another protocol, with some of it frozen
    other = Conversations(protocol.folder, URIS[2:], URIS[:1])
    other.name = "Simulated.SpeakerDiarization.Other"
    loaded.task = small(other, store, features=folder)
    loaded.freeze_by_name(["acoustic", "visual", "fusion"])
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    trainer().fit(loaded)
    changed = {
        name.split(".")[0]
        for name, value in loaded.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed == {"decoder"}


def test_losses_are_set_between_stages(protocol, store, features):
    task = small(protocol, store, losses={"visual": 1.0, "diarization": 0.0}, features=features[1])
    assert task.losses == {"visual": 1.0}
    model = HMSANet(**TINY, task=task)
    start = {name: value.clone() for name, value in model.named_parameters()}
    run = trainer()
    run.fit(model)
    assert run.callback_metrics["loss/val"] == run.callback_metrics["loss/val/visual"]
    moved = {n.split(".")[0] for n, value in model.named_parameters() if (value != start[n]).any()}
    assert moved == {"visual"}
    task.losses = {"fused": 1.0, "gate": 0.2}
    task.features, task.corruption = False, {"dummies": 1.0}
    assert task.batches("train").corruption == Corruption(dummies=1.0)
    assert task.batches("train")[0]["X"].faces.ndim == 5
    with pytest.raises(ValueError, match=r"unknown losses \['fuse'\]"):
        task.losses = {"fuse": 1.0}
    with pytest.raises(ValueError, match="must be positive"):
        task.losses = {"fused": 0.0}


def test_it_learns(protocol, store, features):
    """Nothing but that the loss falls: what can be learnt from this is another matter"""
    model = HMSANet(**TINY)
    model.configure_optimizers = lambda: torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"corruption": Corruption.none(), "losses": {"diarization": 1.0}}
    model.task = small(protocol, store, features=features[1], **options)
    losses = Losses()
    trainer(max_epochs=30, limit_val_batches=0, callbacks=[losses]).fit(model)
    assert np.mean(losses.seen[-10:]) < 0.85 * np.mean(losses.seen[:3])


def test_default_trainer_with_pictures_and_augmentation(protocol, store):
    """The summary asks models for an example of their input"""
    from torch_audiomentations import Gain

    gain = Gain(6.0, 6.001, p=1.0, output_type="dict")
    options = {"corruption": Corruption.none(), "duration": 2.0}
    task = small(protocol, store, augmentation=gain, **options)
    trainer(enable_model_summary=True, fast_dev_run=True).fit(HMSANet(**TINY, task=task))
    loud = task.batches("train")[0]["X"].waveforms
    plain = batches_of(protocol, store, num_frames=50, batch_size=2)[0]["X"].waveforms
    assert torch.allclose(loud, plain * 10 ** (6 / 20), rtol=1e-3)


def test_files_that_are_not_all_there_are_named(
    protocol, store, features, embedder, tmp_path, caplog
):
    with pytest.raises(FileNotFoundError, match="build_speaker_embeddings"):
        small(protocol, store, speaker_embeddings=tmp_path / "none")
    build_speaker_embeddings(store, URIS[1:], embedder, tmp_path)
    task = small(protocol, store, speaker_embeddings=tmp_path)
    task.prepare_data()
    assert "1 train files" in caplog.text
    assert URIS[0] in caplog.text
    task = small(
        Conversations(protocol.folder, URIS[:1], URIS[1:]), store, speaker_embeddings=tmp_path
    )
    with pytest.raises(
        ValueError, match="there is no speech, or no annotation, in its train files"
    ):
        task.prepare_data()


def test_cache_of_another_protocol(protocol, store, tmp_path):
    small(protocol, store, cache=tmp_path / "cache").prepare_data()
    other = Conversations(protocol.folder, URIS[:2], URIS[2:])
    other.name = "Other.SpeakerDiarization.Small"
    task = small(other, store, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"of protocol Simulated.*not Other"):
        task.prepare_data()


def test_recordings_without_faces(protocol, store):
    """Sound alone is enough"""
    files = [dict(file) for file in protocol.train()]
    for file in files:
        del file["face_tracks"]
    recordings = [recording(file, store) for file in files]
    batches = TargetBatches(
        store,
        recordings,
        read_speaker_embeddings(store),
        Pictures(store),
        50,
        8,
        4,
        corruption=Corruption(),
    )
    batch = batches[0]
    assert not batch["X"].face_mask.any()
    assert (batch["visual"] == -1).all()
    assert (batch["y"] >= 0).any()


@pytest.mark.slow
def test_two_processes_train_and_validate(protocol, store, features):
    task = small(protocol, store, features=features[1], duration=2.0, corruption=Corruption())
    model = HMSANet(**TINY, task=task)
    before = model.decoder.head.weight.clone()
    # the visual encoder does nothing here
    strategy = "ddp_spawn_find_unused_parameters_true"
    run = trainer(devices=2, strategy=strategy, max_epochs=2)
    run.fit(model)
    assert math.isfinite(run.callback_metrics["loss/val"])
    assert math.isfinite(run.callback_metrics["DiarizationErrorRate"])
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert (model.decoder.head.weight != before).any()


def test_pictures_are_not_read_where_nobody_looks(protocol, store):
    seen, unseen = (
        small(protocol, store, losses={name: 1.0}, batch_size=3) for name in ("visual", "acoustic")
    )
    for task in (seen, unseen):
        task.prepare_data()
        task.setup()
    for subset in ("train", "development"):
        batch, other = seen.batches(subset)[0], unseen.batches(subset)[0]
        assert batch["X"].faces.any()
        assert not other["X"].faces.any()
        assert other["X"].faces.shape[3:] == (1, 1)
        for name in ("waveforms", "face_mask", "target_mask", "voiceprints", "speaker_features"):
            assert torch.equal(getattr(batch["X"], name), getattr(other["X"], name)), name
        for name in ("y", "acoustic", "visual", "sync"):
            assert torch.equal(batch[name], other[name]), name
    unseen.losses = {"acoustic": 1.0, "visual": 1.0}
    assert unseen.batches("train")[0]["X"].faces.any()
