"""The task of active speaker detection: labels, batches, augmentation, training."""

import math
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from pyannote.audio import Model as PyannoteModel
from pyannote.core import Annotation, Segment, Timeline
from talkers import make_protocol, make_talkers
from torch.nn.functional import binary_cross_entropy

from pyannote_av import Model
from pyannote_av.core.batch import AVInput
from pyannote_av.core.grid import SAMPLES_PER_FRAME
from pyannote_av.core.tracks import FaceTracks, Label
from pyannote_av.data.build import build_store
from pyannote_av.data.crop_store import CropStore
from pyannote_av.models.active_speaker.compact import CompactASD
from pyannote_av.models.active_speaker.lightasd import LightASD
from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.tasks import ActiveSpeakerDetection
from pyannote_av.tasks.face_augmentation import lose, mix, turn_head, vary_camera, vary_view
from pyannote_av.tasks.losses import talk_nce
from pyannote_av.tasks.store_task import BatchOrder
from pyannote_av.tasks.track_batches import TrackBatches, buckets
from pyannote_av.tasks.track_labels import cut, labelled_runs, speaking_labels

PLAIN = {"audio_mixing": 0.0, "face_transforms": False, "missing_faces": 0.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[dict]:
    """Eight short tracks of four recordings."""
    folder = tmp_path_factory.mktemp("media")
    return [make_talkers(folder, f"talk{i}", duration=0.4, seed=i) for i in range(4)]


@pytest.fixture(scope="module")
def store(files, tmp_path_factory) -> CropStore:
    return build_store(tmp_path_factory.mktemp("store"), files).store


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    seed_everything(0)


def trainer(**kwargs) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "accelerator": "cpu"}
    return Trainer(**{"max_epochs": 1, **quiet, **kwargs})


# AVInput


def av_input(batch=4, num_faces=2, frames=5) -> AVInput:
    faces = torch.randint(256, (batch, num_faces, frames, 112, 112)).byte()
    return AVInput(torch.randn(batch, 1, 640 * frames), faces, torch.rand(faces.shape[:3]) < 0.8)


def test_av_input_behaves_like_the_tensor_pyannote_expects():
    X = av_input()
    assert len(X) == 4
    assert X.shape == (4, 1, 3200)
    assert X.device.type == "cpu"
    assert X.dtype == torch.float32
    keep = torch.tensor([True, False, True, False])
    for items in (keep, [0, 2], torch.tensor([0, 2]), slice(0, None, 2)):
        assert (X[items].waveforms == X.waveforms[::2]).all()
        assert (X[items].faces == X.faces[::2]).all()
        assert (X[items].face_mask == X.face_mask[::2]).all()
    assert X[-1].shape == (1, 1, 3200)
    assert X.to("cpu", non_blocking=True).cpu().faces.dtype == torch.uint8
    assert X.to("meta").faces.device.type == "meta"
    assert AVInput(X.waveforms)[1:].faces is None
    assert (pickle.loads(pickle.dumps(X)).faces == X.faces).all()


def test_av_input_is_moved_by_lightning():
    from lightning.pytorch.utilities import move_data_to_device

    moved = move_data_to_device({"X": av_input(), "y": torch.zeros(4)}, torch.device("meta"))
    assert moved["X"].face_mask.device.type == "meta"


def test_av_input_checks_its_parts():
    X = av_input()
    with pytest.raises(ValueError, match="3 faces for 4 waveforms"):
        AVInput(X.waveforms, X.faces[:3])
    with pytest.raises(ValueError, match="without faces"):
        AVInput(X.waveforms, face_mask=X.face_mask)


def test_models_take_it():
    model, X = LRASD().eval(), av_input()
    with torch.no_grad():
        assert (model(X) == model(X.waveforms, X.faces, X.face_mask)).all()
        assert (model(X) == model(X.waveforms, faces=X.faces, face_mask=X.face_mask)).all()


# labels


def tracks_of(track, time, **kwargs) -> FaceTracks:
    box = np.tile([0.1, 0.1, 0.2, 0.3], (len(time), 1))
    return FaceTracks(time=np.array(time), track=np.array(track), box=box, **kwargs)


