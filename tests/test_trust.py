"""Nothing that is loaded executes code, reaches the network or changes the process.

Every attempt writes files as a stranger would and loads them as a user would. A payload that runs
leaves a file behind; a connection that is tried is noted and refused.
"""

import importlib
import io
import json
import os
import pickle
import pkgutil
import resource
import socket
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pyannote.audio import Model as StockModel
from pyannote.audio import Pipeline as StockPipeline
from pyannote.audio.core.task import Problem, Resolution, Specifications
from safetensors.torch import save_file

from pyannote_av import Model, Pipeline
from pyannote_av.core import trust
from pyannote_av.core.checkpoint import load_checkpoint
from pyannote_av.core.trust import CLASSES, UntrustedError, accepted, named_class
from pyannote_av.core.weights import require
from pyannote_av.models.active_speaker.scorers import get_scorer
from pyannote_av.models.importers import import_checkpoint
from pyannote_av.sharing import hub
from pyannote_av.sharing.folders import save_pipeline
from pyannote_av.sharing.strip import strip
from pyannote_av.training.config import ModelConfig, TrainingConfig
from pyannote_av.training.from_config import check_loggers, make_model, make_task

AUDIO = {"name": "pyannote_av.pipelines.audio_diarization.AudioDiarization"}
STOCK = "pyannote.audio.pipelines.SpeakerDiarization"
LATE = "pyannote_av.pipelines.late_fusion.LateFusion"
HMSA = "pyannote_av.pipelines.target_speaker_diarization.TargetSpeakerDiarization"


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch '{self.canary}'",)


class Renamed:
    """Sets attributes of a shared member of an enumeration when it is unpickled"""

    def __init__(self, member):
        self.member = member

    def __reduce__(self):
        return (
            type(self.member),
            (self.member.value,),
            {"_name_": "EVIL", "_value_": 99, "__objclass__": None},
        )


