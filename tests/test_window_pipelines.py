"""Pipelines that cut speech into windows: what they answer, whatever they are given."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyannote.core import Annotation, Segment, Timeline
from pyannote.database.util import load_rttm
from scenes import SMALL

pytest.importorskip("skimage", reason="the sample needs scikit-image: pip install '.[sample]'")

from pyannote_av import Pipeline
from pyannote_av.clustering.avrnet import AVRNet
from pyannote_av.clustering.counting_diarization import CountingDiarization
from pyannote_av.clustering.cysmsd import CYSMSD
from pyannote_av.clustering.embedded import FusedEmbeddings, RelationOfEmbeddings
from pyannote_av.clustering.enrolment_pipeline import EnrolmentDiarization
from pyannote_av.clustering.joint_diarization import JointDiarization
from pyannote_av.clustering.plda import fit_plda, save_plda
from pyannote_av.clustering.relation_diarization import RelationDiarization
from pyannote_av.clustering.similarity_diarization import SimilarityDiarization
from pyannote_av.clustering.tree_counter import TreeCounter
from pyannote_av.clustering.vbx_diarization import VBxDiarization
from pyannote_av.clustering.windowed_file import ScoredFaces
from pyannote_av.clustering.windows import cut_windows
from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.io import Video
from pyannote_av.core.output import AVDiarizeOutput
from pyannote_av.core.tracks import FaceSamples, FaceTracks
from pyannote_av.models.embedding.voiceprints import segment_embeddings, speaker_features
from pyannote_av.models.loading import load_model
from pyannote_av.pipelines.face_tracking import FaceTracking
from pyannote_av.vision.identity import SFace

DURATION = 8.0
VOICE, FACE = 192, 129
FRAME = 0.04


@dataclass
class Scene:
    """A video of two people, and what there is to know of it."""

    path: Path
    waveform: torch.Tensor
    reference: Annotation
    tracks: FaceTracks

    @property
    def speech(self) -> Timeline:
        return self.reference.get_timeline().support()

    def file(self, **changes) -> dict:
        """With given tracks, and where speech is."""
        given = {"video": str(self.path), "uri": "scene", "lab": self.speech}
        return {**given, "face_tracks": self.tracks, **changes}

    def sound(self, seconds: float = 3.0, **changes) -> dict:
        """The beginning of it, without any picture."""
        heard, lab = self.waveform[:, : round(seconds * SAMPLE_RATE)], Timeline([Segment(0.5, 2.6)])
        given = {"waveform": heard, "sample_rate": SAMPLE_RATE, "uri": "scene"}
        return {**given, "lab": lab, **changes}


@pytest.fixture(scope="module")
def scene(short_sample) -> Scene:
    path = short_sample["video"]
    (reference,) = load_rttm(short_sample["rttm"]).values()
    reference.uri = "scene"
    tracks = replace(FaceTracks.read(short_sample["tracks"]), speaker={}, label=None, uri=None)
    return Scene(path, Video().waveform(path), reference, tracks)


class Remembering:
    """An embedder that looks at every picture once, however many pipelines show it"""

    def __init__(self, embedder):
        self.name, self.size, self._embedder = embedder.name, embedder.size, embedder
        self._known = {}

    def __call__(self, faces):
        key = faces.tobytes()
        if key not in self._known:
            self._known[key] = self._embedder(faces)
        return self._known[key]


@pytest.fixture(scope="module")
def parts() -> dict:
    """What all pipelines are made of"""
    torch.set_num_threads(1)
    return {
        "embedding": load_model("campplus"),
        "segmentation": load_model("segmentation-3.0"),
        "embedder": Remembering(SFace()),
        "scorer": "synchrony",
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict:
    """Networks and a PLDA that know nothing"""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 6)
    voices = rng.standard_normal((40, VOICE))[who] + 0.7 * rng.standard_normal((len(who), VOICE))
    embed = RelationOfEmbeddings(VOICE, FACE, widths=(16, 8), blocks=(1, 1))
    return {
        "embed": embed.eval(),
        "gmu": FusedEmbeddings(VOICE, FACE, fusion="gmu", dimension=16).eval(),
        "counter": CYSMSD(VOICE, FACE, width=32, heads=2, max_speakers=4).eval(),
        "plda": save_plda(tmp_path_factory.mktemp("plda") / "plda", fit_plda(voices, who, 16)),
    }


#: class, and which models it is given, by argument
KINDS = {
    "similarity": (SimilarityDiarization, {}),
    "embed": (RelationDiarization, {"relation": "embed"}),
    "gmu": (RelationDiarization, {"relation": "gmu"}),
    "counting": (CountingDiarization, {"counter": "counter"}),
    "enrolment": (EnrolmentDiarization, {}),
    "joint": (JointDiarization, {}),
    "vbx": (VBxDiarization, {"plda": "plda"}),
}


@pytest.fixture(scope="module")
def make(parts, models):
    """Make a pipeline by kind"""

    def made(kind: str, **options):
        build, given = KINDS[kind]
        named = {argument: models[name] for argument, name in given.items()}
        pipeline = build(**{"oracle_vad": True, **parts, **named, **options})
        return pipeline.instantiate(pipeline.default_parameters())

    return made


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


# "gmu" is of the class of "embed": what it does differently has a test of its own
@pytest.fixture(scope="module", params=[one for one in KINDS if one != "gmu"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def pipeline(make, kind):
    return make(kind)


@pytest.fixture(scope="module")
def output(pipeline, scene):
    return pipeline(scene.file())


@pytest.fixture(scope="module")
def seen(parts, scene):
    """What pipelines see of the scene"""
    watched = []

    class Watching(SimilarityDiarization):
        def cluster(self, scene, bounds, hook):
            watched.append(scene.faces)
            return super().cluster(scene, bounds, hook)

    pipeline = Watching(oracle_vad=True, **parts)
    pipeline.instantiate(pipeline.default_parameters())(scene.file())
    return watched[0]


@pytest.fixture(scope="module")
def features(parts, scene) -> np.ndarray:
    """Voices of the scene"""
    return speaker_features(scene.waveform, parts["embedding"])


@pytest.fixture
def hasty(pipeline, scene, seen):
    """Turns of the scene, by what is remembered of it as while tuning"""

    def turns(file=None, **options) -> Annotation:
        pipeline.training = True
        try:
            return pipeline(known if file is None else file, scored_faces=seen, **options)
        finally:
            pipeline.training = False

    known = scene.file()
    return turns


def assert_same_speech(turns: Annotation, speech: Timeline) -> None:
    """No false alarm, and nothing missed"""
    found, speech = turns.get_timeline().support(), speech.support()
    found, speech = (np.array([tuple(s) for s in x]).reshape(-1, 2) for x in (found, speech))
    np.testing.assert_allclose(found, speech, atol=1e-5)


def assert_whole(output, speech: Timeline, dimension: int = VOICE) -> None:
    turns, labels = output.speaker_diarization, output.speaker_diarization.labels()
    assert_same_speech(turns, speech)
    assert_same_speech(output.exclusive_speaker_diarization, speech)
    assert not output.exclusive_speaker_diarization.get_overlap()
    assert labels == [f"SPEAKER_{k:02d}" for k in range(len(labels))]
    assert output.speaker_embeddings.shape == (len(labels), dimension)
    assert set(output.face_tracks.speaker.values()) <= set(labels)
    content = json.loads(json.dumps(output.serialize()))
    assert content["speakers"] == labels


def count(output) -> int:
    return len(output.speaker_diarization.labels())


# what is answered


def test_output_is_whole(output, scene, kind):
    assert isinstance(output, AVDiarizeOutput)
    assert_whole(output, scene.speech)
    length = np.linalg.norm(output.speaker_embeddings, axis=1)
    np.testing.assert_allclose(length, 1, rtol=1e-4)
    # numbered in order of appearance
    turns = output.speaker_diarization
    starts = [turns.label_timeline(label)[0].start for label in turns.labels()]
    assert starts == sorted(starts)
    report = output.report
    assert report.duration == pytest.approx(DURATION, abs=FRAME)
    stages = {"decoding of the sound", "speech", "faces", "voices", "clustering"}
    assert report.seconds.keys() == stages
    assert report.components["scorer"] == "synchrony"
    assert report.components["identity"] == "sface"
    assert report.video_used
    sizes = (1.5, 0.75) if kind in ("counting", "joint") else (2.0, 0.5)
    assert report.numbers["windows"] == len(cut_windows(scene.speech, *sizes))
    assert output.face_tracks.speaker


def test_again_is_the_same(pipeline, output, scene, seen):
    again = pipeline(scene.file(), scored_faces=seen)
    assert again.speaker_diarization == output.speaker_diarization
    assert again.exclusive_speaker_diarization == output.exclusive_speaker_diarization
    assert np.array_equal(again.speaker_embeddings, output.speaker_embeddings)
    assert again.face_tracks.speaker == output.face_tracks.speaker


def test_voiceprints_are_in_order_of_labels(output, features, kind):
    labels = output.speaker_diarization.labels()
    for label, mine in zip(labels, output.speaker_embeddings, strict=True):
        turns = output.speaker_diarization.label_timeline(label)
        heard = segment_embeddings(features, np.array([tuple(turn) for turn in turns])).sum(axis=0)
        own = heard @ mine
        if kind == "similarity":  # others may be wrong about who it is
            assert own == pytest.approx((output.speaker_embeddings @ heard).max())
        assert own / np.linalg.norm(heard) > 0.8


def test_number_of_speakers(hasty, scene, kind):
    found = [len(hasty(num_speakers=number).labels()) for number in (1, 2, 3)]
    fewest, most = (
        len(hasty(**{f"{k}_speakers": n}).labels()) for k, n in (("min", 3), ("max", 1))
    )
    if kind == "enrolment":  # as many as enrol
        assert {*found, fewest, most} == {len(hasty().labels())}
    elif kind == "joint":  # faces have the last word
        assert all(found)
    else:
        assert found == [1, 2, 3]
        assert (fewest >= 3, most) == (True, 1)


def test_joint_clustering_counts_where_nobody_is_seen(make, scene):
    pipeline = make("joint")
    for number in (1, 2):
        assert count(pipeline(scene.sound(), num_speakers=number)) == number


def test_numbers_that_cannot_be(pipeline, scene, kind):
    lab = Timeline([Segment(0.1, 1.9), Segment(2.1, 2.9)])
    many = pipeline(scene.sound(lab=lab), num_speakers=50)
    windows = many.report.numbers["windows"]
    assert windows < 5
    assert count(many) == 1 if kind == "enrolment" else 1 < count(many) <= windows
    assert_whole(many, lab)
    for bounds in ({"num_speakers": 0}, {"min_speakers": 0}, {"max_speakers": -1}):
        with pytest.raises(ValueError, match=r"speakers: -?\d is not a number of speakers"):
            pipeline(scene.sound(), **bounds)
    with pytest.raises(ValueError, match="min_speakers=3 is more than max_speakers=2"):
        pipeline(scene.sound(), min_speakers=3, max_speakers=2)


def test_missing_faces_are_no_faces(pipeline, hasty, scene, seen):
    blind = ScoredFaces(FaceTracks.empty(uri="scene"), FaceSamples.none())
    nobody = pipeline(scene.file(), scored_faces=blind)
    assert not nobody.report.video_used
    assert not nobody.report.numbers["entries with a face"]
    assert not nobody.face_tracks.tracks
    pipeline.missing_rate = 1.0
    try:
        assert hasty(scene.file()) == nobody.speaker_diarization
    finally:
        pipeline.missing_rate = 0.0


@pytest.mark.parametrize("talking", [1.0, 9.0])
def test_everybody_talks_all_the_time(talking, pipeline, scene, seen, kind):
    always = replace(seen.tracks, speaking=np.full(len(seen.tracks), talking))
    file = scene.file()
    pipeline.training = True
    try:
        turns = pipeline(file, scored_faces=seen._replace(tracks=always))
    finally:
        pipeline.training = False
    assert_same_speech(turns, scene.speech)
    if kind in ("counting", "vbx", "joint", "enrolment"):  # a window has one speaker
        assert not turns.get_overlap()


# what is given


def test_a_list_of_files(pipeline, scene):
    lab = Timeline([Segment(1, 3)])
    files = [scene.sound(lab=lab, uri="one"), {"audio": str(scene.path), "uri": "two", "lab": lab}]
    found = [(file["uri"], output) for file, output in pipeline(files)]
    assert [uri for uri, _ in found] == ["one", "two"]
    for uri, output in found:
        assert output.speaker_diarization.uri == uri
        assert_whole(output, lab)
        assert not output.report.video_used
        assert output.report.reasons == ["no face is speaking"]
        assert not output.face_tracks.tracks


def test_nobody_speaks(pipeline, scene):
    empty = pipeline(scene.file(lab=Timeline()))
    assert_whole(empty, Timeline())
    assert not empty.face_tracks.speaker
    assert set(empty.face_tracks.tracks) == set(scene.tracks.tracks)
    pipeline.oracle_vad = False
    try:
        silence = pipeline(scene.sound(waveform=torch.zeros(1, 3 * SAMPLE_RATE)))
    finally:
        pipeline.oracle_vad = True
    assert_whole(silence, Timeline())
    assert not silence.report.video_used


@pytest.mark.parametrize(("lab", "number"), [((1.0, 2.5), None), ((2.0, 2.01), 3)])
def test_one_window(lab, number, pipeline, scene):
    lab = Timeline([Segment(*lab)])
    one = pipeline(scene.sound(lab=lab), num_speakers=number)
    assert one.report.numbers["windows"] == 1
    assert_whole(one, lab)
    assert count(one) == 1


def test_oracle_without_oracle(pipeline, scene):
    with pytest.raises(ValueError, match="'scene' has no `lab`"):
        pipeline({"video": str(scene.path), "uri": "scene", "face_tracks": scene.tracks})


def test_an_oracle_that_knows_too_much(pipeline, scene):
    """Speech before the beginning, and after the end"""
    lab = Timeline([Segment(-3, 1.3), Segment(1.5, 8), Segment(30, 31)])
    output = pipeline(scene.sound(lab=lab))
    assert_whole(output, Timeline([Segment(0, 1.3), Segment(1.5, 3)]))


@pytest.mark.parametrize("silent", [(0.0, 2.0), (0.0, 4.0)])
def test_digital_silence_inside_of_speech(silent, pipeline, scene):
    waveform, lab = scene.waveform[:, : 4 * SAMPLE_RATE].clone(), Timeline([Segment(0, 4)])
    first, last = (round(t * SAMPLE_RATE) for t in silent)
    waveform[:, first:last] = 0
    output = pipeline(scene.sound(waveform=waveform, lab=lab))
    assert_whole(output, lab)
    known = np.isfinite(output.speaker_embeddings).all(axis=1)
    if last == waveform.shape[1]:
        assert not known.any()
    else:
        assert known.any()


def test_speech_is_found_where_nobody_says_so(make, scene):
    output = make("similarity", oracle_vad=False)(scene.sound(DURATION))
    found = output.speaker_diarization.get_timeline().support()
    assert found.extent() in Segment(0, scene.waveform.shape[1] / SAMPLE_RATE + 1e-6)
    common = found.crop(scene.speech).duration()
    assert common > 0.85 * max(found.duration(), scene.speech.duration())


def test_from_pretrained(kind, pipeline, models, scene, tmp_path):
    build, given = KINDS[kind]
    params = {"embedder": None, "scorer": "synchrony", "oracle_vad": True}
    for argument, name in given.items():
        params[argument] = f"$model/{name}"
        if name == "plda":
            (tmp_path / name).symlink_to(models[name])
        else:
            models[name].save(tmp_path / name)
    content = {"name": f"{build.__module__}.{build.__name__}", "params": params}
    (tmp_path / "config.yaml").write_text(json.dumps({"pipeline": content}))
    loaded = Pipeline.from_pretrained(tmp_path)
    assert type(loaded) is type(pipeline)
    assert loaded.default_parameters() == pipeline.default_parameters()
    found, expected = loaded(scene.sound()), pipeline(scene.sound())
    assert found.speaker_diarization == expected.speaker_diarization


# what only some of them do


@pytest.mark.parametrize("kind", ["similarity", "embed"])
def test_faces_that_are_seen_together_are_apart(kind, make, scene, seen):
    free, constrained = make(kind), make(kind, constrained=True)
    for one in (free, constrained):
        one.instantiate({**one.default_parameters(), "threshold": 0.0})  # all are alike
    assert count(free(scene.file(), scored_faces=seen)) == 1
    found = constrained(scene.file(), scored_faces=seen)
    names = found.face_tracks.speaker
    assert len(names) == 2
    assert len(set(names.values())) == 2
    assert_whole(found, scene.speech)
    # a number is a number
    assert count(constrained(scene.file(), scored_faces=seen, num_speakers=1)) == 1


def test_similarity_tells_them_apart(make, scene, seen):
    from pyannote.metrics.diarization import DiarizationErrorRate

    whole = Timeline([Segment(0, DURATION)])
    for use_faces in (True, False):
        pipeline = make("similarity", use_faces=use_faces)
        output = pipeline(scene.file(), scored_faces=seen, num_speakers=2)
        metric = DiarizationErrorRate(collar=0.25)
        assert metric(scene.reference, output.speaker_diarization, uem=whole) < 0.35


def test_who_is_taken_to_talk(make, scene, seen):
    pipeline = make("similarity")
    scores = replace(seen.tracks, speaking=np.full(len(seen.tracks), 2.0, np.float32))
    faces = []
    for talking in (1.9, 2.1):
        pipeline.instantiate({**pipeline.default_parameters(), "talking": talking})
        found = pipeline(scene.file(), scored_faces=ScoredFaces(scores, seen.samples))
        faces.append(found.report.numbers["entries with a face"])
    assert faces[0] > 0
    assert faces[1] == 0


@pytest.mark.parametrize(("bias", "expected"), [(-7.0, 1), (2.2, 2), (1e4, None)])
def test_predicted_counts(bias, expected, make, scene):
    torch.manual_seed(0)
    network = CYSMSD(VOICE, FACE, width=32, heads=2, max_speakers=4).eval()
    with torch.no_grad():
        network.counter[-1].weight.zero_()
        network.counter[-1].bias.fill_(bias)
    pipeline = make("counting", counter=network)
    output = pipeline(scene.sound(DURATION, lab=scene.speech))
    windows = output.report.numbers["windows"]
    assert count(output) == (windows if expected is None else expected)
    assert_whole(output, scene.speech)
    assert count(pipeline(scene.sound(), max_speakers=1)) == 1
    assert count(pipeline(scene.sound(), min_speakers=2)) == 2
    # whatever was counted
    pipeline.instantiate({**pipeline.default_parameters(), "counting": "threshold"})
    pipeline.instantiate({**pipeline.parameters(instantiated=True), "threshold": 1.0})
    assert count(pipeline(scene.sound())) == 1


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("predicted", [1, 3])
def test_a_counter_replaces_the_threshold(predicted, constrained, make, scene, seen, tmp_path):
    network = TreeCounter(max_speakers=4, width=16)
    with torch.no_grad():
        network.head[-1].bias[predicted - 1] += 1e4
    network.save(tmp_path)
    pipeline = make("embed", counter=tmp_path, constrained=constrained)
    for threshold in (0.0, 1.0):
        pipeline.instantiate({**pipeline.default_parameters(), "threshold": threshold})
        output = pipeline(scene.file(), scored_faces=seen)
        assert count(output) == predicted
    assert_whole(output, scene.speech)
    assert count(pipeline(scene.file(), scored_faces=seen, num_speakers=2)) == 2
    assert count(pipeline(scene.file(), scored_faces=seen, min_speakers=4)) == 4
    assert count(pipeline(scene.file(), scored_faces=seen, max_speakers=1)) == 1


def test_a_counter_of_another_kind(make, models):
    with pytest.raises(TypeError, match="must be a TreeCounter, not CYSMSD"):
        make("embed", counter=models["counter"])


def test_a_network_that_was_trained_with_another_face_embedder(make, scene, seen):
    network = CYSMSD(VOICE, FACE + 1, width=32, heads=2, max_speakers=4).eval()
    with pytest.raises(ValueError, match=f"face embeddings of dimension {FACE + 1}, not {FACE}"):
        make("counting", counter=network)(scene.file(), scored_faces=seen)


@pytest.mark.slow
def test_avrnet(parts, scene):
    """The real network, untrained, on four windows"""
    torch.manual_seed(0)
    network = AVRNet().eval()
    pipeline = RelationDiarization(network, **parts, oracle_vad=True, step=1.0)
    assert pipeline.face == "random"
    pipeline.instantiate({**pipeline.default_parameters(), "threshold": 0.5})
    rows = scene.tracks.time < 2.5
    tracks = FaceTracks(
        scene.tracks.time[rows],
        scene.tracks.track[rows],
        scene.tracks.box[rows],
        scene.tracks.landmarks[rows],
        scene.tracks.confidence[rows],
        frame_size=SMALL,
    )
    lab = Timeline([Segment(0, 3), Segment(4, 6), Segment(7, 7.5)])
    steps = []

    def hook(name, artifact, file=None, total=None, completed=None):
        steps.append((name, completed, total))

    output = pipeline(scene.file(lab=lab, face_tracks=tracks), num_speakers=2, hook=hook)
    assert_whole(output, lab)
    assert count(output) == 2
    assert output.report.numbers["windows"] == 4
    assert output.report.numbers["entries with a face"] >= 1
    assert output.report.components["identity"] == "avr-net"
    pairs = [step for step in steps if step[0] == "relation"]
    assert pairs[-1][1] == pairs[-1][2] > 0
    # and without anybody to be seen
    alone = pipeline(scene.sound(DURATION, lab=lab), num_speakers=3)
    assert count(alone) == 3
    assert_whole(alone, lab)
    one = pipeline(scene.sound(lab=Timeline([Segment(2, 2.5)])))
    assert count(one) == 1


def test_fused_embeddings(make, models, scene, seen, tmp_path):
    pipeline = make("gmu")
    assert pipeline.face == "mean"
    assert count(pipeline(scene.sound(), num_speakers=2)) == 2
    output = pipeline(scene.file(), scored_faces=seen, num_speakers=3)
    assert_whole(output, scene.speech)
    assert count(output) == 3
    saved = models["gmu"].save(tmp_path / "gmu")
    loaded = make("gmu", relation=saved)(scene.file(), scored_faces=seen, num_speakers=3)
    assert loaded.speaker_diarization == output.speaker_diarization


def test_a_random_face_of_a_window(make, parts, models, scene, seen):
    """Drawn by the seed, from several samples of a face in each window"""
    samples = seen.samples
    index = np.repeat(np.arange(len(samples.track)), 2)
    frame = samples.frame[index] + np.tile([0, 1], len(samples.track))
    rng = np.random.default_rng(0)
    vector = rng.standard_normal((len(index), *samples.vector.shape[1:])).astype(np.float32)
    several = seen._replace(samples=FaceSamples(samples.track[index], frame, vector))

    class Watching(RelationDiarization):
        def similarities(self, windowed, hook):
            self.found = super().similarities(windowed, hook)
            return self.found

    def scores(**options):
        pipeline = Watching(models["gmu"], **parts, oracle_vad=True, **options)
        pipeline.instantiate(pipeline.default_parameters())(scene.file(), scored_faces=several)
        return pipeline.found

    first = scores(face="random")
    assert np.array_equal(scores(face="random"), first)
    assert not np.allclose(scores(face="random", seed=1), first, atol=1e-4)
    assert not np.allclose(scores(), first, atol=1e-4)
    with pytest.raises(ValueError, match='face must be "random" or "mean"'):
        make("gmu", face="best")


def test_windows_that_do_not_cover_speech(make, scene):
    with pytest.raises(ValueError, match="leave gaps"):
        make("similarity", duration=1.0, step=2.0)(scene.sound())
    with pytest.raises(ValueError, match="missing faces"):
        make("similarity", missing_rate=1.5)(scene.sound())


# tuning


@pytest.fixture
def calls(monkeypatch) -> dict[str, int]:
    """How often what takes time was done"""
    from pyannote.audio.core.inference import Inference

    import pyannote_av.clustering.window_diarization as base

    counted: dict[str, int] = {}

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*args, **kwargs):
            counted[name] = counted.get(name, 0) + 1
            return original(*args, **kwargs)

        counted[name] = 0
        monkeypatch.setattr(owner, name, watched)

    watch(Video, "waveform")
    watch(Video, "frames")
    watch(FaceTracking, "apply")
    watch(Inference, "slide")
    watch(base, "speaker_features")
    watch(RelationDiarization, "similarities")
    watch(CountingDiarization, "count")
    return counted


TUNED = {"embed": ["threshold"], "counting": ["counting", "threshold"]}


def once_each(kind: str, files: int = 1) -> dict[str, int]:
    own = {"similarities": kind == "embed", "count": kind == "counting"}
    names = ("waveform", "frames", "apply", "slide", "speaker_features")
    return dict.fromkeys(names, files) | {name: files * on for name, on in own.items()}


@pytest.mark.filterwarnings("ignore:suggest_uniform:FutureWarning")
@pytest.mark.parametrize("tuned", TUNED)
def test_in_the_second_trial_nothing_is_done_again(tuned, make, scene, calls):
    from pyannote.pipeline import Optimizer

    pipeline = make(tuned, oracle_vad=False)
    frozen = pipeline.default_parameters()
    for name in TUNED[tuned]:
        del frozen[name]
    pipeline.freeze(frozen)
    file = scene.file(
        annotation=scene.reference, annotated=Timeline([Segment(0, DURATION)], uri="scene")
    )
    del file["lab"]
    tuning = Optimizer(pipeline, sampler="RandomSampler", seed=0).tune_iter([file])
    next(tuning)
    assert calls == once_each(tuned)
    for _ in range(3):
        status = next(tuning)
    assert calls == once_each(tuned)
    assert 0 <= status["loss"] < 1.5
    best = pipeline.instantiate(status["params"])
    assert isinstance(best(file), AVDiarizeOutput)


def test_what_is_cached_is_not_used_for_something_else(make, scene, monkeypatch):
    """Faces that are hidden, other windows, other options, another file"""
    for kind, step in (("similarity", "similarities"), ("counting", "count")):
        pipeline, file, calls = make(kind), scene.sound(), []
        compute = getattr(type(pipeline), step)

        def watched(*args, calls=calls, compute=compute):
            calls.append(1)
            return compute(*args)

        monkeypatch.setattr(type(pipeline), step, watched)
        pipeline.training = True
        before = dict(file)
        first = pipeline(file)
        assert isinstance(first, Annotation)
        assert pipeline(file) == first
        assert len(calls) == 1
        assert file == before
        if kind == "counting":  # all faces, not those of entries
            pipeline.missing_rate = 1.0
        else:
            pipeline.use_faces = False
        pipeline(file)
        assert len(calls) == 2
        pipeline.duration = 1.0
        pipeline(file)
        assert len(calls) == 3
        pipeline(scene.sound(2.0))
        assert len(calls) == 4


@pytest.fixture(scope="module")
def registry(scene, tmp_path_factory) -> Path:
    """database.yml of a protocol with one video, its faces, and where speech is"""
    folder = tmp_path_factory.mktemp("protocol")
    (folder / "scene.mp4").write_bytes(scene.path.read_bytes())
    scene.tracks.write(folder / "scene.npz")
    with open(folder / "scene.rttm", "w") as rttm:
        scene.reference.write_rttm(rttm)
    lab = "".join(f"{turn.start:.3f} {turn.end:.3f} speech\n" for turn in scene.speech)
    (folder / "scene.lab_strict").write_text(lab)
    (folder / "scene.uem").write_text(f"scene 1 0.000 {DURATION:.3f}\n")
    (folder / "list.txt").write_text("scene\n")
    (folder / "database.yml").write_text(
        """