def test_inaudible_speech_is_not_speaking():
    labels = [Label.NOT_SPEAKING, Label.SPEAKING_AUDIBLE, Label.SPEAKING_NOT_AUDIBLE, Label.UNKNOWN]
    tracks = tracks_of([0] * 4, np.arange(4) / 25, label=labels)
    assert speaking_labels(tracks).tolist() == [0, 1, 0, -1]


def test_labels_from_ava_and_from_an_annotation(files):
    """Both ways of saying it are the same"""
    for file in files:
        tracks = FaceTracks.read(file["face_tracks"])
        bare = FaceTracks(tracks.time, tracks.track, tracks.box, speaker=tracks.speaker)
        expected = (tracks.label == Label.SPEAKING_AUDIBLE).astype(int)
        assert (speaking_labels(tracks) == expected).all()
        assert (speaking_labels(bare, file["annotation"]) == expected).all()


def test_faces_without_name_and_times_without_annotation_are_unknown(caplog):
    tracks = tracks_of([0] * 50 + [1] * 50, np.tile(np.arange(50) / 25, 2), speaker={0: "A"})
    annotation = Annotation()
    annotation[Segment(0.4, 0.8)] = "A"
    annotation[Segment(0.6, 1.2)] = "B"
    labels = speaking_labels(tracks, annotation, Timeline([Segment(0, 1)]))
    expected = [0] * 10 + [1] * 10 + [0] * 5 + [-1] * 25
    assert labels.tolist() == expected + [-1] * 50
    assert not caplog.records
    assert (speaking_labels(tracks, Annotation())[:50] == 0).all()
    assert "no face track has the name" in caplog.text


def test_runs_end_where_a_face_is_absent_for_a_second():
    time = np.concatenate([np.arange(0, 20), np.arange(40, 60), np.arange(100, 130)]) / 25
    label = np.ones(len(time), int)
    file = {"uri": "a", "face_tracks": tracks_of([3] * len(time), time, label=label)}
    runs = labelled_runs([{"uri": "none", "face_tracks": FaceTracks.empty()}, file])
    assert runs.uris == ["none", "a"]
    assert runs.table[["file", "track", "start", "length"]].tolist() == [
        (1, 3, 0, 60),
        (1, 3, 100, 30),
    ]
    assert runs.of(runs.table[0]).tolist() == [1] * 20 + [-1] * 20 + [1] * 20
    assert runs.of(runs.table[1]).tolist() == [1] * 30


def test_thirty_frames_per_second():
    time = np.arange(60) / 30
    file = {"uri": "a", "face_tracks": tracks_of([0] * 60, time, label=(time >= 1).astype(int))}
    runs = labelled_runs([file])
    assert runs.table["length"].tolist() == [50]
    assert runs.of(runs.table[0]).tolist() == [0] * 25 + [1] * 25


def test_files_without_labels_say_so():
    tracks = tracks_of([0], [0.0])
    with pytest.raises(ValueError, match="'a': its face_tracks are not labelled"):
        labelled_runs([{"uri": "a", "face_tracks": tracks}])
    with pytest.raises(ValueError, match="'a' has no face_tracks"):
        labelled_runs([{"uri": "a"}])


@given(st.lists(st.integers(1, 90), min_size=1, max_size=20), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_pieces_are_all_of_the_track(lengths, longest):
    tracks = [
        {"uri": f"{i}", "face_tracks": tracks_of([7] * n, np.arange(n) / 25, label=[1] * n)}
        for i, n in enumerate(lengths)
    ]
    runs = labelled_runs(tracks)
    pieces = cut(runs, longest)
    assert pieces["length"].sum() == sum(lengths)
    assert pieces["length"].max() <= longest
    for number, length in enumerate(lengths):
        mine = pieces[pieces["file"] == number]
        assert mine["start"].tolist() == np.cumsum([0, *mine["length"]])[:-1].tolist()
        assert len(mine) == math.ceil(length / longest)
        assert np.ptp(mine["length"]) <= 1
    assert set(cut(runs, 100, 10)["file"]) == {i for i, n in enumerate(lengths) if n >= 10}


# batches


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 2500))
@settings(max_examples=60, deadline=None)
def test_buckets_hold_every_item_once_and_so_many_frames(lengths, frames):
    lengths = np.array(lengths)
    batches = buckets(lengths, frames)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= frames
    ends = [(lengths[batch].max(), lengths[batch].min()) for batch in batches]
    assert all(a[1] >= b[0] for a, b in pairwise(ends))
    assert max(map(len, buckets(lengths, frames, batch_size=3))) <= 3


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_every_batch_counts_once_per_epoch(count, processes, epoch):
    orders = []
    for rank in range(processes):
        order = BatchOrder(count, processes, rank, shuffle=True, seed=1)
        order.set_epoch(epoch)
        orders.append(list(order))
        assert len(order) == len(orders[-1])
    assert len({len(order) for order in orders}) == 1
    seen = [index for order in orders for _, index, counts in order if counts]
    assert sorted(seen) == list(range(count))