class Workshop:
    """Makes what a stranger would send."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.canary = folder / "executed"
        self.connections: list = []

    def evil(self, name: str = "evil.bin", **content) -> str:
        path = self.folder / name
        torch.save({"state_dict": {}, "x": Payload(self.canary), **content}, path)
        return str(path)

    def evil_folder(self) -> str:
        folder = self.folder / "evil_model"
        folder.mkdir()
        torch.save({"state_dict": Payload(self.canary)}, folder / "pytorch_model.bin")
        return str(folder)

    def config(self, name: str, preprocessors=None, place: str = "pipeline", **params) -> Path:
        folder = self.folder / place
        folder.mkdir(exist_ok=True)
        content = {"pipeline": {"name": name, "params": params}}
        if preprocessors is not None:
            content["preprocessors"] = preprocessors
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        return folder

    def preprocessor(self, name: str, **params) -> Path:
        return self.config(AUDIO["name"], {"x": {"name": name, "params": params}})

    def tensors(self, architecture: str, place: str = "model.safetensors", **hparams) -> Path:
        path = self.folder / place
        path.parent.mkdir(exist_ok=True)
        metadata = {"architecture": architecture, "hparams": json.dumps(hparams)}
        save_file({"x": torch.zeros(1)}, path, metadata=metadata)
        return path

    def checkpoint(self, module: str, cls: str, specifications=None, top=None, **hparams) -> Path:
        path = self.folder / "model.ckpt"
        about = {
            "versions": {"pyannote.audio": "4.0.7"},
            "architecture": {"module": module, "class": cls},
            "specifications": specifications,
        }
        content = {
            "pyannote.audio": about,
            "pytorch-lightning_version": "2.6.6",
            "hyper_parameters": hparams,
            "state_dict": {},
        }
        torch.save({**content, **(top or {})}, path)
        return path

    def training(self, **changes) -> TrainingConfig:
        content = {
            "protocol": "X.SpeakerDiarization.Y",
            "into": str(self.folder / "training"),
            "task": {"name": "ActiveSpeakerDetection", "params": {"store": str(self.folder)}},
            "model": {"name": "LRASD"},
        }
        return TrainingConfig.parse({**content, **changes})

    def training_file(self, **model) -> Path:
        path = self.folder / "training.yaml"
        config = self.training(model=model).to_dict()
        path.write_text(yaml.safe_dump(config))
        return path


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    shop = Workshop(tmp_path)

    def refuse(*args, **kwargs):
        shop.connections.append(args[1:] if isinstance(args[0], socket.socket) else args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    yield shop
    assert not shop.canary.exists(), "something was executed"
    assert shop.connections == [], "something reached for the network"


def run(command: str, *arguments) -> None:
    """A command; its refusal as an exception."""
    from pyannote_av.cli import main

    before, sys.argv = sys.argv, ["pyannote-av", command, *map(str, arguments)]
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            main()
    except SystemExit as end:
        if end.code:
            raise ValueError(said.getvalue()) from None
    finally:
        sys.argv = before


def load(shop: Workshop, *arguments, **params):
    return Pipeline.from_pretrained(shop.config(*arguments, **params))


PYANNET = ("pyannote.audio.models.segmentation.PyanNet", "PyanNet")
SSERIOUSS = "pyannote.audio.models.segmentation.SSeRiouSS"
PL_LOAD = "pyannote.audio.core.model.pl_load"
WRITE = "pyannote_av.core.atomic.write_text"
GET_PIPELINE = "pyannote.audio.pipelines.utils.getter.get_pipeline"
EMBEDDING = "pyannote.audio.pipelines.speaker_verification.PyannoteAudioPretrainedSpeakerEmbedding"
OS_SYSTEM = {"pipeline": AUDIO, "preprocessors": {"x": {"name": "os.system", "params": {}}}}

#: what is tried, by name; each must be refused
ATTEMPTS = {
    # ------------------------------------------------------------------ names of pipelines
    "pipeline: a function": lambda s: load(s, "os.system", command=f"touch {s.canary}"),
    "pipeline: a class of another package": lambda s: load(
        s, "subprocess.Popen", args=["touch", str(s.canary)]
    ),
    "pipeline: a function below an allowed package": lambda s: load(s, WRITE, path="x", text="y"),
    "pipeline: a getter that unpickles": lambda s: load(
        s, "pyannote.audio.pipelines.utils.getter.get_model", model=s.evil()
    ),
    "pipeline: a getter that builds pipelines": lambda s: load(s, GET_PIPELINE, pipeline=OS_SYSTEM),
    "pipeline: a model": lambda s: load(s, ".".join(PYANNET)),
    "pipeline: pyannote's own entry point": lambda s: load(s, "pyannote.audio.Pipeline"),
    "pipeline: a re-export": lambda s: load(
        s, "pyannote_av.pipelines.audio_diarization.SpeakerDiarization", segmentation=s.evil()
    ),
    "pipeline: a module of that module": lambda s: load(
        s, "pyannote_av.core.weights.os.system", command=f"touch {s.canary}"
    ),
    "pipeline: a name that is a number": lambda s: load(s, 3),
    "pipeline: a name without a module": lambda s: load(s, "AudioDiarization"),
    "pipeline: a module in the working directory": lambda s: (
        (s.folder / "pyannote_av_extra.py").write_text(f"open({str(s.canary)!r}, 'w')"),
        load(s, "pyannote_av_extra.Pipeline"),
    ),
    "pipeline: uploads recordings": lambda s: load(
        s, "pyannote.audio.pipelines.pyannoteai.sdk.SDK", token="theirs"
    ),
    # ------------------------------------------------------------------ preprocessors
    "preprocessor: os.system": lambda s: Pipeline.from_pretrained(
        s.preprocessor("os.system", command=f"touch {s.canary}")
    ),
    "preprocessor: unpickles": lambda s: Pipeline.from_pretrained(
        s.preprocessor(PL_LOAD, path_or_url=s.evil(), weights_only=False)
    ),
    "preprocessor: fetches": lambda s: Pipeline.from_pretrained(
        s.preprocessor(PL_LOAD, path_or_url="http://127.0.0.1:9/evil.pt", weights_only=False)
    ),
    "preprocessor: writes": lambda s: Pipeline.from_pretrained(
        s.preprocessor(WRITE, path=str(s.canary), text="x")
    ),
    "preprocessor: a pipeline": lambda s: Pipeline.from_pretrained(
        s.preprocessor(STOCK, segmentation=s.evil())
    ),
    "preprocessor: replaces databases": lambda s: Pipeline.from_pretrained(
        s.config(AUDIO["name"], {"audio": str(s.folder / "database.yml")})
    ),
    "preprocessor: a list": lambda s: Pipeline.from_pretrained(s.config(AUDIO["name"], ["x"])),
    # ------------------------------------------------------------------ arguments that load
    "stock: segmentation": lambda s: load(s, STOCK, segmentation=s.evil()),
    "stock: segmentation in a folder": lambda s: load(s, STOCK, segmentation=s.evil_folder()),
    "stock: segmentation as a mapping": lambda s: load(
        s, STOCK, segmentation={"checkpoint": s.evil(), "map_location": "cpu"}
    ),
    "stock: embedding": lambda s: load(
        s, STOCK, segmentation=str(require("segmentation-3.0")), embedding=s.evil()
    ),
    "stock: embedding for another backend": lambda s: load(
        s, STOCK, segmentation=s.evil("speechbrain.bin"), embedding=s.evil("speechbrain_2.bin")
    ),
    "stock: plda": lambda s: load(s, STOCK, plda=s.evil_folder()),
    "stock: voice activity": lambda s: load(
        s, "pyannote.audio.pipelines.VoiceActivityDetection", segmentation=s.evil()
    ),
    "stock: $model": lambda s: (
        torch.save({"x": Payload(s.canary)}, s.config(STOCK) / "pytorch_model.bin"),
        load(s, STOCK, segmentation="$model"),
    ),
    "ours: segmentation": lambda s: load(s, AUDIO["name"], segmentation=s.evil()),
    "ours: embedding": lambda s: load(s, AUDIO["name"], embedding=s.evil("e.pt")),
    "ours: plda of pickles": lambda s: (
        np.savez(
            s.folder / "plda.npz", mu=np.array([Payload(s.canary)], object), allow_pickle=True
        ),
        (s.folder / "xvec_transform.npz").write_bytes((s.folder / "plda.npz").read_bytes()),
        load(s, AUDIO["name"], plda=str(s.folder)),
    ),
    "ours: scorer": lambda s: load(s, LATE, scorer=s.evil("scorer.model")),
    "ours: scorer in a checkpoint": lambda s: load(s, LATE, scorer=s.evil("scorer.ckpt")),
    "ours: scorer of another kind": lambda s: load(
        s, LATE, scorer=str(s.tensors(WRITE, path=str(s.canary), text="x"))
    ),
    "ours: scorer as a number": lambda s: load(s, LATE, scorer=3),
    "ours: detector as a mapping": lambda s: load(s, LATE, detector={"name": "os.system"}),
    "ours: embedder as a mapping": lambda s: load(s, LATE, embedder={"name": "os.system"}),
    "ours: a nested pipeline": lambda s: load(s, LATE, audio={"pipeline": {"name": "os.system"}}),
    "ours: a nested pipeline in a folder": lambda s: load(
        s, LATE, audio=str(s.preprocessor(WRITE, path=str(s.canary), text="x").rename("nested"))
    ),
    "ours: nested twice": lambda s: load(
        s,
        HMSA,
        segmentation="hmsanet",
        audio={"pipeline": {"name": STOCK, "params": {"segmentation": s.evil()}}},
    ),
    "ours: nested, with preprocessors": lambda s: load(s, LATE, audio=OS_SYSTEM),
    # ------------------------------------------------------------------ network
    "network: hub name in a local configuration": lambda s: load(
        s, AUDIO["name"], embedding="attacker/beacon"
    ),
    "network: hub name as a mapping": lambda s: load(
        s, AUDIO["name"], embedding={"checkpoint": "attacker/beacon", "revision": "main"}
    ),
    "network: hub name in a stock pipeline": lambda s: load(
        s, STOCK, segmentation="attacker/beacon"
    ),
    "network: default of a stock pipeline": lambda s: load(s, STOCK),
    "network: nested pipeline on the hub": lambda s: load(s, LATE, audio="attacker/beacon"),
    "network: a plda that is a file": lambda s: (
        (s.folder / "a").mkdir(),
        (s.folder / "a/b").write_text("x"),
        load(s, AUDIO["name"], plda="a/b"),
    ),
    "network: wav2vec in safetensors": lambda s: Model.from_pretrained(
        s.tensors(SSERIOUSS, wav2vec="WAVLM_BASE")
    ),
    "network: wav2vec in a checkpoint": lambda s: Model.from_pretrained(
        s.checkpoint("pyannote.audio.models.segmentation", "SSeRiouSS", wav2vec="WAVLM_BASE")
    ),
    "network: WavLM of a separation network": lambda s: Model.from_pretrained(
        s.checkpoint("pyannote.audio.models.separation.ToTaToNet", "ToTaToNet")
    ),
    # ------------------------------------------------------------------ models
    "model: a function": lambda s: Model.from_pretrained(s.tensors(WRITE, path="x", text="y")),
    "model: os.system": lambda s: Model.from_pretrained(
        s.tensors("os.system", command=f"touch {s.canary}")
    ),
    "model: a pipeline": lambda s: Model.from_pretrained(s.tensors(STOCK, segmentation=s.evil())),
    "model: a wrapper that unpickles": lambda s: Model.from_pretrained(
        s.tensors(EMBEDDING, embedding=s.evil())
    ),
    "model: a base class": lambda s: Model.from_pretrained(
        s.tensors("pyannote_av.core.model.AVModel")
    ),
    "model: wav2vec that is unpickled": lambda s: Model.from_pretrained(
        s.tensors(SSERIOUSS, wav2vec=s.evil())
    ),
    "model: hyper-parameters that are no mapping": lambda s: Model.from_pretrained(
        save_metadata(s, hparams="[1, 2]")
    ),
    "model: a network larger than its file": lambda s: Model.from_pretrained(
        s.tensors("pyannote_av.models.hmsanet.model.HMSANet", width=1 << 15)
    ),
    "checkpoint: a pickle": lambda s: Model.from_pretrained(s.evil("model.ckpt")),
    "checkpoint: a pickle in a folder": lambda s: Model.from_pretrained(s.evil_folder()),
    "checkpoint: a class outside": lambda s: Model.from_pretrained(s.checkpoint("os", "system")),
    "checkpoint: a function as class": lambda s: Model.from_pretrained(
        s.checkpoint("pyannote.audio.core.model", "pl_load")
    ),
    "checkpoint: an instantiator": lambda s: Model.from_pretrained(
        s.checkpoint(*PYANNET, _instantiator="os.system")
    ),
    "checkpoint: an instantiator of Lightning": lambda s: Model.from_pretrained(
        s.checkpoint(
            *PYANNET,
            _instantiator="lightning.pytorch.cli.instantiate_module",
            _class_path="os.system",
        )
    ),
    "checkpoint: millions of sets of classes": lambda s: Model.from_pretrained(
        s.checkpoint(
            *PYANNET,
            Specifications(
                Problem.MONO_LABEL_CLASSIFICATION,
                Resolution.FRAME,
                10.0,
                classes=[str(k) for k in range(60)],
                powerset_max_classes=30,
            ),
        )
    ),
    "checkpoint: no dictionary": lambda s: (
        torch.save([1, 2], s.folder / "x.ckpt"),
        Model.from_pretrained(s.folder / "x.ckpt"),
    ),
    # ------------------------------------------------------------------ other ways in
    "scorer: a function": lambda s: get_scorer(s.tensors(WRITE, path=str(s.canary), text="x")),
    "scorer: a pickle": lambda s: get_scorer(s.evil("scorer.model")),
    "import-checkpoint: a pickle": lambda s: import_checkpoint(s.evil("theirs.pt"), "lr-asd"),
    "import-checkpoint: the command": lambda s: run(
        "import-checkpoint", s.evil("theirs.pt"), "--into", s.folder / "x.safetensors"
    ),
    "strip: a pickle": lambda s: strip(s.evil("last.ckpt"), s.folder / "x.safetensors"),
    "strip: the command": lambda s: run("strip", s.evil("last.ckpt"), "--into", "x.safetensors"),
    "export: the command": lambda s: run("export", s.evil("m.ckpt"), "--into", "onnx"),
    "train: a wrapper that unpickles": lambda s: make_model(
        ModelConfig(name=EMBEDDING, params={"embedding": s.evil()})
    ),
    "train: os.system": lambda s: make_model(
        ModelConfig(name="os.system", params={"command": f"touch {s.canary}"})
    ),
    "train: a checkpoint": lambda s: make_model(ModelConfig(checkpoint=s.evil("last.ckpt"))),
    "train: an authors' file": lambda s: make_model(ModelConfig(checkpoint=s.evil("theirs.pt"))),
    "train: wav2vec": lambda s: make_model(
        ModelConfig(name=f"{SSERIOUSS}.SSeRiouSS", params={"wav2vec": "WAVLM_BASE"})
    ),
    "train: the command": lambda s: run("train", s.training_file(checkpoint=s.evil("last.ckpt"))),
    "train: an augmentation": lambda s: make_task(
        s.training(
            task={
                "name": "ActiveSpeakerDetection",
                "params": {
                    "store": str(s.folder),
                    "augmentation": {
                        "transform": "os.system",
                        "params": {"command": f"touch {s.canary}"},
                    },
                },
            }
        )
    ),
    "train: an augmentation inside another": lambda s: make_task(
        s.training(
            task={
                "name": "ActiveSpeakerDetection",
                "params": {
                    "store": str(s.folder),
                    "augmentation": {
                        "transform": "Compose",
                        "params": {
                            "transforms": [{"transform": "os.system", "params": {"command": "x"}}]
                        },
                    },
                },
            }
        )
    ),
    "train: a logger that sends": lambda s: check_loggers(
        s.training(loggers=[{"name": "WandbLogger", "params": {"project": "x"}}])
    ),
    "train: a logger that writes elsewhere": lambda s: check_loggers(
        s.training(loggers=[{"name": "CSVLogger", "params": {"save_dir": "/tmp"}}])
    ),
    "train: a logger whose name leads out": lambda s: check_loggers(
        s.training(loggers=[{"name": "CSVLogger", "params": {"name": "../../x"}}])
    ),
    "pull: a function": lambda s: hub.pull(
        s.tensors(WRITE, "shared/model.safetensors", path=str(s.canary), text="x").parent, "pulled"
    ),
    "pull: a pipeline": lambda s: hub.pull(
        s.preprocessor(WRITE, path=str(s.canary), text="x"), "pulled"
    ),
    "pull: a link that leads out": lambda s: (
        (s.folder / "secret").write_text("x"),
        (s.config(AUDIO["name"]) / "README.md").symlink_to(s.folder / "secret"),
        hub.pull(s.folder / "pipeline", "pulled"),
    ),
    "push: a pickle": lambda s: hub.push(s.config(AUDIO["name"], embedding=s.evil()), "pushed"),
    "push: fetches": lambda s: hub.push(
        s.config(AUDIO["name"], embedding="attacker/beacon"), "pushed"
    ),
    "push: a card that leads out": lambda s: (
        (s.folder / "secret").write_text("x"),
        (s.config(AUDIO["name"]) / "README.md").symlink_to(s.folder / "secret"),
        hub.push(s.folder / "pipeline", "pushed"),
    ),
    "save: a model out of the folder": lambda s: save_pipeline(
        s.config(AUDIO["name"], embedding="$model/../evil.bin"), "saved"
    ),
    "optimize: the command": lambda s: run(
        "optimize", s.config(AUDIO["name"], embedding=s.evil()), "X.Y.Z", "--into", "tuned"
    ),
    "apply: the command": lambda s: (
        (s.folder / "talk.wav").write_bytes(b"x"),
        run(
            "apply",
            "talk.wav",
            "--into",
            "out",
            "--workers",
            0,
            "--pipeline",
            s.config(AUDIO["name"], embedding=s.evil()),
        ),
    ),
}


def save_metadata(shop: Workshop, **metadata) -> Path:
    path = shop.folder / "model.safetensors"
    architecture = "pyannote_av.models.active_speaker.lrasd.LRASD"
    save_file({"x": torch.zeros(1)}, path, metadata={"architecture": architecture, **metadata})
    return path


@pytest.mark.parametrize("name", ATTEMPTS)
def test_is_refused(workshop, name):
    with pytest.raises((ValueError, FileNotFoundError)) as refusal:
        ATTEMPTS[name](workshop)
    assert len(str(refusal.value)) > 20
    assert "\x1b" not in str(refusal.value)


def test_there_are_many_attempts():
    assert len(ATTEMPTS) >= 80


# ------------------------------------------------------------------ what is listed, and no more


def _public_callables():
    """Every public callable below the packages that files may name, by dotted name"""
    skipped = {"pyannote.audio.sample", "pyannote_av.__main__", "pyannote.audio.__main__"}
    for package in ("pyannote.audio", "pyannote_av"):
        top = importlib.import_module(package)
        names = [package]
        for info in pkgutil.walk_packages(top.__path__, f"{package}.", onerror=lambda name: None):
            if info.name not in skipped and not info.name.endswith(".convert"):
                names.append(info.name)
        for module in names:
            try:
                found = importlib.import_module(module)
            except Exception:  # of optional parts that are not installed
                continue
            for name, value in vars(found).items():
                if callable(value) and not name.startswith("_"):
                    yield f"{module}.{name}", value


def test_only_listed_classes_are_built(workshop, monkeypatch):
    """Whatever is callable is tried as each kind; only what is listed comes through."""
    listed = {
        kind: {getattr(importlib.import_module(m), name) for m, name in accepted(kind).values()}
        for kind in ("pipeline", "model", "preprocessor")
    }
    tried = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dotted, value in _public_callables():
            tried += 1
            for kind, classes in listed.items():
                try:
                    found = named_class(dotted, kind, "a test")
                except ValueError:
                    continue
                assert found in classes, dotted
                assert found is value
                assert isinstance(found, type)
    assert tried > 1000


def test_only_listed_pipelines_are_built_from_configurations(workshop, monkeypatch):
    """The same through the front door, with a configuration that asks for nothing."""
    built = []

    def build(config, **options):
        built.append(config["pipeline"]["name"])
        raise ValueError("not built in this test")

    monkeypatch.setattr(StockPipeline, "from_pretrained", staticmethod(build))
    names = sorted({dotted for dotted, _ in _public_callables()})
    for dotted in names:
        with pytest.raises((ValueError, FileNotFoundError)):
            Pipeline.from_pretrained({"pipeline": {"name": dotted, "params": {}}})
    expected = {f"{m}.{name}" for m, name in accepted("pipeline").values()}
    assert set(built) <= expected
    assert f"{LATE}" in built


def test_every_listed_class_is_there():
    for kind in CLASSES:
        for name in accepted(kind):
            assert isinstance(named_class(name, kind, "a test"), type)


def test_every_network_and_pipeline_of_ours_is_listed():
    """A class that is added without being listed could not be loaded."""
    bases = {"AVModel", "Model", "ActiveSpeakerModel", "LightModel", "Pipeline"}
    bases |= {"DiarizationPipeline", "WindowComparison", "WindowDiarization"}
    for dotted, value in _public_callables():
        ours = isinstance(value, type) and dotted == f"{value.__module__}.{value.__qualname__}"
        if not (ours and dotted.startswith("pyannote_av.")) or value.__name__ in bases:
            continue
        for kind, base in (("model", StockModel), ("pipeline", StockPipeline)):
            if issubclass(value, base):
                assert named_class(dotted, kind, "a test") is value


# ------------------------------------------------------------------ plain weights stay plain


def test_checkpoints_change_no_class(tmp_path):
    before = {kind: [(m.name, m.value) for m in kind] for kind in (Problem, Resolution)}
    specifications = Specifications(Problem.BINARY_CLASSIFICATION, Resolution.FRAME, 2.0)
    attacks = [Renamed(Problem.BINARY_CLASSIFICATION), Renamed(Resolution.FRAME)]
    for k, attack in enumerate(attacks):
        path = tmp_path / f"{k}.ckpt"
        about = {"specifications": specifications, "x": attack}
        torch.save({"pyannote.audio": about, "x": attack, "state_dict": {}}, path)
        content = load_checkpoint(path)
        assert content["pyannote.audio"]["specifications"] == specifications
    for kind, members in before.items():
        assert [(m.name, m.value) for m in kind] == members
    assert Problem.BINARY_CLASSIFICATION.name == "BINARY_CLASSIFICATION"
    assert "EVIL" not in vars(Problem.BINARY_CLASSIFICATION).values()


def test_specifications_survive(tmp_path):
    """What training writes is what is read, powersets included."""
    one = Specifications(
        Problem.MONO_LABEL_CLASSIFICATION,
        Resolution.FRAME,
        10.0,
        warm_up=(0.5, 0.5),
        classes=["a", "b", "c"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    assert one.num_powerset_classes == 7  # is kept in the object, and with it in the file
    torch.save({"pyannote.audio": {"specifications": (one, one)}}, tmp_path / "x.ckpt")
    assert load_checkpoint(tmp_path / "x.ckpt")["pyannote.audio"]["specifications"] == (one, one)


def test_numbers_of_numpy_become_plain(tmp_path):
    values = {"f8": np.float64(1.5), "f4": np.float32(2.5), "i8": np.int64(-3), "b": np.bool_(True)}
    torch.save({"w": torch.zeros(2), **values}, tmp_path / "x.pt")
    read = load_checkpoint(tmp_path / "x.pt")
    assert {name: read[name] for name in values} == {"f8": 1.5, "f4": 2.5, "i8": -3, "b": True}
    assert not any(isinstance(read[name], np.generic) for name in values)


class Bytes:
    def __reduce__(self):
        return bytearray, (1 << 40,)


@pytest.mark.parametrize(
    "write",
    {
        "empty": lambda path: path.write_bytes(b""),
        "a text": lambda path: path.write_text("hello"),
        "zeros": lambda path: path.write_bytes(bytes(5000)),
        "half of one": lambda path: (
            torch.save({"w": torch.zeros(5000)}, path),
            path.write_bytes(path.read_bytes()[:9000]),
        ),
        "a terabyte of nothing": lambda path: torch.save({"w": Bytes()}, path),
        "a compressed gigabyte": lambda path: _compressed(path, 1 << 30),
        "an endless list": lambda path: path.write_bytes(b"\x80\x02" + b"](" * 100_000 + b"l." * 2),
        "a folder": lambda path: path.mkdir(),
    }.values(),
)
@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors", "model.bin"])
def test_what_is_damaged_is_said_with_its_name(tmp_path, write, name):
    path = tmp_path / name
    write(path)
    with pytest.raises((ValueError, FileNotFoundError), match=name.replace(".", r"\.")):
        Model.from_pretrained(path)


def _compressed(path: Path, size: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(OrderedDict(), protocol=2))
        with archive.open("archive/data/0", "w", force_zip64=True) as file:
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="not a regular file"):
        Model.from_pretrained(tmp_path / "model.ckpt")


def test_control_characters_are_escaped(tmp_path):
    with pytest.raises(UntrustedError, match=r"\\x1b\[2J") as refusal:
        Pipeline.from_pretrained({"pipeline": {"name": "os.\x1b[2Jsystem"}})
    assert "\x1b" not in str(refusal.value)


# ------------------------------------------------------------------ the one way out


TRUSTED = """
from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.pipelines.audio_diarization import AudioDiarization

