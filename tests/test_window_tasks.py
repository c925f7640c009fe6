"""Tasks that learn from windows: labels, episodes, relation of pairs, counting."""

import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from conversations import write_speech
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, seed_everything
from torchmetrics.classification import BinaryAUROC

pytest.importorskip("skimage", reason="the portraits need scikit-image: pip install '.[sample]'")

from pyannote.core import Annotation, Segment, Timeline
from pyannote.database.protocol import SpeakerDiarizationProtocol, SpeakerVerificationProtocol
from pyannote.database.util import load_rttm

from pyannote_av import Model
from pyannote_av.clustering.avrnet import AVRNet
from pyannote_av.clustering.clustering_error import (
    THRESHOLDS,
    ClusteringDER,
    clustering_errors,
    overlap,
)
from pyannote_av.clustering.counting_batches import CountingBatches
from pyannote_av.clustering.cysmsd import CYSMSD
from pyannote_av.clustering.embedded import FusedEmbeddings, RelationOfEmbeddings
from pyannote_av.clustering.episodes import Episodes, find_speakers
from pyannote_av.clustering.labelled_windows import faces_of, label_windows
from pyannote_av.clustering.pairwise_relation import PairwiseRelation
from pyannote_av.clustering.speaker_counting import SpeakerCounting
from pyannote_av.clustering.windows import all_faces
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.face_embeddings import build_face_embeddings
from pyannote_av.data.speaker_embeddings import build_speaker_embeddings
from pyannote_av.simulation.conversation import Cast, Options
from pyannote_av.simulation.faces import public_portraits
from pyannote_av.simulation.files import simulate_files
from pyannote_av.simulation.scene import SceneOptions
from pyannote_av.simulation.speech import SpeechLibrary
from pyannote_av.simulation.statistics import ConversationStatistics
from pyannote_av.tasks.recordings import LabelledFile
from pyannote_av.training import Stage, optimize

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SECONDS = 20.0
URIS = [f"train-2-0000{i}" for i in range(4)]
#: of faces, as `Thumbnail` has them
FACE = 48
#: short enough for speakers of a few seconds to have some
SHORT = {"duration": 1.2, "step": 0.48, "num_workers": 0}


class Thumbnail:
    """Faces as tiny pictures: people who look different are different"""

    name, size = "thumbnail", 4

    def __call__(self, faces):
        vectors = faces.reshape(len(faces), -1) - np.float32(127)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Conversations(SpeakerDiarizationProtocol):
    """A protocol of simulated conversations, with changes to its files, perhaps."""

    name = "Simulated.SpeakerDiarization.Windows"

    def __init__(self, folder, train, development=(), change=lambda file: file):
        super().__init__()
        self.folder, self._train, self._development = folder, train, development
        self._change = change

    def _file(self, uri: str) -> dict:
        return self._change(
            {
                "uri": uri,
                "database": "Simulated",
                "audio": str(self.folder / "audio" / f"{uri}.wav"),
                "annotation": load_rttm(self.folder / "rttm" / f"{uri}.rttm")[uri],
                "annotated": Timeline([Segment(0, SECONDS)], uri=uri),
                "face_tracks": str(self.folder / "tracks" / f"{uri}.npz"),
            }
        )

    def train_iter(self):
        yield from map(self._file, self._train)

    def development_iter(self):
        if not self._development:
            raise NotImplementedError
        yield from map(self._file, self._development)


class Utterances(Conversations, SpeakerVerificationProtocol):
    """One person in each file"""

    name = "Simulated.SpeakerVerification.Windows"