def batches_of(files, store, **kwargs) -> TrackBatches:
    runs = labelled_runs(files)
    pieces = cut(runs, 250)
    packed = buckets(pieces["length"] * kwargs.get("num_faces", 1), 10_000)
    return TrackBatches(store, runs, pieces, packed, **kwargs)


def test_a_batch_is_what_the_files_show(files, store):
    batch = batches_of(files, store)[0]
    X, y = batch["X"], batch["y"]
    assert X.faces.shape == (8, 1, 10, 112, 112)
    assert X.faces.dtype == torch.uint8
    assert X.waveforms.shape == (8, 1, 6400)
    assert X.face_mask.all()
    for i, file in enumerate(files):
        labels = FaceTracks.read(file["face_tracks"]).label.reshape(2, 10)
        assert (y[2 * i : 2 * i + 2, 0].numpy() == labels).all()
        for track in (0, 1):
            crops, _ = store.crops(file["uri"], track, 0, 10)
            assert (X.faces[2 * i + track, 0].numpy() == crops).all()
            sound = store.waveform(file["uri"], 0, 10)
            assert (X.waveforms[2 * i + track, 0].numpy() == sound).all()


def test_truncated_to_the_shortest_in_training_padded_in_validation(tmp_path):
    media = [make_talkers(tmp_path, f"n{i}", duration=d, num_faces=1) for i, d in ((0, 2), (1, 1))]
    store = build_store(tmp_path / "store", media).store
    training, whole = (batches_of(media, store, training=t) for t in (True, False))
    assert training[0]["X"].faces.shape[2] == 25
    starts = set()
    for epoch in range(20):
        cut_batch = training[(epoch, 0, True)]
        sound = cut_batch["X"].waveforms[0, 0].numpy()
        every = store.waveform("n0", 0, 50)
        (start,) = (k for k in range(26) if (every[640 * k : 640 * (k + 25)] == sound).all())
        starts.add(start)
        labels = FaceTracks.read(media[0]["face_tracks"]).label[start : start + 25]
        assert (cut_batch["y"][0, 0].numpy() == labels).all()
    assert len(starts) > 5
    batch = whole[0]
    assert batch["X"].faces.shape[2] == 50
    assert batch["X"].face_mask.sum(dim=2).flatten().tolist() == [50, 25]
    assert (batch["y"][1, 0, 25:] == -1).all()
    assert (batch["X"].waveforms[1, 0, 16000:] == 0).all()


def test_batches_depend_on_epoch_and_seed_only(files, store):
    varied = {"mixing": 1.0, "views": 1.0, "losses": 1.0}
    one, other = (batches_of(files, store, **varied, seed=3) for _ in range(2))
    sent = pickle.loads(pickle.dumps(other))
    a, b, c = one[(4, 0, True)], sent[(4, 0, True)], one[(5, 0, True)]
    for name in ("waveforms", "faces", "face_mask"):
        assert (getattr(a["X"], name) == getattr(b["X"], name)).all()
        assert (getattr(a["X"], name) != getattr(c["X"], name)).any()
    assert (a["y"] == b["y"]).all()
    # labels are of what is seen
    assert (a["y"][~a["X"].face_mask] == -1).all()
    assert (one[(4, 0, False)]["y"] == -1).all()