class MyNetwork(LRASD):
    pass

class MyPipeline(AudioDiarization):
    pass
"""


@pytest.fixture
def own_classes(tmp_path, monkeypatch):
    (tmp_path / "my_package.py").write_text(TRUSTED)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("my_package")


def test_own_classes_need_trust_and_say_so(own_classes, tmp_path, caplog):
    path = own_classes.MyNetwork().save(tmp_path / "model.safetensors")
    with pytest.raises(UntrustedError, match=r"my_package\.MyNetwork"):
        Model.from_pretrained(path)
    assert isinstance(Model.from_pretrained(path, trust=True), own_classes.MyNetwork)
    assert "my_package.MyNetwork" in caplog.text

    config = {"pipeline": {"name": "my_package.MyPipeline", "params": {}}}
    with pytest.raises(UntrustedError, match=r"my_package\.MyPipeline"):
        Pipeline.from_pretrained(config)
    loaded = Pipeline.from_pretrained(config, trust=True)
    assert isinstance(loaded, own_classes.MyPipeline)


def test_trust_reaches_what_is_nested(own_classes, tmp_path):
    path = own_classes.MyNetwork().save(tmp_path / "scorer.safetensors")
    config = {"pipeline": {"name": LATE, "params": {"scorer": str(path)}}}
    with pytest.raises(UntrustedError):
        Pipeline.from_pretrained(config)
    assert Pipeline.from_pretrained(config, trust=True) is not None
    # and ends with the call
    assert not trust.policy().trust
    with pytest.raises(UntrustedError):
        Pipeline.from_pretrained(config)


def test_trust_of_a_checkpoint(tmp_path, caplog):
    shop = Workshop(tmp_path)
    with pytest.raises(ValueError, match="weights"):
        import_checkpoint(shop.evil("theirs.pt"), "lr-asd", trust=True)
    assert shop.canary.exists()  # that is what was asked for
    assert "unpickled" in caplog.text


def test_the_caller_may_allow_the_network(workshop):
    config = workshop.config(AUDIO["name"], embedding="somebody/voices")
    with pytest.raises(ConnectionError, match="somebody/voices"):
        Pipeline.from_pretrained(config, allow_network=True)
    assert workshop.connections
    workshop.connections.clear()
    with pytest.raises(ConnectionError):
        Pipeline.from_pretrained("somebody/pipeline")
    assert workshop.connections
    workshop.connections.clear()


# ------------------------------------------------------------------ what users do still works


@pytest.fixture(scope="module")
def community(tmp_path_factory):
    """A pipeline of pyannote.audio, laid out as its community-1 is: models beside config.yaml."""
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    folder = tmp_path_factory.mktemp("community")
    for name in ("segmentation", "embedding", "plda"):
        (folder / name).mkdir()
    segmentation = require("segmentation-3.0").read_bytes()
    (folder / "segmentation/pytorch_model.bin").write_bytes(segmentation)
    torch.manual_seed(0)
    network = WeSpeakerResNet34()
    network.specifications = Specifications(
        Problem.REPRESENTATION, Resolution.CHUNK, 5.0, min_duration=5.0, classes=["a", "b"]
    )
    content = {
        "state_dict": network.state_dict(),
        "hyper_parameters": dict(network.hparams),
        "pytorch-lightning_version": "2.6.6",
    }
    network.on_save_checkpoint(content)
    torch.save(content, folder / "embedding/pytorch_model.bin")
    random = np.random.default_rng(0)
    np.savez(
        folder / "plda/xvec_transform.npz",
        mean1=np.zeros(256),
        mean2=np.zeros(128),
        lda=random.normal(size=(256, 128)) / 16,
    )
    np.savez(
        folder / "plda/plda.npz", mu=np.zeros(128), tr=np.eye(128), psi=np.linspace(5.0, 0.1, 128)
    )
    config = {
        "dependencies": {"pyannote.audio": "4.0.0"},
        "pipeline": {
            "name": STOCK,
            "params": {
                "clustering": "VBxClustering",
                "segmentation": "$model/segmentation",
                "segmentation_batch_size": 32,
                "embedding": "$model/embedding",
                "embedding_batch_size": 32,
                "embedding_exclude_overlap": True,
                "plda": "$model/plda",
            },
        },
        "params": {
            "segmentation": {"min_duration_off": 0.0},
            "clustering": {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8},
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def _tones(seconds: float = 8.0) -> dict:
    """Two voices, roughly: harmonics of two pitches in turns, with noise"""
    time = torch.arange(round(16000 * seconds)) / 16000
    torch.manual_seed(0)
    pitch = torch.where((time // 3) % 2 == 0, 120.0, 220.0)
    phase = 2 * torch.pi * torch.cumsum(pitch, 0) / 16000
    sound = sum(torch.sin(k * phase) / k for k in range(1, 20)) * (0.6 + 0.4 * torch.sin(25 * time))
    return {
        "waveform": (0.1 * sound + 0.001 * torch.randn(len(time)))[None],
        "sample_rate": 16000,
        "uri": "tones",
    }


@pytest.mark.slow
def test_a_stock_pipeline_gives_what_pyannote_gives(workshop, community):
    ours, theirs = (one.from_pretrained(community) for one in (Pipeline, StockPipeline))
    assert type(ours) is type(theirs)
    expected, found = theirs(_tones()), ours(_tones())
    turns = list(expected.speaker_diarization.itertracks(yield_label=True))
    assert turns
    assert list(found.speaker_diarization.itertracks(yield_label=True)) == turns
    np.testing.assert_array_equal(found.speaker_embeddings, expected.speaker_embeddings)


def test_stock_models_load_as_pyannote_loads_them(workshop, community):
    for name in ("segmentation", "embedding"):
        ours = Model.from_pretrained(community / name)
        theirs = StockModel.from_pretrained(community / name).eval()
        assert type(ours) is type(theirs)
        assert ours.specifications == theirs.specifications
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value)


@pytest.mark.slow
def test_agglomerative_clustering_needs_no_plda(workshop, community):
    """pyannote.audio fetches one that it does not use."""
    config = yaml.safe_load((community / "config.yaml").read_text())
    params = config["pipeline"]["params"]
    del params["plda"], params["segmentation"], params["embedding"]
    params |= {
        "segmentation": str(community / "segmentation"),
        "embedding": str(community / "embedding"),
        "clustering": "AgglomerativeClustering",
    }
    config["params"]["clustering"] = {
        "method": "centroid",
        "threshold": 0.7,
        "min_cluster_size": 3,
    }
    assert Pipeline.from_pretrained(config)(_tones()).speaker_diarization.labels()


def test_preprocessors_of_pyannote_are_built(workshop):
    name = "pyannote.audio.utils.preprocessors.LowerTemporalResolution"
    loaded = Pipeline.from_pretrained(workshop.preprocessor(name, resolution=0.2))
    assert loaded.preprocessors["x"].resolution == 0.2


def test_a_token_in_a_file_is_not_used(workshop, monkeypatch):
    """Whose account is used, and where downloads are kept, is for the caller to say."""
    seen = {}
    kept = StockPipeline.from_pretrained

    def build(config, **options):
        seen.update(config["pipeline"]["params"])
        return kept(config, **options)

    monkeypatch.setattr(StockPipeline, "from_pretrained", staticmethod(build))
    theirs = {"token": "theirs", "cache_dir": str(workshop.folder / "elsewhere")}
    Pipeline.from_pretrained(workshop.config(AUDIO["name"], **theirs))
    assert not {"token", "cache_dir"} & seen.keys()


@pytest.mark.parametrize("parallel", [False, True])
def test_policies_of_threads_are_their_own(workshop, parallel):
    """One thread that trusts does not make another one trust."""
    from concurrent.futures import ThreadPoolExecutor

    config = {"pipeline": {"name": "os.system"}}
    with ThreadPoolExecutor(1) as pool, trust.trusting(parallel), pytest.raises(UntrustedError):
        pool.submit(Pipeline.from_pretrained, config).result()


# ------------------------------------------------------------------ pickles made by hand


def _archive(path: Path, *pickles: bytes, names: tuple[str, ...] = ("data.pkl",)) -> Path:
    """An archive as torch writes it, around pickles of any content."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in zip(names, pickles, strict=True):
                archive.writestr(f"archive/{name}", content)
            archive.writestr("archive/byteorder", b"little")
            archive.writestr("archive/version", b"3\n")
    return path


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _call(module: str, name: str, argument: bytes) -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + argument + b"\x85R."