Databases:
  AV: ./{uri}.mp4
Protocols:
  AV:
    SpeakerDiarization:
      Scene:
        scope: file
        development:
          uri: ./list.txt
          annotation: ./scene.rttm
          annotated: ./scene.uem
          video: ./{uri}.mp4
          face_tracks: ./{uri}.npz
          lab: ./{uri}.lab_strict
"""
    )
    return folder / "database.yml"


@pytest.mark.filterwarnings("ignore:suggest_uniform:FutureWarning")
@pytest.mark.parametrize("tuned", TUNED)
def test_stock_optimize(tuned, make, models, registry, calls, tmp_path):
    import yaml
    from pyannote.audio.__main__ import app
    from typer.testing import CliRunner

    build, given = KINDS[tuned]
    ((argument, name),) = given.items()
    models[name].save(tmp_path / name)
    params = {argument: f"$model/{name}", "embedder": None, "oracle_vad": True}
    frozen = make(tuned).default_parameters()
    for one in TUNED[tuned]:
        del frozen[one]
    content = {"name": f"{build.__module__}.{build.__name__}", "params": params}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"pipeline": content, "freeze": frozen}))
    protocol = "AV.SpeakerDiarization.Scene"
    options = ["--registry", str(registry), "--max-iterations", "2", "--device", "cpu"]
    result = CliRunner().invoke(app, ["optimize", str(config), protocol, *options])
    assert result.exit_code == 0, (result.output, result.exception)
    # of the oracle nothing is asked that takes time
    assert calls == {**once_each(tuned), "slide": 0}
    found = yaml.safe_load((tmp_path / f"config.{protocol}.development.yaml").read_text())
    assert set(TUNED[tuned]) <= set(found["params"])
    assert 0 <= found["optimization"]["status"]["best_loss"] < 1.5