def test_context_is_seen_for_half_of_the_time_or_repeated(tmp_path):
    file = make_talkers(tmp_path, "scene", duration=2.0, num_faces=4)
    tracks = FaceTracks.read(file["face_tracks"])
    # face 1 is there for 1.2 s of 2, face 2 for 0.6 s, face 3 all the time
    keep = (tracks.track % 3 == 0) | (tracks.time < np.where(tracks.track == 1, 1.2, 0.6))
    tracks.take(keep).write(file["face_tracks"])
    store = build_store(tmp_path / "store", [file]).store
    batches = batches_of([file], store, num_faces=3)
    by_track = {int(piece["track"]): piece for piece in batches.pieces}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        cast = {track: batches._faces_of(piece, rng) for track, piece in by_track.items()}
        assert cast[0][0] == 0
        assert set(cast[0][1:]) == {1, 3}
        assert cast[2][0] == 2
        assert set(cast[2][1:]) < {0, 1, 3}
    batches.training = False
    assert batches._faces_of(by_track[0], rng) == [0, 3, 1]
    only = tracks.take(keep).take(tracks.take(keep).track == 0)
    alone = batches_of([{**file, "face_tracks": only}], store, num_faces=3)
    assert alone._faces_of(alone.pieces[0], rng) == [0, 0, 0]
    two = tracks.take(tracks.track % 3 == 0)
    pair = batches_of([{**file, "face_tracks": two}], store, num_faces=3)
    assert pair._faces_of(pair.pieces[1], rng) == [3, 0, 0]
    batch = pair[0]
    assert batch["X"].faces.shape == (2, 3, 50, 112, 112)
    assert (batch["y"] >= 0).all()
    pair.training = False
    assert (pair[0]["y"][:, 1:] == -1).all()


# augmentation