GIBIBYTE = b"J\x00\x00\x00\x40"
PICKLES = {
    "a codec that never ends": _call(
        "_codecs",
        "encode",
        _text("".join(chr(0x10000 + i * 7919 % 60000) for i in range(10000)))
        + _text("punycode")
        + b"\x86R.",
    ),
    "a bytearray": _call("builtins", "bytearray", GIBIBYTE),
    "a tensor of any size": _call("torch", "FloatTensor", GIBIBYTE),
    "a storage of any size": _call("torch", "FloatStorage", GIBIBYTE),
    "getattr": _call("builtins", "getattr", _text("x")),
    "an import": _call("importlib", "import_module", _text("os")),
    "a name with a dot": _call("builtins", "getattr.__call__", _text("x")),
    "a long frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "an extension": b"\x80\x02\x82\x01.",
    "nothing on the stack": b"\x80\x02R.",
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_no_weights_need(tmp_path, name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k, path in enumerate(
        (
            _archive(tmp_path / "a.ckpt", PICKLES[name]),
            _archive(tmp_path / "b.ckpt", PICKLES[name], names=("DATA.PKL",)),
            _archive(tmp_path / "c.ckpt", PICKLES[name], b"\x80\x02}.", names=("data.pkl",) * 2),
        )
    ):
        with pytest.raises(ValueError, match="abc"[k] + r"\.ckpt"):
            load_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(1 << 40),
        torch.zeros(1 << 20, device="meta"),
        torch.sparse_coo_tensor(size=(1 << 30,)),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ],
    ids=["repeated", "meta", "sparse", "nested"],
)
def test_tensors_have_what_they_say(tmp_path, tensor):
    torch.save({"w": tensor}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_programs_are_no_weights(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))
    with pytest.raises(UntrustedError, match="TorchScript"):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_all_kinds_are_read_as_they_are(tmp_path, zipped):
    weights = OrderedDict(
        a=torch.randn(3, 4),
        b=torch.nn.Parameter(torch.randn(2)),
        c=torch.arange(5, dtype=torch.int64),
        d=torch.randn(4, 3).T,
        e=torch.randn(8)[2:6],
        f=torch.randn(3).half(),
        g=torch.tensor([True, False]),
        h=torch.zeros(0),
        i=torch.tensor(1.5),
        j=torch.randn(2).bfloat16(),
    )
    content = {
        "state_dict": weights,
        "plain": [1, 2.5, "x", None, True, (1,), {2}, b"bytes", 1 << 70, torch.float16],
    }
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    read = load_checkpoint(tmp_path / "x.pt")
    assert read["plain"] == content["plain"]
    for name, value in weights.items():
        assert torch.equal(read["state_dict"][name], value)
        assert read["state_dict"][name].dtype == value.dtype
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "y.pt")
    assert list(load_checkpoint(tmp_path / "y.pt")) == ["weight", "bias"]