def across(file: dict) -> dict:
    """Names that are valid in all files: everybody is in two of three"""
    number = int(file["uri"][-1]) % 3
    names = {f"spk{k:02d}": "abc"[(number + k) % 3] for k in range(2)}
    tracks = FaceTracks.read(file["face_tracks"])
    named = {track: names.get(name, name) for track, name in tracks.speaker.items()}
    annotation = file["annotation"].rename_labels(mapping=names)
    changed = {"annotation": annotation, "face_tracks": tracks.with_speakers(named)}
    return {**file, **changed, "scope": "database"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four conversations of two people, and perhaps of one who is silent, with voices and faces"""
    speech = write_speech(tmp_path_factory.mktemp("speech"))
    cast = Cast(ConversationStatistics.read("ava_avd"), SpeechLibrary(speech), public_portraits())
    scene = SceneOptions(layout="gallery", size=(320, 180), distractors=(0, 1), camera_off=0.0)
    folder = tmp_path_factory.mktemp("store")
    options = Options(speakers=(2, 2), scene=scene)
    report = simulate_files(cast, folder, 4, SECONDS, options, seed=2, store=True)
    assert report.written == URIS
    store = CropStore(folder)
    assert not build_speaker_embeddings(store).failed
    assert not build_face_embeddings(store, embedder=Thumbnail()).failed
    return folder


@pytest.fixture(scope="module")
def store(folder) -> CropStore:
    return CropStore(folder)


@pytest.fixture(scope="module")
def protocol(folder) -> Conversations:
    return Conversations(folder, URIS[:3], URIS[3:])


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    seed_everything(0)


def ready(task, subset="train"):
    """Batches of a task, without a model"""
    task.prepare_data()
    task.setup()
    return task.batches(subset)


# windows


def file_of(turns, seconds=10.0, regions=None, faces=()) -> LabelledFile:
    """Turns in seconds of two speakers"""
    rows = [(who, round(100 * start), round(100 * end)) for who, start, end in turns]
    regions = [(0, round(25 * seconds))] if regions is None else regions
    return LabelledFile(
        "file",
        ["a", "b"],
        2,
        np.array(rows, np.int64).reshape(-1, 3),
        np.array(regions, np.int64).reshape(-1, 2),
        np.array(faces, np.int64).reshape(-1, 4),
    )


def test_whoever_speaks_for_half_of_a_window_is_its_speaker():
    one = label_windows(file_of([(0, 0.0, 2.0), (1, 1.5, 4.0), (0, 6.0, 6.4)]), 2.0, 1.0)
    assert one.windows.span.tolist() == [[0, 2], [1, 3], [2, 4], [6, 6.4]]
    assert one.active.tolist() == [[1, 0], [1, 1], [0, 1], [1, 0]]


def test_only_what_is_annotated_is_cut():
    spoken = [(0, 0.0, 2.0), (1, 1.5, 4.0)]
    one = label_windows(file_of(spoken, regions=[(0, 50), (80, 250)]), 2.0, 1.0)
    assert one.windows.span == pytest.approx(np.array([[0, 2], [3.2, 4]]))
    assert one.active.tolist() == [[1, 0], [0, 1]]
    nothing = label_windows(file_of([(0, 0.0, 2.0)], regions=[(100, 200)]), 2.0, 1.0)
    assert len(nothing.windows) == 0
    assert nothing.active.shape == (0, 2)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 900), st.integers(1, 90)), max_size=8),
    st.sampled_from([(1.0, 0.5), (2.0, 0.5), (1.5, 1.5)]),
)
@settings(max_examples=40, deadline=None)
def test_shares_are_those_of_steps(turns, size):
    speaks = np.zeros((1000, 2), bool)
    for who, start, length in turns:
        speaks[start : start + length, who] = True
    runs = []  # of one speaker turns do not overlap
    for who in range(2):
        edges = np.flatnonzero(np.diff(np.r_[0, speaks[:, who], 0])).reshape(-1, 2)
        runs += [(who, a / 100, b / 100) for a, b in edges.tolist()]
    one = label_windows(file_of(runs), *size)
    own = np.zeros(1000)
    for (start, end), mine, active in zip(*one.windows, one.active, strict=True):
        share = speaks[round(100 * start) : round(100 * end)].mean(axis=0)
        sure = np.abs(share - 0.5) > 1e-6
        assert (active == (share >= 0.5))[sure].all()
        first, last = np.round(100 * mine).astype(int)
        own[first:last] += 1
    assert (own[~speaks.any(axis=1)] == 0).all()
    # to the rounding of borders
    assert abs(own.sum() - speaks.any(axis=1).sum()) <= len(one.windows)


def test_faces_of_windows_are_those_of_their_speakers(protocol, store):
    batches = ready(PairwiseRelation(protocol, store, **SHORT))
    reader = batches.reader
    size = len(pickle.dumps(reader))
    for one in batches.files:
        samples, (person, number, first, last) = (
            reader.face_samples(one.recording.uri),
            one.recording.faces[0],
        )
        rows = np.arange(len(one.windows))
        faces, visible = faces_of(samples, one, rows, int(person))
        assert visible.all()
        mine = samples.track == number
        assert (first, last) == (0, 25 * SECONDS)
        middle = one.windows.span.mean(axis=1) * 25
        inside = one.windows.span[:, :1] * 25 <= samples.frame
        inside &= samples.frame < one.windows.span[:, 1:] * 25
        for i in rows:
            seen = np.flatnonzero(mine & inside[i])
            if not len(seen):  # at most a second away, as there is one every second
                seen = np.flatnonzero(mine)
                seen = seen[[np.abs(samples.frame[seen] - middle[i]).argmin()]]
            np.testing.assert_allclose(faces[i], samples.vector[seen].mean(axis=0), atol=1e-3)
        # no face is used in training who has no track
        assert not faces_of(samples, one, rows, 99)[1].any()
        together, anybody = all_faces(one.windows, samples)
        assert anybody.tolist() == inside.any(axis=1).tolist()
        assert together.shape == (len(rows), FACE)
    # face samples that were read are not sent to other processes
    assert len(pickle.dumps(reader)) - size < 1000 < samples.vector.nbytes


# episodes


def origins(batches: Episodes) -> dict[bytes, tuple[int, int]]:
    """Which window of which file a voice is of"""
    found = {}
    for number, one in enumerate(batches.files):
        for row, voice in enumerate(batches.reader.audio(one.recording.uri, one.windows)):
            found[voice.tobytes()] = number, row
    return found


def speakers_of(batches: Episodes, batch) -> list[list[list[tuple[int, str, int]]]]:
    """(file, name, row) by episode, way, and support or query"""
    known, found = origins(batches), []
    for episode in batch["audio"].numpy().swapaxes(1, 2):
        ways = []
        for way in episode:
            pair = []
            for voice in way:
                number, row = known[np.ascontiguousarray(voice).tobytes()]
                one = batches.files[number]
                (who,) = np.flatnonzero(one.active[row])  # nobody else
                pair.append((number, one.recording.persons[who], row))
            ways.append(pair)
        found.append(ways)
    return found


def test_episodes_of_names_that_are_valid_in_a_file(protocol, store):
    batches = ready(
        PairwiseRelation(protocol, store, ways=3, batch_size=4, batches_per_epoch=5, **SHORT)
    )
    assert len(batches) == 5
    assert not batches.across
    for index in range(3):
        batch = batches[(0, index, True)]
        assert batch["audio"].shape == (4, 2, 3, 192)
        assert batch["faces"].shape == (4, 2, 3, FACE)
        assert batch["visible"].shape == (4, 2, 3)
        assert not batch["faces"][~batch["visible"]].any()
        assert batch["counts"]
        for ways, numbers in zip(speakers_of(batches, batch), batch["speakers"], strict=True):
            for (file, name, row), (other, also, another) in ways:
                assert (file, name) == (other, also)
                assert row != another
            # one of each recording: these are said to be different people
            assert len({file for (file, *_), _ in ways}) == 3
            assert len(set(numbers.tolist())) == 3


def test_clips_of_one_video_are_not_different_videos(protocol, store):
    options = {"ways": 4, "per_recording": 2, "batch_size": 8, **SHORT}
    batches = ready(PairwiseRelation(protocol, store, videos=r"(train-2-0000)[01]", **options))
    assert batches.videos == [0, 0, 1]
    found = set()
    for ways in speakers_of(batches, batches[0]):
        files = {file for (file, *_), _ in ways}
        assert files in ({0, 2}, {1, 2})
        assert len({(file, name) for (file, name, _), _ in ways}) == 4
        found |= files
    assert found == {0, 1, 2}
    # names that are valid everywhere name the same people in all clips
    replaced = replace(batches, across=True)
    assert sum(map(len, replaced._there)) == len({min(one.rows) for one in replaced.speakers})


def test_a_picture_of_a_window_is_one_of_its_pictures(folder, store):
    options = {"inputs": "media", "ways": 2, "missing": 0.0, **SHORT, "duration": 2.0}
    batches = ready(PairwiseRelation(Conversations(folder, URIS[:2]), store, **options))
    batches = replace(batches, varied=False)  # neither mirrored nor blurred
    known = [store[uri].face_samples.vector.reshape(-1, 112 * 112 * 3) for uri in URIS[:2]]
    known = {picture.astype(np.uint8).tobytes() for one in known for picture in one}
    batch = batches[0]
    assert batch["visible"].all()
    pictures = batch["faces"].flatten(0, 2).numpy()
    assert all(picture.astype(np.uint8).tobytes() in known for picture in pictures)
    assert (pictures == pictures.astype(np.uint8)).all()  # a mean is not whole
    with pytest.raises(ValueError, match="no mean"):
        PairwiseRelation(Conversations(folder, URIS[:2]), store, inputs="media", face="mean")


def test_more_of_one_recording(protocol, store):
    task = PairwiseRelation(protocol, store, ways=4, per_recording=2, batch_size=8, **SHORT)
    counts = set()
    batches = ready(task)
    for ways in speakers_of(batches, batches[0]):
        files = [file for (file, *_), _ in ways]
        assert max(files.count(file) for file in files) <= 2
        assert len({(file, name) for (file, name, _), _ in ways}) == 4
        counts.add(len(set(files)))
    assert counts == {2}


def test_names_that_are_valid_everywhere(folder, store):
    protocol = Conversations(folder, URIS[:3], change=across)
    batches = ready(PairwiseRelation(protocol, store, ways=3, batch_size=30, **SHORT))
    assert batches.across
    assert sorted(one.name for one in batches.speakers) == ["a", "b", "c"]
    different = 0
    batch = batches[0]
    for ways, numbers in zip(speakers_of(batches, batch), batch["speakers"], strict=True):
        for ((file, name, _), (other, also, _)), number in zip(ways, numbers, strict=True):
            assert name == also == batches.speakers[number].name
            different += file != other
    assert different > 5
    # and their faces are those of the file that each window is of
    assert 0.2 < batch["visible"].float().mean() < 0.8


@pytest.mark.parametrize("missing", [0.0, 1.0])
def test_missing_faces(missing, protocol, store):
    task = PairwiseRelation(protocol, store, ways=3, missing=missing, **SHORT)
    batch = ready(task)[0]
    assert (batch["visible"] == (missing == 0)).all()
    assert (batch["faces"].flatten(0, 2).any(dim=1) == (missing == 0)).all()
    if missing:  # in training only
        replaced = replace(ready(task, "development"), ways=2)
        assert replaced[0]["visible"].all()


def test_batches_depend_on_epoch_and_seed_only(protocol, store):
    task = PairwiseRelation(protocol, store, ways=3, **SHORT)
    one, sent = ready(task), pickle.loads(pickle.dumps(ready(task)))
    a, b = one[(3, 1, True)], sent[(3, 1, True)]
    assert all(torch.equal(a[name], b[name]) for name in a)
    for other in (one[(3, 2, True)], one[(4, 1, True)], replace(one, seed=9)[(3, 1, True)]):
        assert not torch.equal(a["audio"], other["audio"])
    assert not one[(3, 1, False)]["counts"]


def test_too_few_speakers_come_again_and_targets_know(protocol, store):
    task = PairwiseRelation(protocol, store, ways=8, batch_size=2, **SHORT)
    batches = ready(task)
    assert len(batches.speakers) == 6
    batch = batches[0]
    for ways, numbers in zip(speakers_of(batches, batch), batch["speakers"], strict=True):
        names = [(file, name) for (file, name, _), _ in ways]
        assert len(set(names)) == 6
        for i in range(8):
            for j in range(8):
                assert (names[i] == names[j]) == bool(numbers[i] == numbers[j])
    task.model = RelationOfEmbeddings(192, FACE).eval()
    scores, same = task.compare(batch)
    assert scores.shape == (2, 128)
    assert same.sum() == 2 * (8 + 4)
    expected = [a == b for row in batch["speakers"].tolist() for a in row for b in row]
    assert same.tolist() == expected


def test_one_speaker_cannot_be_told_from_others(folder, store):
    def alone(file):
        labels = dict.fromkeys(file["annotation"].labels(), "x")
        return {**file, "annotation": file["annotation"].rename_labels(mapping=labels)}

    task = PairwiseRelation(Conversations(folder, URIS[:1], change=alone), store, **SHORT)
    with pytest.raises(ValueError, match="fewer than two speakers"):
        ready(task)
    # of two files they are two
    batches = ready(PairwiseRelation(Conversations(folder, URIS[:2], change=alone), store, **SHORT))
    assert len(batches.speakers) == 2
    for options in ({"ways": 1}, {"per_recording": 0}, {"inputs": "pictures"}):
        with pytest.raises(ValueError, match=r"episode|inputs"):
            PairwiseRelation(Conversations(folder, URIS), store, **options)


def test_who_has_one_window_alone_is_nobody(protocol, store):
    files = ready(PairwiseRelation(protocol, store, **SHORT)).files
    before = {(one.name, *one.rows) for one in find_speakers(files, across=False)}
    first = files[0]
    rows = np.flatnonzero(first.active[:, 0] & ~first.active[:, 1])
    active = first.active.copy()
    active[rows[1:], 1] = True  # overlap
    files = [first._replace(active=active), *files[1:]]
    after = {(one.name, *one.rows) for one in find_speakers(files, across=False)}
    assert before - after == {(first.recording.persons[0], 0)}


# relation


class Losses(Callback):
    """Notes the training loss of every epoch"""

    def __init__(self):
        self.seen, self.metrics = [], {}

    def on_train_epoch_end(self, trainer, model):
        self.seen.append(float(trainer.callback_metrics["loss/train"]))
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}


def relation(kind):
    torch.manual_seed(0)
    if kind == "embed":
        return RelationOfEmbeddings(192, FACE, widths=(16, 8), blocks=(1, 1))
    return FusedEmbeddings(192, FACE, fusion=kind, dimension=16)


@pytest.mark.parametrize("kind", ["embed", "gmu", "dimnet"])
def test_relations_are_learnt(kind, folder, store, tmp_path):
    # validated on what it is trained on: three recordings teach nothing of a fourth
    protocol = Conversations(folder, URIS[:3], URIS[:3])
    task = PairwiseRelation(
        protocol, store, ways=3, missing=0.2, batch_size=4, batches_per_epoch=8, **SHORT
    )
    losses = Losses()
    plan = [Stage(name="episodes", max_epochs=5, learning_rate=1e-2)]
    model = optimize(relation(kind), task, plan, tmp_path, callbacks=[losses], **QUIET)
    assert losses.seen[-1] < 0.8 * losses.seen[0]
    assert {"loss/train", "loss/val", "PairAUROC"} <= losses.metrics.keys()
    assert losses.metrics["PairAUROC"] > 0.7
    again = Model.from_pretrained(tmp_path)
    assert type(again) is type(model)
    voices, faces = torch.randn(5, 192), torch.randn(5, FACE)
    seen = torch.tensor([True, False, True, True, False])
    assert torch.equal(again(voices, faces, seen), model(voices, faces, seen))


@torch.no_grad()
def test_loss_is_the_sum_of_errors_of_an_episode(protocol, store):
    task = PairwiseRelation(protocol, store, ways=3, batch_size=4, **SHORT)
    model = relation("embed").eval()
    task.model, batch = model, ready(task)[0]
    found = float(task._loss(*task.compare(batch)))
    expected = []
    for voices, faces, visible, who in zip(
        *(batch[name] for name in ("audio", "faces", "visible", "speakers")), strict=True
    ):
        error = 0.0
        for i in range(3):
            for j in range(3):
                a, b = model.audio_map(voices[0, [i]]), model.audio_map(voices[1, [j]])
                f = model.face_map(faces[0, [i]], visible[0, [i]])
                g = model.face_map(faces[1, [j]], visible[1, [j]])
                orders = model.relate_in_order(a, f, b, g, visible[0, [i]], visible[1, [j]])
                error += float((orders - float(who[i] == who[j])).square().mean())
        expected.append(error)
    assert found == pytest.approx(np.mean(expected), rel=1e-4)


# clustering of whole files, for validation


def split(shared, who) -> np.ndarray:
    """Scores of windows: high for those of the same speaker"""
    same = who[:, None] == who
    return np.where(same, 0.9, 0.1)[np.triu_indices(len(who), 1)]


def test_clustering_errors_by_hand():
    # 4 s of a, 1 s of both, 3 s of b; windows of 1 s
    one = label_windows(file_of([(0, 0.0, 5.0), (1, 4.0, 8.0)]), 1.0, 1.0)
    assert overlap(one).tolist() == [[1, 0]] * 4 + [[1, 1]] + [[0, 1]] * 3
    who = np.array([0] * 5 + [1] * 3)
    errors, total = clustering_errors(one, split(one, who), [0.05, 0.5, 0.95])
    assert total == pytest.approx(9)
    # all in one cluster: b's 3 s are wrong, and the overlap is missed; apart: one window of each
    assert errors.tolist() == pytest.approx([4, 1, 7])
    # speech outside of the annotated regions counts neither as speech nor as an error
    part = label_windows(file_of([(0, 0.0, 5.0), (1, 4.0, 8.0)], regions=[(0, 150)]), 1.0, 1.0)
    errors, total = clustering_errors(part, split(part, who[:6]), [0.5])
    assert total == pytest.approx(7)
    assert errors.tolist() == pytest.approx([1])
    alone = label_windows(file_of([(1, 0.0, 1.0)]), 1.0, 1.0)
    errors, total = clustering_errors(alone, np.zeros(0), [0.5])
    assert (errors.tolist(), total) == ([0], 1)


def test_error_rate_at_the_best_common_threshold():
    metric = ClusteringDER()
    for row in ([3.0, 1.0, 2.0], [0.0, 4.0, 1.0]):
        errors = torch.full((len(THRESHOLDS),), 9.0)
        errors[:3] = torch.tensor(row)
        metric.update(errors, torch.tensor(10.0))
    assert metric.compute().item() == pytest.approx(3 / 20)  # at the first or the third threshold


def test_epochs_are_chosen_by_clustering(folder, store, tmp_path):
    protocol = Conversations(folder, URIS[:3], URIS[:3])
    task = PairwiseRelation(
        protocol, store, ways=3, batch_size=2, batches_per_epoch=2, validation="der", **SHORT
    )
    assert task.val_monitor == ("ClusteringDER", "min")
    losses = Losses()
    plan = [Stage(name="episodes", max_epochs=3, learning_rate=1e-2)]
    model = optimize(relation("gmu"), task, plan, tmp_path, callbacks=[losses], **QUIET)
    history = json.loads((tmp_path / "01-episodes" / "stage.json").read_text())["history"]
    rates = [row["ClusteringDER"] for row in history]
    assert all(0 <= rate <= 1 for rate in rates)
    assert model.lineage[-1]["ClusteringDER"] == min(rates)
    assert "loss/val" not in losses.metrics
    # by hand: windows of each file, in one batch, with all of their faces
    batch = task.batches("development")[1]
    one = label_windows(task.prepared_data["development"][1], 1.2, 0.48)
    assert len(batch["audio"]) == len(batch["visible"]) == len(one.windows)
    with torch.no_grad():
        errors, total = task.cluster(batch)
        scores = model(batch["audio"], batch["faces"], batch["visible"]).numpy()
    pairs = scores[np.triu_indices(len(scores), 1)]
    expected, seconds = clustering_errors(one, pairs)
    np.testing.assert_allclose(errors, expected, atol=1e-3)
    assert total.item() == pytest.approx(seconds, rel=1e-5)
    with pytest.raises(ValueError, match="metric is for"):
        PairwiseRelation(protocol, store, validation="der", metric=BinaryAUROC())


class Sounds(torch.nn.Module):
    """Instead of backbones: what is classified is up to the embedding"""

    class hparams:
        num_speakers = 6

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(192, 6)

    def audio_map(self, voices):
        return voices

    def face_map(self, faces, mask):
        return faces

    def classify(self, audio, face, visible):
        return self.layer(audio)


def test_speakers_are_classified(protocol, store):
    task = PairwiseRelation(protocol, store, ways=4, per_recording=2, batch_size=3, **SHORT)
    batches = ready(task)
    task.model, batch = Sounds(), batches[0]
    with torch.no_grad():
        expected = [
            torch.nn.functional.cross_entropy(task.model.layer(voice)[None], who[None])
            for voices, speakers in zip(batch["audio"], batch["speakers"], strict=True)
            for row in voices
            for voice, who in zip(row, speakers, strict=True)
        ]
        assert task.classify(batch).item() == pytest.approx(np.mean(expected), rel=1e-5)
    task.model.hparams.num_speakers = 2
    with pytest.raises(ValueError, match=r"at least \d training speakers.*not 2"):
        task.classify(batch)


@pytest.mark.slow
def test_only_the_relation_network_of_avrnet_learns(folder, store, tmp_path):
    task = PairwiseRelation(
        Conversations(folder, URIS[:2]),
        store,
        inputs="media",
        ways=2,
        missing=0.3,
        batch_size=1,
        batches_per_epoch=1,
        num_workers=0,
        step=0.4,
        duration=0.8,
    )
    torch.manual_seed(0)
    model = AVRNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = [Stage(name="relation", train=("acoustic_norm", "mask", "relation"), max_epochs=1)]
    optimize(model, task, plan, tmp_path, **QUIET)
    changed = {
        name.split(".")[0]
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"acoustic_norm", "mask", "relation"}
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert {n.split(".")[0] for n in moved} == {"acoustic_norm", "mask", "relation"}
    # and backbones are as frozen as before
    model.train()
    assert not any(p.requires_grad for p in model.visual.parameters())
    assert not any(module.training for module in model.visual.modules())
    batch = ready(task)[0]
    assert batch["audio"].shape == (1, 2, 2, 1, 12800)
    assert batch["faces"].shape == (1, 2, 2, 112, 112, 3)


def test_sound_of_windows_is_that_of_the_recording(folder, store):
    task = PairwiseRelation(
        Conversations(folder, URIS[:2]), store, inputs="media", duration=2.0, step=0.5
    )
    batches = ready(task)
    one = batches.files[0]
    sound = batches.reader.audio(one.recording.uri, one.windows)
    whole = store.waveform(one.recording.uri, 0, 500)
    for (start, end), heard in zip(one.windows.span, sound[:, 0], strict=True):
        first, size = round(16000 * start), round(16000 * (end - start))
        assert heard.shape == (32000,)
        assert (heard[:size] == whole[first : first + size]).all()
        assert (heard[size:] == np.resize(heard[:size], 32000)[size:]).all()
    assert batches[0]["faces"].dtype == torch.float32


def test_verification_protocol(folder, store, tmp_path):
    """Files of one person each; who it is counts in all of them"""

    def one_person(file):
        # the second half of those who are there is another
        name = "ab"[int(file["uri"][-1]) // 2]
        annotation = Annotation(uri=file["uri"])
        annotation[Segment(1, 5)] = name
        return {
            **{key: file[key] for key in ("uri", "database", "audio", "annotated")},
            "annotation": annotation,
            "scope": "database",
        }

    protocol = Utterances(folder, URIS, change=one_person)
    options = {"ways": 2, "batch_size": 8, "batches_per_epoch": 2, **SHORT}
    task = PairwiseRelation(protocol, store, **options)
    assert not task.has_validation
    batches = ready(task)
    batch = batches[0]
    pairs = [way for ways in speakers_of(batches, batch) for way in ways]
    assert any(first[0] != second[0] for first, second in pairs)
    assert all(first[1] == second[1] for first, second in pairs)
    assert not batch["visible"].any()
    plan = [Stage(name="voices", max_epochs=1, learning_rate=1e-3)]
    model = optimize(relation("gmu"), task, plan, tmp_path, **QUIET)
    assert model.lineage[-1]["steps"] == 2


# what is not there


def test_without_identities_nobody_is_seen(folder, protocol, tmp_path, caplog):
    bare = CropStore(folder)
    blind = tmp_path / "store"
    blind.mkdir()
    for path in bare.folder.iterdir():
        if path.name != "identities":
            (blind / path.name).symlink_to(path)
    store = CropStore(blind)
    with pytest.raises(FileNotFoundError, match="build_face_embeddings"):
        PairwiseRelation(protocol, store, face_embeddings=tmp_path / "none", **SHORT)
    plan = [Stage(name="voices", max_epochs=1, learning_rate=1e-3)]
    pairs = PairwiseRelation(protocol, store, ways=3, batches_per_epoch=2, **SHORT)
    assert "no face is used in training" in caplog.text
    for kind in ("gmu", "embed"):
        model = optimize(relation(kind), pairs, plan, tmp_path / kind, **QUIET)
        assert math.isfinite(model.lineage[-1]["loss/val"])
    counting = SpeakerCounting(protocol, store, **SHORT)
    model = optimize(counter(), counting, plan, tmp_path / "count", **QUIET)
    assert math.isfinite(model.lineage[-1]["loss/val"])


@pytest.mark.parametrize("make", [PairwiseRelation, SpeakerCounting])
def test_files_that_are_not_all_there_are_named(make, protocol, folder, store, tmp_path, caplog):
    with pytest.raises(FileNotFoundError, match="build_speaker_embeddings"):
        make(protocol, store, speaker_embeddings=tmp_path / "none", **SHORT)
    build_speaker_embeddings(store, URIS[1:], folder=tmp_path / "some")
    task = make(protocol, store, speaker_embeddings=tmp_path / "some", **SHORT)
    task.prepare_data()
    assert "1 train files" in caplog.text
    assert URIS[0] in caplog.text
    only = Conversations(folder, URIS[:1], URIS[1:])
    with pytest.raises(
        ValueError, match="there is no speech, or no annotation, in its train files"
    ):
        make(only, store, speaker_embeddings=tmp_path / "some", **SHORT).prepare_data()


@pytest.mark.parametrize("make", [PairwiseRelation, SpeakerCounting])
def test_speech_that_is_not_annotated_is_no_speech(make, folder, store):
    def elsewhere(file):
        silence = file["annotation"].get_timeline().gaps(support=Segment(0, SECONDS))
        return {**file, "annotated": silence}

    protocol = Conversations(folder, URIS[:3], change=elsewhere)
    with pytest.raises(
        ValueError, match="there is no speech, or no annotation, in its train files"
    ):
        make(protocol, store, **SHORT).prepare_data()


# counting


def counter(**options) -> CYSMSD:
    torch.manual_seed(0)
    return CYSMSD(192, FACE, width=16, heads=2, max_speakers=4, **options)


def counting_batches(protocol, store, subset="train", **variations) -> CountingBatches:
    none = {"excerpt": 0.0, "left_out": 0.0, "mirrored": 0.0, "batch_size": 3}
    options = {**SHORT, **none, **variations}
    return ready(SpeakerCounting(protocol, store, **options), subset)


def test_recordings_are_padded(protocol, store):
    batches = counting_batches(protocol, store)
    (batch,) = (batches[(0, i, True)] for i in range(len(batches)))
    assert set(batch) == {"speaker_embeddings", "faces", "face_mask", "window_mask", "y"}
    real, y = batch["window_mask"], batch["y"]
    counts = real.sum(dim=1)
    assert len(set(counts.tolist())) > 1
    assert real.shape[1] == counts.max()
    assert (real == (torch.arange(real.shape[1]) < counts[:, None])).all()
    assert ((y == -1) == ~real.unsqueeze(2)).all()
    assert not batch["speaker_embeddings"][~real].any()
    assert not batch["face_mask"][~real].any()
    order = np.random.default_rng([batches.seed, 0]).permutation(3)
    for i, number in enumerate(order):
        one = batches.files[number]
        voices = batches.reader.audio(one.recording.uri, one.windows)
        assert counts[i] == len(voices)
        assert (batch["speaker_embeddings"][i, : counts[i]].numpy() == voices).all()
        assert (y[i, : counts[i]].numpy() == one.active).all()
    assert (batches[(0, 0, False)]["y"] == -1).all()
    # the last batch is what is left
    halves = replace(batches, batch_size=2)
    assert [len(halves[(0, i, True)]["y"]) for i in range(len(halves))] == [2, 1]


def test_same_recordings_whoever_reads_them(protocol, store):
    varied = {"excerpt": 0.5, "left_out": 0.5, "mirrored": 0.5}
    one = counting_batches(protocol, store, **varied)
    sent = pickle.loads(pickle.dumps(one))
    a, b = one[(2, 0, True)], sent[(2, 0, True)]
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(
        a["speaker_embeddings"][:, :4], one[(3, 0, True)]["speaker_embeddings"][:, :4]
    )
    # what is validated on is always the same
    plain = counting_batches(protocol, store, "development")[0]
    validated = counting_batches(protocol, store, "development", **varied)
    for epoch in range(3):
        assert all(torch.equal(plain[n], x) for n, x in validated[(epoch, 0, True)].items())


def kept_of(batches, batch):
    """Of each recording of a batch, itself, and its windows that are there"""
    heard = [batches.reader.audio(one.recording.uri, one.windows) for one in batches.files]
    for item, real, y in zip(
        batch["speaker_embeddings"], batch["window_mask"], batch["y"], strict=True
    ):
        voices = item[real].numpy()
        (number,) = (n for n, whole in enumerate(heard) if (whole == voices[0]).all(axis=1).any())
        yield batches.files[number], heard[number], voices, y[real].numpy()


def test_excerpts(protocol, store):
    batches, lengths = counting_batches(protocol, store, excerpt=1.0), set()
    for epoch in range(5):
        for one, whole, voices, y in kept_of(batches, batches[(epoch, 0, True)]):
            size = len(voices)
            assert size >= min(len(whole), max(8, len(whole) // 4))
            assert any(
                np.array_equal(whole[first : first + size], voices)
                and np.array_equal(one.active[first : first + size], y)
                for first in range(len(whole) - size + 1)
            )
            lengths.add(size / len(whole))
    assert len(lengths) > 3


def test_speakers_are_left_out(protocol, store):
    batches, fewer = counting_batches(protocol, store, left_out=1.0), 0
    for epoch in range(5):
        for one, whole, voices, y in kept_of(batches, batches[(epoch, 0, True)]):
            left = y.any(axis=0)
            # and with them all windows that they speak in
            kept = ~one.active[:, ~left].any(axis=1)
            assert np.array_equal(whole[kept], voices)
            assert np.array_equal(one.active[kept], y)
            assert len(voices) >= 8
            fewer += not left.all()
    assert fewer > 3


def test_mirrored_people_are_as_alike_as_before(protocol, store):
    plain, mirrored = (counting_batches(protocol, store, mirrored=p)[0] for p in (0.0, 1.0))
    for name in ("speaker_embeddings", "faces"):
        assert torch.equal(plain[name].abs(), mirrored[name].abs())
        assert not torch.equal(plain[name], mirrored[name])
        a, b = (x[name] @ x[name].mT for x in (plain, mirrored))
        torch.testing.assert_close(a, b)
    assert torch.equal(plain["y"], mirrored["y"])


COUNT = [
    Stage(name="first", max_epochs=15, learning_rate=1e-2),
    Stage(name="second", max_epochs=3, learning_rate=2e-3, schedule="cosine"),
]


@pytest.fixture(scope="module")
def counted(protocol, store, tmp_path_factory):
    """Undisturbed: the model, its folder, and losses"""
    torch.set_num_threads(1)
    folder, losses = tmp_path_factory.mktemp("counted"), Losses()
    task = SpeakerCounting(protocol, store, **SHORT, batch_size=2)
    return optimize(counter(), task, COUNT, folder, callbacks=[losses], **QUIET), folder, losses


def test_counting_is_learnt(counted, protocol, store):
    model, folder, losses = counted
    assert np.mean(losses.seen[-3:]) < 0.8 * np.mean(losses.seen[:3])
    names = {"loss/train", "loss/val", "CountAccuracy"}
    names |= {f"loss/val/{name}" for name in ("activity", "contrast", "count")}
    assert names <= losses.metrics.keys()
    assert all(math.isfinite(value) for value in losses.metrics.values())
    metrics = losses.metrics
    assert metrics["loss/val"] == pytest.approx(
        0.5 * (metrics["loss/val/activity"] + metrics["loss/val/contrast"])
        + 0.5 * metrics["loss/val/count"],
        rel=1e-4,
    )
    assert metrics["CountAccuracy"] in (0, 1)
    again = Model.from_pretrained(folder)
    batch = counting_batches(protocol, store, "development")[0]
    found, expected = (one(batch["speaker_embeddings"], batch["faces"]) for one in (again, model))
    assert torch.equal(found.embeddings, expected.embeddings)
    assert torch.equal(found.activity_logits, expected.activity_logits)
    assert torch.equal(found.count, expected.count)


@pytest.mark.parametrize("moment", [(1, 1), (2, 2)])
def test_interrupted_training_ends_with_the_same_weights(
    moment, counted, protocol, store, tmp_path
):
    class Killed(Exception):
        pass

    class Kill(Callback):
        stage = 0

        def on_fit_start(self, trainer, model):
            self.stage += 1

        def on_train_batch_end(self, trainer, model, outputs, batch, index):
            if (self.stage, trainer.current_epoch) == moment and index == 0:
                raise Killed

    def train(**options):
        task = SpeakerCounting(protocol, store, **SHORT, batch_size=2)
        return optimize(counter(), task, COUNT, tmp_path, **options, **QUIET)

    with pytest.raises(Killed):
        train(callbacks=[Kill()])
    torch.manual_seed(1234)
    model, expected = train().state_dict(), counted[0].state_dict()
    assert all(torch.equal(model[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_workers_read_the_same(counted, protocol, store, tmp_path):
    task = SpeakerCounting(protocol, store, **{**SHORT, "num_workers": 2}, batch_size=2)
    model = optimize(counter(), task, COUNT, tmp_path, **QUIET)
    expected = counted[0].state_dict()
    assert all(torch.equal(value, expected[n]) for n, value in model.state_dict().items())