@given(st.floats(-5, 5), st.integers(1, 3000), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_mixed_sounds_have_the_ratio_asked_for(snr, length, seed):
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(1600).astype(np.float32)
    other = 0.1 * rng.standard_normal(length).astype(np.float32)
    added = mix(sound, other, snr) - sound
    ratio = 10 * np.log10(np.mean(sound**2) / np.mean(added**2))
    assert ratio == pytest.approx(snr, abs=0.02)


def test_silence_is_not_mixed():
    sound, silence = np.ones(10, np.float32), np.zeros(10, np.float32)
    for a, b in ((sound, silence), (silence, sound), (sound, sound[:0])):
        assert (mix(a, b, 0.0) == a).all()


def test_only_other_recordings_are_mixed_in(files, store):
    alone = batches_of(files[:1], store, mixing=1.0)[0]["X"].waveforms
    assert (alone == batches_of(files[:1], store)[0]["X"].waveforms).all()
    together = batches_of(files, store, mixing=1.0)[0]["X"].waveforms
    plain = batches_of(files, store)[0]["X"].waveforms
    assert (together != plain).flatten(1).any(dim=1).all()


def test_views_are_the_four_published_ones():
    picture = np.random.default_rng(0).integers(0, 255, (14, 14), np.uint8)
    faces = np.repeat(np.kron(picture, np.ones((8, 8), np.uint8))[None], 3, axis=0)
    same = mirrored = changed = 0
    for seed in range(200):
        varied = vary_view(faces, np.random.default_rng(seed))
        assert varied.shape == faces.shape
        assert varied.dtype == np.uint8
        assert (varied == varied[0]).all()  # all frames alike
        if (varied == faces).all():
            same += 1
        elif (varied == faces[:, :, ::-1]).all():
            mirrored += 1
        else:
            changed += 1
            # what is shown is still the same face
            assert (
                np.corrcoef(varied[0, 40:72, 40:72].ravel(), faces[0, 40:72, 40:72].ravel())[0, 1]
                > -0.5
            )
    assert 30 < same < 70
    assert 30 < mirrored < 70
    assert 70 < changed < 130


def test_turned_heads_are_narrower_and_not_tilted():
    faces = np.zeros((2, 112, 112), np.uint8)
    faces[:, 30:82, 30:82] = 200
    faces.setflags(write=False)  # as crops of a store are
    narrowest, larger_left, larger_right = 112, False, False
    for seed in range(60):
        turned = turn_head(faces, np.random.default_rng(seed))
        assert turned.shape == faces.shape
        assert (turned[0] == turned[1]).all()
        bright = turned[0] > 160
        across, down = np.flatnonzero(bright.any(axis=0)), np.flatnonzero(bright.any(axis=1))
        assert len(across) <= 54  # never wider
        assert abs(down.mean() - 55.5) < 2
        narrowest = min(narrowest, len(across))
        left, right = bright[:, across[2]].sum(), bright[:, across[-3]].sum()
        larger_left, larger_right = larger_left or left > right, larger_right or right > left
    assert narrowest < 36
    assert larger_left
    assert larger_right


def test_turned_heads_keep_their_labels(files, store):
    plain = batches_of(files, store)[0]
    turned = batches_of(files, store, turned_heads=1.0)[0]
    assert (plain["X"].faces != turned["X"].faces).any()
    assert (plain["y"] == turned["y"]).all()


def test_sound_is_early_or_late_and_labels_stay(files, store):
    plain = batches_of(files, store)[0]
    moved = batches_of(files, store, desync=3)[0]
    assert (plain["X"].faces == moved["X"].faces).all()
    assert (plain["y"] == moved["y"]).all()
    frame, shifts = SAMPLES_PER_FRAME, set()
    for before, after in zip(plain["X"].waveforms[:, 0], moved["X"].waveforms[:, 0], strict=True):
        inner = slice(3 * frame, len(before) - 3 * frame)
        same = [
            k for k in range(-3, 4) if torch.equal(after[inner], before.roll(-k * frame)[inner])
        ]
        assert same
        shifts.update(same)
    assert min(shifts) < 0 < max(shifts)


def test_cameras_differ_in_light_sharpness_and_noise():
    faces = np.tile(np.arange(112, dtype=np.uint8) * 2, (4, 112, 1))
    faces.setflags(write=False)  # as crops of a store are
    kinds = set()
    for seed in range(60):
        varied = vary_camera(faces, np.random.default_rng(seed))
        assert varied.shape == faces.shape
        assert varied.dtype == np.uint8
        across = varied.astype(float).mean(axis=(0, 1))
        # light differs from camera to camera; darker remains darker
        assert (np.diff(across) > -6).all()
        assert np.ptp(across) > 60
        rows = varied.astype(int)
        noisy = (rows[0] != rows[1]).any()
        sharp = (np.diff(np.unique(rows[0, 0])) > 1).any()
        kinds.add((bool(noisy), bool(sharp)))
    assert {noisy for noisy, _ in kinds} == {True, False}


def test_dubbed_faces_do_not_speak(files, store):
    plain = batches_of(files, store)[0]
    dubbed = batches_of(files, store, dubbing=1.0)[0]
    assert (plain["y"] == 1).any()
    assert not (dubbed["y"] == 1).any()
    assert ((plain["y"] < 0) == (dubbed["y"] < 0)).all()
    assert (plain["X"].faces == dubbed["X"].faces).all()
    differ = (plain["X"].waveforms != dubbed["X"].waveforms).flatten(1).any(dim=1)
    assert differ.all()
    alone = batches_of(files[:1], store, dubbing=1.0)[0]
    assert not alone["X"].waveforms.any()  # no other recording there: silence


@given(st.integers(1, 200), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_faces_are_lost_for_a_second_at_most_and_never_at_the_ends(length, seed):
    lost = ~lose(np.ones(length, bool), np.random.default_rng(seed))
    assert lost.sum() <= min(25, length // 2)
    assert not lost[[0, -1]].any()
    assert lost.any() == (length >= 3)
    assert (np.diff(lost.astype(int)) == 1).sum() <= 1


# training


class Losses(Callback):
    """Notes the training loss of every epoch; stops when it is small enough."""

    def __init__(self, enough: float = 0.0):
        self.enough, self.seen = enough, []

    def on_train_epoch_end(self, trainer, model):
        self.seen.append(float(trainer.callback_metrics["loss/train"]))
        trainer.should_stop = self.seen[-1] < self.enough


def overfit(model, files, store, max_epochs: int, **options) -> list[float]:
    options = {"num_workers": 0, **PLAIN, **options}
    model.task = ActiveSpeakerDetection(make_protocol(files), store, **options)
    model.learning_rate_decay = 1.0  # an epoch is one step here
    losses = Losses(enough=0.05)
    trainer(max_epochs=max_epochs, callbacks=[losses]).fit(model)
    return losses.seen


def test_compact_network_overfits_eight_tracks(files, store):
    model = CompactASD()
    model.learning_rate = 3e-3
    losses = overfit(model, files, store, max_epochs=40)
    assert losses[-1] < 0.05 < losses[0]


def test_contrast_asks_which_picture_belongs_to_which_sound():
    heard = torch.eye(4).repeat(2, 1, 1)
    active = torch.tensor([[True, True, True, False], [False] * 4])
    same, other = talk_nce(heard, heard, active), talk_nce(heard, heard.roll(1, dims=1), active)
    # 3 active frames, of which each is told from two others
    assert float(same) == pytest.approx(3 * math.log(1 + 2 * math.exp(-1 / 0.07)), abs=1e-4)
    assert other > 3
    assert talk_nce(heard, heard, active & False) == 0
    # frames in which nobody speaks are not looked at
    noisy = torch.where(active[..., None], heard, torch.randn(2, 4, 4))
    assert torch.equal(talk_nce(noisy, heard, active), same)


@pytest.mark.slow
def test_contrast_is_learnt(files, store):
    found = []
    for contrast in (0.0, 0.3):
        seed_everything(0)
        model = CompactASD()
        model.learning_rate = 3e-3
        found.append(overfit(model, files, store, max_epochs=10, contrast=contrast))
    plain, losses = found
    assert losses[0] > plain[0]
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "num_faces"),
    [
        ("lightasd", "LightASD", 1),
        ("lrasd", "LRASD", 1),
        ("talknet", "TalkNet", 1),
        ("loconet", "LoCoNet", 3),
    ],
)
def test_other_networks_overfit_eight_tracks(module, name, num_faces, files, store):
    from importlib import import_module

    network = getattr(import_module(f"pyannote_av.models.active_speaker.{module}"), name)
    assert getattr(network, "num_faces", 1) == num_faces
    model = network()
    model.learning_rate = {"talknet": 3e-4, "loconet": 2e-4, "lrasd": 3e-3}.get(
        module, model.learning_rate
    )
    losses = overfit(model, files, store, max_epochs=100)
    assert losses[-1] < 0.05 < losses[0]


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_train_validate_save_and_load(num_workers, files, store, tmp_path):
    protocol = make_protocol(files[:2], files[2:])
    task = ActiveSpeakerDetection(
        protocol, store.folder, cache=tmp_path / "labels.npz", batch_size=2, num_workers=num_workers
    )
    model = CompactASD(task=task)
    assert model.specifications.classes == ["speaking"]
    monitor, mode = task.val_monitor
    checkpoint = ModelCheckpoint(tmp_path, monitor=monitor, mode=mode, filename="best")
    run = trainer(
        max_epochs=2, enable_checkpointing=True, callbacks=[checkpoint], precision="bf16-mixed"
    )
    run.fit(model)
    assert run.global_step == 4
    assert {"loss/train", "loss/val", "BinaryAveragePrecision", "BinaryAUROC"} <= set(
        run.callback_metrics
    )
    assert math.isfinite(run.callback_metrics["loss/val"])
    assert (tmp_path / "labels.npz").is_file()

    trained, X = run.lightning_module.eval(), av_input()
    state = torch.load(checkpoint.best_model_path, weights_only=False)["state_dict"]
    trained.load_state_dict(state)
    expected = trained(X)
    for load in (Model.from_pretrained, PyannoteModel.from_pretrained):
        loaded = load(checkpoint.best_model_path).eval()
        assert isinstance(loaded, CompactASD)
        assert (loaded(X) == expected).all()
        assert loaded.specifications == task.specifications
    assert (Model.from_pretrained(trained.save(tmp_path))(X) == expected).all()
    # and on it goes from there
    loaded.task = task
    trainer().fit(loaded)


def test_default_trainer_with_summary(files, store):
    """The summary asks models for an example of their input"""
    task = ActiveSpeakerDetection(make_protocol(files[:1]), store, num_workers=0)
    model = CompactASD(task=task)
    trainer(enable_model_summary=True, fast_dev_run=True).fit(model)


def test_waveform_augmentation_of_pyannote_is_applied(files, store):
    from torch_audiomentations import Gain

    gain = Gain(6.0, 6.001, p=1.0, output_type="dict")
    louder = ActiveSpeakerDetection(
        make_protocol(files), store, num_workers=0, augmentation=gain, **PLAIN
    )
    louder.prepare_data()
    louder.setup()
    louder.model = CompactASD()
    loud = louder.batches("train")[0]["X"].waveforms
    plain = batches_of(files, store)[0]["X"].waveforms
    assert torch.allclose(loud, plain * 10 ** (6 / 20), rtol=1e-3)


@pytest.mark.parametrize(("network", "temperature"), [(LightASD, 1.3), (LRASD, 1.0)])
@torch.no_grad()
def test_loss_is_the_published_one_over_labelled_frames(files, store, network, temperature):
    task = ActiveSpeakerDetection(make_protocol(files[:1]), store, num_workers=0, **PLAIN)
    task.model = model = network().eval()
    model.task, model.log = task, lambda *args, **kwargs: None
    batch = batches_of(files[:1], store)[0]
    batch["y"][0, 0, :4] = -1
    loss = task.training_step(batch, 0)["loss"]
    heads = model.predict(batch["X"].waveforms, batch["X"].faces)
    known, expected = batch["y"] >= 0, 0.0
    for name, weight in model.loss_weights.items():
        probability = (getattr(heads, name)[known] / temperature).softmax(-1)[:, 1]
        expected += weight * binary_cross_entropy(probability, batch["y"][known].float())
    assert loss == pytest.approx(float(expected), rel=1e-5)
    unknown = torch.full_like(batch["y"], -1)
    assert task.training_step({**batch, "y": unknown}, 0)["loss"] == 0


def test_files_missing_from_the_store_are_named(files, store, tmp_path, caplog):
    partial = build_store(tmp_path, files[:1]).store
    task = ActiveSpeakerDetection(make_protocol(files), partial, num_workers=0)
    task.prepare_data()
    assert "3 train files" in caplog.text
    assert "talk1, talk2, talk3" in caplog.text
    task = ActiveSpeakerDetection(make_protocol(files[1:]), partial, num_workers=0)
    with pytest.raises(ValueError, match="no track of its train files"):
        task.prepare_data()


def test_protocol_of_a_database_yml(files, store, tmp_path):
    """Sound from the video, no scope, no UEM, tracks by a preprocessor, labels by name"""
    from pyannote.database.registry import Registry

    folder = Path(files[0]["video"]).parent
    (tmp_path / "train.lst").write_text("talk0\ntalk1\n")
    with open(tmp_path / "all.rttm", "w") as rttm:
        for file in files:
            file["annotation"].write_rttm(rttm)
    (tmp_path / "database.yml").write_text(
        "Protocols:\n  Drawn:\n    SpeakerDiarization:\n      Two:\n        train:\n"
        f"          uri: train.lst\n          annotation: all.rttm\n"
        f"          video: {folder}/{{uri}}.mp4\n"
    )
    registry = Registry()
    registry.load_database(tmp_path / "database.yml")

    def bare(file):
        tracks = FaceTracks.read(folder / f"{file['uri']}.npz")
        return FaceTracks(tracks.time, tracks.track, tracks.box, speaker=tracks.speaker)

    protocol = registry.get_protocol(
        "Drawn.SpeakerDiarization.Two", preprocessors={"face_tracks": bare}
    )
    task = ActiveSpeakerDetection(protocol, store, num_workers=0)
    task.prepare_data()
    task.setup()
    found, expected = task.prepared_data["train"], labelled_runs(files[:2])
    assert found.uris == expected.uris
    assert (found.table == expected.table).all()
    assert (found.labels == expected.labels).all()


def test_face_tracks_are_a_column_of_a_database_yml(files, store, tmp_path):
    from pyannote.database.registry import Registry

    folder = Path(files[0]["video"]).parent
    (tmp_path / "train.lst").write_text("talk0\ntalk1\n")
    (tmp_path / "database.yml").write_text(
        "Protocols:\n  Drawn:\n    SpeakerDiarization:\n      Labelled:\n        train:\n"
        f"          uri: train.lst\n          video: {folder}/{{uri}}.mp4\n"
        f"          face_tracks: {folder}/{{uri}}.npz\n"
    )
    registry = Registry()
    registry.load_database(tmp_path / "database.yml")
    protocol = registry.get_protocol("Drawn.SpeakerDiarization.Labelled")
    task = ActiveSpeakerDetection(protocol, store, num_workers=0)
    task.prepare_data()
    task.setup()
    found = task.prepared_data["train"]
    assert (found.labels == labelled_runs(files[:2]).labels).all()


def test_cache_of_another_protocol(files, store, tmp_path):
    protocol = make_protocol(files)
    task = ActiveSpeakerDetection(protocol, store, cache=tmp_path / "cache", num_workers=0)
    task.prepare_data()
    other = make_protocol(files)
    other.name = "Other.SpeakerDiarization.Drawn"
    task = ActiveSpeakerDetection(other, store, cache=tmp_path / "cache", num_workers=0)
    with pytest.raises(ValueError, match=r"of protocol Talkers.*not Other"):
        task.prepare_data()
    (tmp_path / "cache").write_bytes(b"something else")
    with pytest.raises(ValueError, match="holds no labels of tracks"):
        task.setup()


def test_tracks_too_short_to_train_on_are_validated(tmp_path):
    file = make_talkers(tmp_path, "short", duration=0.4)
    tracks = FaceTracks.read(file["face_tracks"])
    tracks.take((tracks.track == 1) | (tracks.time < 0.07)).write(file["face_tracks"])
    store = build_store(tmp_path / "store", [file]).store
    task = ActiveSpeakerDetection(make_protocol([file], [file]), store, num_workers=0)
    run = trainer()
    run.fit(CompactASD(task=task))
    assert task.batches("train").pieces["length"].tolist() == [10]
    assert sorted(task.batches("development").pieces["length"]) == [2, 10]
    assert math.isfinite(run.callback_metrics["loss/val"])


@pytest.mark.slow
def test_two_processes_train_and_validate(files, store):
    task = ActiveSpeakerDetection(
        make_protocol(files[:2], files[2:]), store, num_workers=0, batch_size=1, **PLAIN
    )
    model = CompactASD(task=task)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = trainer(devices=2, strategy="ddp_spawn")
    run.fit(model)
    assert math.isfinite(run.callback_metrics["loss/val"])
    assert 0 <= run.callback_metrics["BinaryAUROC"] <= 1
    after = model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    # four tracks, two processes
    steps = {int(value) for name, value in after.items() if "num_batches_tracked" in name}
    assert steps == {2}
    assert (after["classifier.weight"] != before["classifier.weight"]).all()


def gradients(task: ActiveSpeakerDetection, batch: dict) -> dict[str, torch.Tensor]:
    """Of a step without dropout and with batch normalisation frozen."""
    seed_everything(0)
    task.model = model = LRASD().eval()
    model.task, model.log = task, lambda *args, **kwargs: None
    task.training_step(batch, 0)["loss"].backward()
    return {name: value.grad for name, value in model.named_parameters()}


def one_of_two(rank: int, rendezvous: str, task, batches: list[dict], folder: str) -> None:
    """Gradients of one process, averaged as DistributedDataParallel does."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    mine = gradients(task, batches[rank])
    for value in mine.values():
        dist.all_reduce(value)
        value /= 2
    torch.save(mine, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_frames_of_all_processes_count_alike(files, store, tmp_path):
    """Two processes with a different number of labelled frames equal one with all of them"""
    task = ActiveSpeakerDetection(make_protocol(files), store, num_workers=0, **PLAIN)
    whole = batches_of(files[:1], store)[0]
    whole["y"][0, 0, 2:] = -1
    halves = [{"X": whole["X"][i], "y": whole["y"][i : i + 1]} for i in (0, 1)]
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    torch.multiprocessing.spawn(
        one_of_two, args=(rendezvous, task, halves, str(tmp_path)), nprocs=2
    )
    found, expected = torch.load(tmp_path / "0.pt"), gradients(task, whole)
    for name, value in expected.items():
        # single precision, summed in another order: small elements of a sum differ by more
        assert (found[name] - value).norm() <= 1e-3 * value.norm() + 1e-6, name