def test_many_threads_load_at_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    one = Specifications(Problem.BINARY_CLASSIFICATION, Resolution.FRAME, 2.0)
    torch.save({"pyannote.audio": {"specifications": one}}, tmp_path / "x.ckpt")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(load_checkpoint, [tmp_path / "x.ckpt"] * 120))
    assert all(each["pyannote.audio"]["specifications"] == one for each in found)


# ------------------------------------------------------------------ networks that ask for much


XVECTOR = ("pyannote.audio.models.embedding.xvector", "XVectorMFCC")
REPRESENTATION = Specifications(Problem.REPRESENTATION, Resolution.CHUNK, 5.0, classes=["a"])
GREEDY = {
    "wide": (XVECTOR, {"dimension": 1_000_000}),
    "many filters": (XVECTOR, {"mfcc": {"n_mfcc": 40, "melkwargs": {"n_fft": 400_000}}}),
    "deep": (PYANNET, {"linear": {"num_layers": 500_000_000, "hidden_size": 1}}),
    "deep, within bounds": (PYANNET, {"linear": {"num_layers": 900_000, "hidden_size": 1}}),
    "wide layers": (PYANNET, {"lstm": {"hidden_size": 9000, "num_layers": 2}}),
    "infinite": (PYANNET, {"lstm": {"hidden_size": float("inf")}}),
    "many values": (PYANNET, {"lstm": {str(k): k for k in range(20_000)}}),
}


