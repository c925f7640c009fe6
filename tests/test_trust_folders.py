"""Folders, configurations of trainings and studies of strangers: nothing is shared, written or
computed that their owner alone wants.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from safetensors.numpy import save as to_safetensors

from pyannote_av.batch.identity import pipeline_identity
from pyannote_av.cli.sweep import load_pipelines
from pyannote_av.core.atomic import locked
from pyannote_av.core.checkpoint import CheckpointError
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks
from pyannote_av.core.trust import UntrustedError, loading
from pyannote_av.data.build import build_store
from pyannote_av.models.active_speaker.scorers import get_scorer
from pyannote_av.models.embedding.campplus import CAMPPlus
from pyannote_av.pretrained import shipped
from pyannote_av.sharing import hub
from pyannote_av.sharing.evaluation_tables import Evaluation
from pyannote_av.sharing.folders import check_links, read_pipeline, save_pipeline
from pyannote_av.sharing.inventory import Part, describe_lineage
from pyannote_av.sharing.strip import lineage
from pyannote_av.training.config import TrainingConfig
from pyannote_av.training.from_config import (
    MAX_FILES,
    _loggers,
    _remember,
    check_caches,
    check_loggers,
    check_trainer,
    make_augmentation,
)
from pyannote_av.tuning.cache import Cache
from pyannote_av.tuning.serialization import Entry, from_bytes, to_bytes
from pyannote_av.tuning.study import open_study
from pyannote_av.vision.crops import _grid_near, _resample, on_grid

AUDIO = "pyannote_av.pipelines.audio_diarization.AudioDiarization"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pipeline_folder(folder: Path, name: str = AUDIO, *, top: dict | None = None, **params) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"pipeline": {"name": name, "params": params}, **(top or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def training(**changes) -> TrainingConfig:
    content = {
        "protocol": "X.SpeakerDiarization.Y",
        "into": "into",
        "task": {"name": "ActiveSpeakerDetection", "params": {"store": "store"}},
        "model": {"name": "LRASD"},
    }
    return TrainingConfig.parse({**content, **changes})


# ---------------------------------------------------------------- what is shared


@pytest.mark.parametrize(
    "place", ["downloads", "home/snapshots/mine", "models--a--b/other/mine", "a/snapshots/b"]
)
@pytest.mark.parametrize("share", [hub.push, hub.pull])
def test_links_out_of_a_folder_are_not_followed(place, share, tmp_path):
    secret = tmp_path / "home" / "private" / "id_rsa"
    secret.parent.mkdir(parents=True)
    secret.write_text("SECRET")
    folder = pipeline_folder(tmp_path / place)
    (folder / "README.md").symlink_to(secret)
    with pytest.raises(ValueError, match="link that leads out"):
        share(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cache_of_the_hub_links_to_its_blobs_and_nowhere_else(tmp_path):
    repository = tmp_path / "models--a--b"
    snapshot = pipeline_folder(repository / "snapshots" / "123")
    (repository / "blobs").mkdir()
    (snapshot / "config.yaml").rename(repository / "blobs" / "0")
    (snapshot / "config.yaml").symlink_to("../../blobs/0")
    assert (hub.pull(snapshot, tmp_path / "out") / "config.yaml").is_file()
    for target in ("../../refs", "../456", "../../..", "loop"):
        (repository / "refs").mkdir(exist_ok=True)
        (snapshot / "loop").unlink(missing_ok=True)
        (snapshot / "loop").symlink_to(target)
        with pytest.raises(ValueError, match="leads out"):
            check_links(snapshot / "loop", snapshot)


def test_links_in_a_circle_are_not_shared(tmp_path):
    folder = pipeline_folder(tmp_path / "mine")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(ValueError, match=r"loop\.yaml leads out of the folder"):
        hub.check(folder)


@pytest.mark.parametrize(
    ("top", "params", "key"),
    [
        ({"extra": "$model/private.txt"}, {}, "extra"),
        ({"more": "$model/@"}, {}, "names nothing"),
        ({"more": "$model/"}, {}, "names nothing"),
        ({"more": ["$model/sub"]}, {}, r"more\.0"),
        ({"params": {"x": {"y": "$model/private.txt"}}}, {}, r"params\.x\.y"),
        ({}, {"segmentation_step": "$model/sub"}, r"pipeline\.params\.segmentation_step"),
        ({}, {"embedding": "$model/"}, "names nothing"),
        ({}, {"embedding": "$model/sub/../private.txt"}, "leads out"),
        ({}, {"embedding": "$model//etc/passwd"}, "leads out"),
    ],
)
def test_neighbours_are_not_shared(top, params, key, tmp_path):
    folder = pipeline_folder(tmp_path / "downloads", top=top, **params)
    (folder / "sub").mkdir()
    for name in ("private.txt", "sub/keys.json"):
        (folder / name).write_text("SECRET")
    with pytest.raises(ValueError, match=key):
        save_pipeline(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_identities_of_shipped_pipelines_are_what_they_were(monkeypatch):
    """Those of the version before, which looked at every text of a configuration"""
    from pyannote_av.batch import identity
    from pyannote_av.core.checksums import sha256_of
    from pyannote_av.core.weights import REGISTRY

    def texts(value):
        if isinstance(value, dict):
            return [text for one in value.values() for text in texts(one)]
        return [value] if isinstance(value, str) else []

    def parts(name: str):
        config, folder = read_pipeline(name)
        yield "config", json.dumps(config, sort_keys=True, default=str)
        for value in texts(config["pipeline"]):
            if value.startswith("$model/"):
                path = folder / value.removeprefix("$model/")
                for file in sorted(path.rglob("*")):
                    yield str(file.relative_to(path)), sha256_of(file)
            elif value in REGISTRY:
                yield identity._weights(value)
            elif value in shipped():
                yield from parts(value)
        for one in identity._SOUND:
            yield identity._weights(one)
        if not config["pipeline"]["name"].endswith(identity._AUDIO_ONLY):
            for one in identity._PICTURES:
                yield identity._weights(one)

    for name in shipped():
        assert sorted(identity._parts(name)) == sorted(parts(name)), name


def test_identities_look_at_models_only(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "model.safetensors").write_text("one")
    (tmp_path / "private" / "diary.txt~").write_text("dear")
    named = pipeline_folder(tmp_path / "a", note=str(tmp_path / "private"))
    before = pipeline_identity(named)
    model = pipeline_folder(tmp_path / "b", embedding=str(tmp_path / "private"))
    of_model = pipeline_identity(model)
    (tmp_path / "private" / "diary.txt~").write_text("diary")
    assert pipeline_identity(model) == of_model
    (tmp_path / "private" / "model.safetensors").write_text("two")
    assert pipeline_identity(model) != of_model
    assert pipeline_identity(named) == before
    with pytest.raises(ValueError, match="leads out"):
        pipeline_identity(pipeline_folder(tmp_path / "c", embedding="$model/../private"))


def test_evaluate_and_sweep_pass_trust_on(tmp_path, monkeypatch):
    (tmp_path / "their_pipelines.py").write_text(
        f"from {AUDIO.rpartition('.')[0]} import *\nclass Theirs(AudioDiarization): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = str(pipeline_folder(tmp_path / "theirs", "their_pipelines.Theirs"))
    with pytest.raises(UntrustedError, match=r"their_pipelines\.Theirs"):
        load_pipelines([folder], "cpu")
    (loaded,) = load_pipelines([folder], "cpu", True).values()
    assert type(loaded).__name__ == "Theirs"


FORGED = "\x1b[2J\n\n# Forged\u2028heading | x"


def test_cards_hold_no_control_characters(tmp_path):
    stage = {
        "stage": {"name": FORGED, "train": [FORGED], "losses": {FORGED: 1.0}},
        "epochs": FORGED,
    }
    card = describe_lineage(Part("model", "LRASD", "model.safetensors", lineage=[stage]))
    total = dict.fromkeys(("der", "false_alarm", "missed", "confusion", "jer"), 1.0)
    total |= {"uri": "TOTAL", "system": FORGED, "vad": FORGED, "rule": FORGED, "tracks": FORGED}
    condition = dict.fromkeys(("error", "false_alarm", "missed", "confusion", "seconds"), 1.0)
    content = {
        "command": FORGED,
        "scores": [{**total, "files": 1, "speakers": 1}],
        "rules": {FORGED: {"collar": 0.25, "overlap": True}},
        "conditions": [{**condition, "condition": FORGED, "group": FORGED, "system": FORGED}],
    }
    (tmp_path / "scores.json").write_text(json.dumps(content))
    evaluation = Evaluation.read(tmp_path / "scores.json")
    card += evaluation.to_markdown()
    with pytest.raises(ValueError, match="say which") as caught:
        evaluation.choose("other")
    for text in (card, str(caught.value)):
        assert not {"\x1b", "\u2028"} & set(text)
    assert "\n# Forged" not in card
    assert "Forged" in card


def test_models_of_something_else_are_named(tmp_path):
    for content in (3, {"x": torch.zeros(1)}, {"head.conv1.weight": "text"}, [torch.zeros(1)]):
        path = tmp_path / "weights.pt"
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"weights\.pt"):
            CAMPPlus.from_checkpoint(path)
    with pytest.raises(FileNotFoundError) as caught:
        get_scorer(Path("\x1b[2J.pt"))
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("stages", [3, "abc", ["abc"], [torch.zeros(1)], [{"x": torch.zeros(1)}]])
def test_a_lineage_is_a_list_of_stages(stages):
    with pytest.raises(CheckpointError, match=r"x\.ckpt: its lineage"):
        lineage({"pyannote.audio": {"lineage": stages}}, Path("x.ckpt"))
    recursive: list = []
    recursive.append(recursive)
    with pytest.raises(CheckpointError, match=r"x\.ckpt: its lineage"):
        lineage({"pyannote.audio": {"lineage": recursive}}, Path("x.ckpt"))
    plain = {"pyannote.audio": {"lineage": [{"seed": 1}]}, "global_step": 3}
    assert lineage(plain, Path("x.ckpt")) == [{"seed": 1}, {"steps": 3}]


# ---------------------------------------------------------------- trainings


@pytest.mark.parametrize("logger", ["CSVLogger", "TensorBoardLogger"])
@pytest.mark.parametrize(
    "params",
    [
        {"save_dir": "ftp://127.0.0.1:9/x"},
        {"save_dir": "into/a::ftp"},
        {"save_dir": "~/x"},
        {"save_dir": "$HOME/x"},
        {"save_dir": "into/$HOME"},
        {"save_dir": "/tmp"},
        {"save_dir": "into/../.."},
        {"save_dir": ["into"]},
        {"save_dir": "into/link"},
        {"name": "$HOME"},
        {"name": "~"},
        {"name": "a/b"},
        {"name": "a\\b"},
        {"name": ".."},
        {"name": ["..", "x"]},
        {"name": "link"},
        {"version": "../x"},
        {"prefix": "memory://x"},
        {"sub_dir": "x"},
        {"log_dir": "/tmp/x"},
        {"root_dir": "/tmp/x"},
        {"filename_suffix": "/../../x"},
        {"comment": "x"},
    ],
)
def test_loggers_write_into_the_folder_of_the_training_only(logger, params, tmp_path):
    (tmp_path / "into").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "into" / "link").symlink_to("../outside")
    given = {"save_dir": "into", **params}
    # the working directory as the folder of the training makes addresses and ~ paths inside of it
    folders = (
        ("into", ".") if "save_dir" in params and given["save_dir"] != "into/link" else ("into",)
    )
    for into in folders:
        config = training(into=into, loggers=[{"name": logger, "params": given}])
        with pytest.raises(UntrustedError, match=f"loggers: .*{logger}"):
            check_loggers(config)
        with loading("a test", trust=True):
            check_loggers(config)


def test_variables_in_the_folder_of_a_training_are_not_replaced():
    for into in ("$HOME/x", "~/x"):
        with pytest.raises(UntrustedError, match="not a plain path"):
            check_loggers(training(into=into))
        check_loggers(training(into=into, loggers=[]))


def test_plain_loggers_log(tmp_path):
    given = {
        "CSVLogger": {"flush_logs_every_n_steps": 10, "prefix": "a"},
        "TensorBoardLogger": {"log_graph": False, "default_hp_metric": False, "max_queue": 5},
    }
    loggers = [
        {
            "name": name,
            "params": {"save_dir": "into/logs", "name": "my run-1", "version": 3, **more},
        }
        for name, more in given.items()
    ]
    config = training(loggers=[*loggers, "csv", "tensorboard"])
    check_loggers(config)
    for logger in _loggers(config, Path("into")):
        logger.log_metrics({"loss": 1.0}, step=1)
        logger.save()
        assert Path(logger.log_dir).resolve().is_relative_to(tmp_path / "into")
    assert {path.name for path in tmp_path.iterdir()} == {"into"}
    wrong = training(loggers=[{"name": "CSVLogger", "params": {"max_queue": 3}}])
    with pytest.raises(UntrustedError, match="CSVLogger is given 'max_queue'"):
        check_loggers(wrong)
    with pytest.raises(ValueError, match=r"loggers: CSVLogger: .*save_dir"):
        _loggers(training(loggers=[{"name": "CSVLogger"}]), Path("into"))


def test_models_are_uploaded_with_trust_only():
    with pytest.raises(UntrustedError, match="model_registry uploads"):
        check_trainer({"model_registry": "me/x"})
    with loading("a test", trust=True):
        check_trainer({"model_registry": "me/x"})


@pytest.mark.parametrize(
    "options",
    [
        {"devices": 4097},
        {"devices": [0] * 5000},
        {"devices": ",".join("0" * 5000)},
        {"devices": "\x1b"},
        {"devices": 0},
        {"num_nodes": 10**9},
        {"num_nodes": "\x1b"},
        {"plugins": ["os.system"]},
        {"plugins": "os.system"},
        {"callbacks": ["x"]},
        {"profiler": "\x1b"},
        {"strategy": "\x1b"},
        {"precision": "\x1b[2J"},
        {"\x1b": 3},
    ],
)
def test_options_of_the_trainer_are_checked(options):
    with pytest.raises(ValueError, match=r"trainer(\.\S+)?: ") as caught:
        training(trainer=options)
    assert "\x1b" not in str(caught.value)


def test_usual_options_of_the_trainer_are_taken():
    for options in (
        {"devices": "auto", "accelerator": "cpu", "precision": "bf16-mixed", "num_nodes": 2},
        {"devices": "0,1", "strategy": "ddp", "profiler": "simple", "sync_batchnorm": True},
        {"devices": [0, 1], "limit_train_batches": 0.5, "max_time": "00:01:00:00"},
        {"devices": -1, "accumulate_grad_batches": 4, "plugins": None},
    ):
        assert training(trainer=options).trainer == options


def test_caches_are_made_in_the_folder_of_the_training(tmp_path):
    def check(cache: object) -> None:
        task = {"name": "ActiveSpeakerDetection", "params": {"store": "s", "cache": cache}}
        check_caches(training(task=task))
        check_caches(training(stages=[{"name": "a", "settings": {"cache": cache}}]))

    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "link").symlink_to("..")
    for inside in (None, "into/files.npz", str(tmp_path / "into" / "x" / "files.npz")):
        check(inside)
    (tmp_path / "mine.npz").write_text("mine")
    for outside in ("mine.npz", "../x.npz", "into/../x.npz", "into/link/x.npz", 3, ["x"]):
        with pytest.raises(ValueError, match=r"task\.params\.cache: "):
            check(outside)
        with pytest.raises(ValueError, match=r"stage 'a': settings\.cache: "):
            check_caches(training(stages=[{"name": "a", "settings": {"cache": outside}}]))
    with loading("a test", trust=True):
        check("mine.npz")
    (tmp_path / "mine.npz.sha256").write_text("no checksum")
    with pytest.raises(UntrustedError):
        check("mine.npz")
    # as a task of an earlier training left it
    (tmp_path / "mine.npz.sha256").write_text("0" * 64)
    check("mine.npz")


@pytest.mark.parametrize("content", ["[1]", "a: [", "\x1b", "", "3", "- " * 5000])
def test_a_record_that_is_no_configuration_is_named(content, tmp_path):
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"into/config\.yaml"):
        _remember(training())
    assert (tmp_path / "into" / "config.yaml").read_text() == content


def test_augmentations_in_augmentations_are_built():
    inner = [
        {
            "transform": "Gain",
            "params": {"p": 1.0, "min_gain_in_db": -6.0, "max_gain_in_db": -5.999},
        },
        {"transform": "PolarityInversion", "params": {"p": 1.0}},
    ]
    for name in ("Compose", "torch_audiomentations.core.composition.Compose"):
        built = make_augmentation({"transform": name, "params": {"transforms": inner}})
        assert [type(one).__name__ for one in built.transforms] == ["Gain", "PolarityInversion"]
        found = built(torch.ones(1, 1, 16000), sample_rate=16000)
        torch.testing.assert_close(
            found["samples"], -torch.full((1, 1, 16000), 0.5012), rtol=1e-3, atol=0
        )
    nested = {"transform": "SomeOf", "params": {"num_transforms": 1, "transforms": inner}}
    built = make_augmentation({"transform": "OneOf", "params": {"transforms": [nested, *inner]}})
    assert type(built.transforms[0]).__name__ == "SomeOf"


def nested(levels: int) -> dict:
    found = {"transform": "Gain"}
    for _ in range(levels - 1):
        found = {"transform": "Compose", "params": {"transforms": [found]}}
    return found


@pytest.mark.parametrize(
    "augmentation",
    [
        {"transform": "Gain", "params": {"\x1b[2J": 3}},
        {"transform": "Gain", "params": {"p": 7}},
        {"transform": "Gain", "params": [3]},
        {"transform": "Compose", "params": {"transforms": 3}},
        {"transform": "Compose", "params": {"transforms": [3]}},
        {"transform": "Compose"},
        {"transform": ["Gain"]},
        {"transforms": []},
        [],
        nested(11),
        nested(5000),
        {"transform": "AddBackgroundNoise", "params": {"background_paths": "no/such"}},
        {"transform": "AddBackgroundNoise", "params": {"background_paths": 3}},
        {"transform": "AddBackgroundNoise", "params": {"background_paths": "."}},
        {"transform": "ApplyImpulseResponse", "params": {"ir_paths": ["no/such.wav"]}},
    ],
)
def test_augmentations_that_make_no_sense_are_named(augmentation):
    with pytest.raises(ValueError, match=r"task\.params\.augmentation: ") as caught:
        make_augmentation(augmentation)
    assert "\x1b" not in str(caught.value)


def test_other_modules_are_no_augmentations():
    inner = {"transform": "torch.nn.Linear", "params": {"in_features": 10**5}}
    for one in (inner, {"transform": "Compose", "params": {"transforms": [inner]}}):
        with pytest.raises(UntrustedError, match=r"torch\.nn\.Linear"):
            make_augmentation(one)


def test_whole_disks_are_not_searched_for_noise(tmp_path, monkeypatch):
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "loop").symlink_to(".")
    steps = 0

    def endless(path, followlinks):
        nonlocal steps
        while True:
            steps += 1
            yield path, [], ["a.wav"] * 1000

    monkeypatch.setattr(os, "walk", endless)
    for name, key in (
        ("AddBackgroundNoise", "background_paths"),
        ("ApplyImpulseResponse", "ir_paths"),
    ):
        steps = 0
        with pytest.raises(ValueError, match=f"{key}: more than 100,000 files"):
            make_augmentation({"transform": name, "params": {key: ["noise"]}})
        assert steps <= MAX_FILES / 1000 + 1


# ---------------------------------------------------------------- studies


ABOUT = {"objectives": ["error"]}
VICTIM = "line one\nno end of the last line"


@pytest.mark.parametrize("name", ["study.journal", "cache"])
def test_links_in_the_folder_of_a_study_are_not_written_through(name, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    (tmp_path / "victim").mkdir() if name == "cache" else (tmp_path / "victim").write_text(VICTIM)
    (into / name).symlink_to("../victim")

    with pytest.raises(ValueError, match=f"{name} is"):
        open_study(into, ABOUT)
    if name == "cache":
        assert not list((tmp_path / "victim").iterdir())
    else:
        assert (tmp_path / "victim").read_text() == VICTIM


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_only_files_are_journals(kind, tmp_path):
    path = tmp_path / "study.journal"
    {"fifo": os.mkfifo, "folder": os.mkdir, "device": lambda p: p.symlink_to("/dev/zero")}[kind](
        path
    )
    with pytest.raises(ValueError, match="is not a plain file"):
        open_study(tmp_path, ABOUT)


RECORD = {"op_code": 0, "worker_id": "a", "study_name": "tuning", "directions": [1]}


@pytest.mark.parametrize(
    "lines",
    [
        "x",
        "[1]",
        "null",
        "[" * 100_000,
        {"op_code": 99, "worker_id": "a"},
        {"op_code": 0},
        {**RECORD, "directions": [99]},
        {**RECORD, "directions": [1, 1]},
        {**RECORD, "directions": 1},
        {"op_code": 4, "worker_id": "a"},
    ],
)
def test_malformed_journals_are_named(lines, tmp_path):
    text = lines if isinstance(lines, str) else json.dumps(lines)
    (tmp_path / "study.journal").write_text(text + "\n")
    with pytest.raises(ValueError, match=r"study\.journal: not the journal of a study"):
        open_study(tmp_path, ABOUT)


@pytest.mark.parametrize("about", [None, 3, [], "objectives"])
def test_journals_of_others_are_not_continued(about, tmp_path):
    backend = JournalFileBackend(str(tmp_path / "study.journal"))
    study = optuna.create_study(storage=JournalStorage(backend), study_name="tuning")
    study.set_user_attr("about", about)
    study.tell(study.ask(), 0.5)
    with pytest.raises(ValueError, match="was not written by this version"):
        open_study(tmp_path, ABOUT)


def test_studies_go_on(tmp_path):
    with locked(tmp_path):
        study = open_study(tmp_path, ABOUT)
        study.tell(study.ask(), 0.5)
    with locked(tmp_path):
        assert [trial.value for trial in open_study(tmp_path, ABOUT).trials] == [0.5]


def test_links_in_a_cache_are_not_written_through(tmp_path):
    cache, address = Cache(tmp_path / "cache"), "ab" * 32
    (tmp_path / "victim").write_text("keep me")
    (tmp_path / "cache" / "locks" / "ab").symlink_to("../../victim")
    with pytest.raises(ValueError, match="is not a plain file"):
        cache.lock(address)
    assert (tmp_path / "victim").read_text() == "keep me"

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".hidden.entry").write_text("keep me")
    (tmp_path / "cache" / "ab").symlink_to("../folder")
    cache.write(address, Entry("stage", 1.0, [1]))
    cache.tidy()
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {".hidden.entry"}

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "locks").symlink_to("../folder")
    with pytest.raises(ValueError, match="locks is a link"):
        Cache(tmp_path / "other")


def test_an_array_of_an_entry_is_there_once():
    def entry(tree: object) -> bytes:
        arrays = {"a": np.zeros(1 << 16, np.uint8)}
        arrays["tree"] = np.frombuffer(json.dumps(["n", 1.0, tree]).encode(), np.uint8)
        content = to_safetensors(arrays)
        return hashlib.sha256(content).digest() + content

    one = ["array", "a", [1 << 16]]
    assert len(from_bytes(entry(one)).value) == 1 << 16
    with pytest.raises(ValueError, match="written by another version"):
        from_bytes(entry(["list", [one, one]]))
    array = np.arange(3)
    kept = from_bytes(to_bytes(Entry("n", 1.0, [array, array]))).value
    assert [list(value) for value in kept] == [[0, 1, 2]] * 2


# ---------------------------------------------------------------- tracks and stores


def tracks_at(time: np.ndarray, seed: int = 0) -> FaceTracks:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.5, (len(time), 2)).astype(np.float32)
    landmarks = random.uniform(0, 1, (len(time), 5, 2)).astype(np.float32)
    landmarks[random.random(len(time)) < 0.2] = np.nan
    return FaceTracks(
        time=time,
        track=np.zeros(len(time), np.int64),
        box=np.concatenate([corner, corner + 0.2], axis=1),
        landmarks=landmarks,
        confidence=random.uniform(0, 1, len(time)).astype(np.float32),
    )


@pytest.mark.parametrize("max_gap", [0.0, 0.04, 0.25, 3.0])
def test_tracks_on_the_grid_are_what_they_were(max_gap, monkeypatch):
    """The grid near rows gives what the grid over the whole of a track gives"""

    def whole(position: np.ndarray, widest: float) -> np.ndarray:
        return np.arange(np.ceil(position[0] - 0.5), np.floor(position[-1] + 0.5) + 1)

    for seed in range(40):
        random = np.random.default_rng(seed)
        steps = random.choice(
            [0.01, 0.02, 1 / 30, 0.04, 0.06, 0.3, 2.0, 7.77], random.integers(1, 60)
        )
        times = random.choice([0.0, 0.02, 0.5, 123.456]) + np.cumsum(steps)
        one = tracks_at(times, seed)
        near = _resample(one, max_gap)
        with monkeypatch.context() as before:
            before.setattr("pyannote_av.vision.crops._grid_near", whole)
            expected = _resample(one, max_gap)
        for name, values in expected.items():
            np.testing.assert_array_equal(near[name], values, err_msg=f"{name}, {seed}")


def test_rows_that_are_days_apart_take_no_memory():
    times = np.array([0.01, 0.05, 1e6, 1e6 + 0.05])
    assert len(_grid_near(times * FRAME_RATE, 0.25 * FRAME_RATE)) < 10
    assert len(on_grid(tracks_at(times)).time) < 10


def test_a_store_is_built_by_one_at_a_time(tmp_path):
    folder = tmp_path / "store"
    with locked(folder), pytest.raises(RuntimeError, match="another process is writing to"):
        build_store(folder, [])
    build_store(folder, [])
    (folder / ".pyannote_av" / "lock").unlink(missing_ok=True)
    (tmp_path / "victim").write_text("keep me")
    (folder / ".pyannote_av" / "lock").symlink_to("../../victim")
    with pytest.raises(ValueError, match="is not a plain file"):
        build_store(folder, [])
    assert (tmp_path / "victim").read_text() == "keep me"