@pytest.mark.parametrize("name", GREEDY)
@pytest.mark.parametrize("moved", [False, True])
def test_networks_are_as_large_as_their_files(workshop, name, moved):
    """Also where the file has Lightning move its hyper-parameters into one argument."""
    (module, cls), hparams = GREEDY[name]
    top = {"hparams_name": "lstm"} if moved else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = workshop.checkpoint(module, cls, REPRESENTATION, top, **hparams)
    with pytest.raises(ValueError, match=r"model\.ckpt"):
        Model.from_pretrained(path)
    if "dimension" in hparams or "linear" in hparams:
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            Model.from_pretrained(workshop.tensors(f"{module}.{cls}", **hparams))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.slow
def test_all_networks_can_be_counted_before_they_are_built():
    """A network that could not be built without memory would be refused."""
    from torchaudio.models import wavlm_model  # noqa: F401  (what SSeRiouSS is made of is there)

    from pyannote_av.core.model import check_size

    special = {
        "RelationOfEmbeddings": {"voice_dimension": 8, "face_dimension": 8},
        "FusedEmbeddings": {"voice_dimension": 8, "face_dimension": 8},
        "CorrectedSimilarity": {"voice_dimension": 8, "face_dimension": 8},
    }
    for module, names in CLASSES["model"].items():
        for name in names:
            if name in ("SSeRiouSS", "ToTaToNet"):  # which fetch weights, or need another package
                continue
            cls = getattr(importlib.import_module(module), name)
            hparams = special.get(name, {})
            sizes = {key: one.numel() for key, one in cls(**hparams).state_dict().items()}
            check_size(cls, hparams, sizes)
            with pytest.raises(ValueError, match="more than"):
                check_size(cls, {**hparams}, {"x": -(1 << 20)})


# ------------------------------------------------------------------ whatever is wrong


ODD = {
    "another version": lambda s: _changed(s, versions={"pyannote.audio": "99.0"}),
    "no versions": lambda s: _changed(s, versions=None),
    "versions that are numbers": lambda s: _changed(s, versions={"pyannote.audio": 4}),
    "specifications in themselves": lambda s: _changed(s, specifications=_endless()),
    "specifications as text": lambda s: _changed(s, specifications="x"),
    "an architecture of numbers": lambda s: _changed(s, architecture={"module": 1, "class": 2}),
    "an architecture as a list": lambda s: _changed(s, architecture=[1]),
    "a key that is no text": lambda s: s.checkpoint(*PYANNET, top={"hyper_parameters": {True: 1}}),
    "hyper-parameters as a list": lambda s: s.checkpoint(*PYANNET, top={"hyper_parameters": [1]}),
    "weights as text": lambda s: s.checkpoint(*PYANNET, top={"state_dict": {"x": "y"}}),
    "weights as a list": lambda s: s.checkpoint(*PYANNET, top={"state_dict": [1]}),
    "no wav2vec": lambda s: s.checkpoint("pyannote.audio.models.segmentation", "SSeRiouSS"),
}


def _endless() -> list:
    one: list = []
    one.append(one)
    return one


def _changed(shop: Workshop, **about) -> Path:
    path = shop.checkpoint(*PYANNET)
    content = torch.load(path, weights_only=False)
    content["pyannote.audio"] |= about
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", ODD)
def test_odd_checkpoints_are_refused_with_their_name(workshop, name):
    path = ODD[name](workshop)
    for load_it in (Model.from_pretrained, lambda p: strip(p, p.with_name("y.ckpt"))):
        with pytest.raises(ValueError, match=r"model\.ckpt"):
            load_it(path)


CONFIGURATIONS = {
    "a device": {"device": "\x1b[2J"},
    "a device of another kind": {"device": "meta"},
    "a frozen parameter": {"freeze": {"\x1b[2J": 1}},
    "a parameter": {"params": {"\x1b[2J": 1}},
    "a dependency": {"dependencies": {"\x1b[2J": "1.0"}},
    "a dependency without name": {"dependencies": {"": "1.0"}},
    "a version": {"version": [1]},
    "parameters as a list": {"params": [1]},
    "preprocessors as text": {"preprocessors": "x"},
}
ARGUMENTS = {
    "unknown": {"\x1b[2J": 1},
    "a scorer": {"scorer": "\x1b[2J.ckpt"},
    "a folder": {"embedding": "$model/\x1b[2J"},
    "two revisions": {"embedding": "$model/a@b@c"},
    "nobody's folder": {"embedding": "~nobodyx/x"},
    "a long name": {"embedding": "x" * 9000},
    "NUL": {"embedding": "a\0b"},
    "a step of nothing": {"segmentation_step": 1e-9},
    "a step that is not a number": {"segmentation_step": float("nan")},
    "a batch of everything": {"segmentation_batch_size": 10**12},
}


@pytest.mark.parametrize("name", [*CONFIGURATIONS, *ARGUMENTS])
def test_odd_configurations_are_refused_with_their_name(workshop, name):
    folder = workshop.config(AUDIO["name"], **ARGUMENTS.get(name, {}))
    path = folder / "config.yaml"
    content = {**yaml.safe_load(path.read_text()), **CONFIGURATIONS.get(name, {})}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises((ValueError, OSError)) as refusal:
        Pipeline.from_pretrained(folder)
    assert "config.yaml" in str(refusal.value)
    assert not any(ord(c) < 32 for c in str(refusal.value))


def test_a_device_that_is_missing_is_left_out(workshop, caplog):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    path = workshop.config(AUDIO["name"]) / "config.yaml"
    path.write_text(path.read_text() + "device: cuda\n")
    assert Pipeline.from_pretrained(path) is not None
    assert "lacks" in caplog.text


@pytest.mark.parametrize("size", [3000, 9000])
def test_a_plda_of_many_dimensions(workshop, size):
    arrays = {"mu": np.zeros(size), "tr": np.eye(size, dtype="f2"), "psi": np.ones(size)}
    np.savez_compressed(workshop.folder / "plda.npz", **arrays)
    np.savez_compressed(workshop.folder / "xvec_transform.npz", mean1=np.zeros(4))
    with pytest.raises(ValueError, match=r"dimensions|larger"):
        load(workshop, AUDIO["name"], plda=str(workshop.folder))


def test_what_strip_writes_can_be_read_again(workshop, community):
    path = workshop.folder / "last.ckpt"
    content = torch.load(community / "segmentation/pytorch_model.bin", weights_only=False)
    content["pyannote.audio"]["x"] = Problem.REGRESSION
    content["callbacks"] = {"x": 1}
    torch.save(content, path)
    stripped = strip(path, workshop.folder / "y.ckpt")
    for one in (Model, StockModel):
        loaded = one.from_pretrained(stripped)
        for key, value in content["state_dict"].items():
            assert torch.equal(loaded.state_dict()[key], value)


def test_models_load_as_pyannote_takes_them(workshop, community):
    """From bytes, from a subfolder, onto a device."""
    content = io.BytesIO((community / "segmentation/pytorch_model.bin").read_bytes())
    expected = Model.from_pretrained(community / "segmentation").state_dict()
    for found in (
        Model.from_pretrained(content),
        Model.from_pretrained(community, subfolder="segmentation", map_location="cpu"),
        Model.from_pretrained(str(community), subfolder="segmentation", token=None),
    ):
        assert all(torch.equal(found.state_dict()[key], value) for key, value in expected.items())
