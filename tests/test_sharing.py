"""Pipelines and models as folders, on a hub, with cards: complete, the same, and safe."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from conversations import RATE, voice
from hub import Hub
from huggingface_hub import ModelCard
from lightning.pytorch import Trainer
from pyannote.audio import Pipeline as StockPipeline
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.audio.models.segmentation import PyanNet
from pyannote.core import Annotation, Segment
from safetensors import safe_open
from test_embedded_relation import build as build_relation
from typer.testing import CliRunner

from pyannote_av import Model, Pipeline
from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.model import UntrustedError
from pyannote_av.core.weights import require
from pyannote_av.evaluation.conditions import conditions
from pyannote_av.evaluation.diarization import evaluate
from pyannote_av.evaluation.diarization_report import write_json
from pyannote_av.evaluation.significance import compare
from pyannote_av.models.active_speaker.lightasd import LightASD
from pyannote_av.models.active_speaker.scorers import get_scorer
from pyannote_av.models.embedding.campplus import CAMPPlus
from pyannote_av.sharing.card import make_card
from pyannote_av.sharing.folders import save_pipeline
from pyannote_av.sharing.hub import pull, push
from pyannote_av.sharing.strip import strip

AUDIO = "pyannote_av.pipelines.audio_diarization.AudioDiarization"
FUSION = "pyannote_av.pipelines.late_fusion.LateFusion"
RELATION = "pyannote_av.clustering.relation_diarization.RelationDiarization"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def run(name: str, *arguments):
    from importlib import import_module

    app = typer.Typer()
    app.command()(import_module(f"pyannote_av.cli.{name}").command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_config(path: Path, name: str, params: dict | None = None, **arguments) -> Path:
    content = {"pipeline": {"name": name, "params": arguments}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content | ({"params": params} if params else {})))
    return path


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def talk() -> dict:
    """Two voices, two seconds each."""
    sound = np.concatenate([voice(pitch, 2.0, seed) for seed, pitch in enumerate((100, 230))])
    return {"waveform": torch.from_numpy(sound).float()[None], "sample_rate": RATE, "uri": "talk"}


@pytest.fixture(scope="module")
def tuned() -> dict:
    """Hyper-parameters of the audio pipeline, other than the shipped ones."""
    clustering = {"method": "complete", "threshold": 0.6, "min_cluster_size": 1}
    return {"segmentation": {"min_duration_off": 0.1}, "clustering": clustering}


@pytest.fixture(scope="module")
def embedding() -> CAMPPlus:
    """Weights that no registry knows."""
    model = CAMPPlus.from_checkpoint(require("campplus"))
    model.lineage = [
        {"start": "/home/somebody/pretrained.safetensors"},
        {"stage": {"name": "tuning", "train": ["xvector"]}, "epochs": 3, "steps": 120, "seed": 5},
    ]
    with torch.no_grad():
        model.xvector["dense"].linear.weight.mul_(1.5)
    return model


@pytest.fixture(scope="module")
def own(tmp_path_factory, embedding, tuned) -> Path:
    """Folder of a pipeline that was made by hand, with models here and there."""
    folder = tmp_path_factory.mktemp("own")
    embedding.save(folder / "elsewhere" / "voices.safetensors")
    shutil.copyfile(require("segmentation-3.0"), folder / "known.bin")
    path = str(folder / "elsewhere" / "voices.safetensors")
    config = folder / "pipeline" / "config.yaml"
    write_config(config, AUDIO, tuned, segmentation=str(folder / "known.bin"), embedding=path)
    return config.parent


def same(a, b) -> bool:
    return list(a.speaker_diarization.itertracks(yield_label=True)) == list(
        b.speaker_diarization.itertracks(yield_label=True)
    ) and np.array_equal(a.speaker_embeddings, b.speaker_embeddings, equal_nan=True)


# ------------------------------------------------------------------------------- pipeline folders


@pytest.mark.slow
def test_folder_holds_all_and_answers_the_same(own, talk, tmp_path):
    """Loaded by pyannote itself too, after it has been moved, without what it was made of."""
    expected = Pipeline.from_pretrained(own)(dict(talk))
    assert expected.speaker_diarization
    save_pipeline(own, tmp_path / "new")
    moved = (tmp_path / "new").rename(tmp_path / "moved")
    assert names(moved) == {"config.yaml", "README.md", "embedding/model.safetensors"}
    text = (moved / "config.yaml").read_text()
    assert str(own.parent) not in text
    config = yaml.safe_load(text)
    # known by its content, whatever its name
    known = {"segmentation": "segmentation-3.0", "embedding": "$model/embedding"}
    assert config["pipeline"]["params"] == known
    assert set(config["dependencies"]) == {"pyannote.audio", "pyannote-av"}
    for load in (Pipeline.from_pretrained, StockPipeline.from_pretrained):
        assert same(load(moved)(dict(talk)), expected)


@pytest.mark.slow
def test_folder_of_a_folder(own, tmp_path):
    """What $model/... refers to is copied."""
    once = save_pipeline(own, tmp_path / "once")
    twice = save_pipeline(once, tmp_path / "twice")
    assert names(twice) == names(once)
    for name in names(once) - {"README.md"}:
        assert (twice / name).read_bytes() == (once / name).read_bytes()


def test_hyper_parameters_are_replaced(tuned, tmp_path):
    tuned = {**tuned, "clustering": {**tuned["clustering"], "threshold": np.float64(0.1234)}}
    folder = save_pipeline("audio", tmp_path / "new", params=tuned)
    assert Pipeline.from_pretrained(folder).parameters(instantiated=True) == tuned
    wrong = {**tuned, "nothing": 1.0}
    with pytest.raises(Exception, match="nothing"):
        save_pipeline("audio", tmp_path / "other", params=wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.slow
def test_pipeline_within_a_pipeline(own, tmp_path):
    """The audio pipeline of late fusion is written out, with models of its own."""
    config = write_config(tmp_path / "late.yaml", FUSION, audio=str(own), scorer="synchrony")
    folder = save_pipeline(config, tmp_path / "new")
    assert "audio/embedding/model.safetensors" in names(folder)
    found = StockPipeline.from_pretrained(folder).audio
    assert found.parameters(instantiated=True) == Pipeline.from_pretrained(own).parameters(
        instantiated=True
    )
    state = Model.from_pretrained(own.parent / "elsewhere" / "voices.safetensors").state_dict()
    for name, value in found._embedding.model_.state_dict().items():
        assert torch.equal(value, state[name])


def test_scorer_in_a_file(tmp_path):
    scorer = LightASD().eval()
    path = scorer.save(tmp_path / "scorer")
    config = write_config(tmp_path / "late.yaml", FUSION, scorer=str(path))
    folder = save_pipeline(config, tmp_path / "new")
    assert "scorer/model.safetensors" in names(folder)
    found = StockPipeline.from_pretrained(folder).active_speaker._scorer
    assert found.name == get_scorer(path).name
    face = torch.zeros(1, 6400), np.full((10, 112, 112), 100, np.uint8), np.ones(10, bool)
    np.testing.assert_array_equal(found(*face), get_scorer(path)(*face))


def test_shipped_pipelines(tmp_path):
    for name in ("audio", "late_fusion"):
        folder = save_pipeline(name, tmp_path / name)
        shipped = Pipeline.from_pretrained(name)
        loaded = Pipeline.from_pretrained(folder)
        assert loaded.parameters(instantiated=True) == shipped.parameters(instantiated=True)


@pytest.mark.slow
def test_models_of_all_kinds(tmp_path):
    """A relation network, bare weights of CAM++, and statistics beside."""
    relation = build_relation("gmu", voice=192, face=128)
    path = relation.save(tmp_path / "relation")
    bare = CAMPPlus().eval()
    torch.save(bare.state_dict(), tmp_path / "bare.pt")
    config = write_config(
        tmp_path / "c.yaml",
        RELATION,
        relation=str(path.parent),
        embedding=str(tmp_path / "bare.pt"),
    )
    folder = save_pipeline(config, tmp_path / "new")
    held = {"relation/model.safetensors", "embedding/model.safetensors"}
    assert held < names(folder)
    for name, value in Pipeline.from_pretrained(folder).embedding.state_dict().items():
        assert torch.equal(value, bare.state_dict()[name])


def test_nothing_is_overwritten_unless_told(tmp_path):
    folder = save_pipeline("audio", tmp_path / "new")
    before = (folder / "config.yaml").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="new already exists"):
        save_pipeline("audio", folder)
    assert (folder / "config.yaml").stat().st_mtime_ns == before
    save_pipeline("audio", folder, overwrite=True)
    assert (folder / "config.yaml").stat().st_mtime_ns != before

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="something else"):
        save_pipeline("audio", tmp_path / "home", overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "home"}


@pytest.mark.parametrize(
    ("reference", "error", "said"),
    [
        ("$model/../secret.safetensors", ValueError, "leads out"),
        ("$model/missing", FileNotFoundError, "there is no missing"),
        ("/no/such/file.safetensors", FileNotFoundError, "no such path"),
    ],
)
def test_what_is_missing_is_named(reference, error, said, tmp_path):
    config = write_config(tmp_path / "in" / "config.yaml", AUDIO, embedding=reference)
    with pytest.raises(error, match=said):
        save_pipeline(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_classes_of_others_are_not_shared(tmp_path):
    config = write_config(tmp_path / "config.yaml", "subprocess.Popen", args="true")
    with pytest.raises(UntrustedError, match=r"subprocess\.Popen"):
        save_pipeline(config, tmp_path / "new")


# ------------------------------------------------------------------------------------------ strip


def checkpoint_of(model, path: Path) -> Path:
    """As Lightning leaves it in training: with the state of the optimizer."""
    model.specifications = Specifications(
        problem=Problem.MULTI_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=2.0,
        classes=["a", "b"],
    )
    model.setup()
    # what a task would do
    model.prepare_data, model.setup = lambda: None, lambda stage=None: None
    model.train_dataloader = lambda: torch.utils.data.DataLoader(torch.zeros(2, 1))
    model.training_step = lambda batch: sum(p.sum() for p in model.parameters())
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", enable_checkpointing=False, limit_val_batches=0, **quiet
    )
    trainer.fit(model)
    trainer.save_checkpoint(path)
    return path


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Path:
    model = build_relation("gmu")
    model.lineage = [{"stage": {"name": "first"}, "steps": 7}]
    return checkpoint_of(model, tmp_path_factory.mktemp("ours") / "last.ckpt")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    model = PyanNet(lstm={"hidden_size": 8, "num_layers": 1}, linear={"num_layers": 0})
    return checkpoint_of(model, tmp_path_factory.mktemp("theirs") / "last.ckpt")


def test_strip(ours, tmp_path):
    result = run("strip", ours, "--into", tmp_path / "model.safetensors")
    assert result.exit_code == 0, result.output
    path = tmp_path / "model.safetensors"
    assert path.stat().st_size < ours.stat().st_size / 2
    before, after = Model.from_pretrained(ours), Model.from_pretrained(path)
    assert equal(before, after)
    assert dict(before.hparams) == dict(after.hparams)
    assert after.lineage == [{"stage": {"name": "first"}, "steps": 7}, {"steps": 4}]
    with safe_open(path, "pt") as file:
        assert set(file.metadata()) == {"architecture", "hparams", "lineage", "pyannote_av"}


def test_strip_of_a_model_of_pyannote(theirs, tmp_path):
    path = strip(theirs, tmp_path / "plain.ckpt")
    content = torch.load(path, weights_only=False)
    assert not set(content) & {"optimizer_states", "lr_schedulers", "callbacks", "loops"}
    assert equal(Model.from_pretrained(theirs), Model.from_pretrained(path))


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_strip_executes_nothing_and_says_what_is_wrong(ours, theirs, tmp_path):
    torch.save({"state_dict": Payload()}, tmp_path / "bad.ckpt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.ckpt")
    for source, into, said in (
        (tmp_path / "bad.ckpt", "m.safetensors", "bad.ckpt cannot be read as plain weights"),
        (tmp_path / "other.ckpt", "m.safetensors", "does not name its model"),
        (tmp_path / "none.ckpt", "m.safetensors", "none.ckpt"),
        (ours, "m.ckpt", ".safetensors"),
        (theirs, "m.safetensors", ".ckpt or .bin"),
    ):
        result = run("strip", source, "--into", tmp_path / into)
        assert result.exit_code == 1
        assert said in result.output
        assert not (tmp_path / into).exists()


# ------------------------------------------------------------------------------------------ cards


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """What ``evaluate --json`` writes of two systems on three files."""
    rng = np.random.default_rng(0)

    def said(seed: float) -> dict[str, Annotation]:
        found = {}
        for uri in ("one", "two", "three"):
            found[uri] = Annotation(uri=uri)
            for k in range(6):
                at = 3 * k + seed * rng.uniform(-1, 1)
                found[uri][Segment(at, at + 2.5 + 0.7 * (k % 3))] = "ab"[k % 2]
        return found

    references, systems = said(0.0), {"audio": said(0.9), "late_fusion": said(0.3)}
    results = [
        evaluate(references, guess, system=name, tracks="found") for name, guess in systems.items()
    ]
    tables = [conditions(references, guess, system=name) for name, guess in systems.items()]
    path = tmp_path_factory.mktemp("measured") / "talks.test.json"
    return write_json(path, results, compare(results), tables)


def test_card_says_what_was_measured_and_nothing_else(own, measured, tmp_path):
    folder = save_pipeline(own, tmp_path / "new")
    card = ModelCard(make_card(folder, measured, "late_fusion", "me/talks", "cc-by-4.0"))
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "pyannote-audio"
    rows = [
        row
        for row in json.loads(measured.read_text())["scores"]
        if row["uri"] == "TOTAL" and row["system"] == "late_fusion"
    ]
    assert [one.metric_value for one in card.data.eval_results] == [row["der"] for row in rows]
    for result in card.data.eval_results:
        assert all(word in result.metric_name for word in ("VAD", "collar", "overlap", "tracks"))
        assert result.dataset_name == "talks.test"

    figures = card.text.split("## Evaluation")[1].split("## Intended use")[0]
    assert sha256_of(measured) in figures
    assert "pyannote-av evaluate" in figures
    assert "### Differences" in figures
    assert "### Where errors are: late_fusion" in figures
    known: set[str] = set()

    def gather(value) -> None:
        for one in value.values() if isinstance(value, dict) else value:
            if isinstance(one, (dict, list)):
                gather(one)
            elif isinstance(one, float):
                known.update({f"{one:.2f}", f"{one:.4f}", f"{one:g}"})

    gather(json.loads(measured.read_text()))
    printed = re.findall(r"(?<= )-?\d+\.\d{2,}(?= )", figures)
    assert len(printed) > 100
    assert set(printed) <= known


def test_card_tells_of_models_and_their_training(own, embedding, tmp_path):
    folder = save_pipeline(own, tmp_path / "new")
    card = (folder / "README.md").read_text()
    assert ModelCard(card).data.license == "other"  # nobody has said
    assert "`segmentation-3.0`" in card
    assert f"{sum(p.numel() for p in embedding.state_dict().values()):,}" in card
    assert "| 2 | tuning | xvector | - | 3 | 120 | 5 |" in card
    assert "somebody" not in card  # paths of the machine it was trained on
    assert "| 1 | pretrained.safetensors |" in card
    assert "Do not use it for" in card
    assert "biometric" in card


def test_card_asks_which_system(own, measured, tmp_path):
    folder = save_pipeline("audio", tmp_path / "new")
    with pytest.raises(ValueError, match="say which: audio, late_fusion"):
        make_card(folder, measured)
    with pytest.raises(ValueError, match="no system 'mine'"):
        make_card(folder, measured, "mine")
    (tmp_path / "other.json").write_text('{"scores": []}')
    with pytest.raises(ValueError, match=r"other\.json was not written by"):
        make_card(folder, tmp_path / "other.json")


# ---------------------------------------------------------------------------------- push and pull


def test_push_and_pull_of_a_folder(own, measured, talk, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "about.md").write_text("Trained on *nothing but* noise.")
    told = ("--about", tmp_path / "about.md", "--evaluation", measured, "--evaluation", measured)
    result = run("push", own, out, *told, "--system", "audio")
    assert result.exit_code == 0, result.output
    card = (out / "README.md").read_text()
    assert "*nothing but* noise" in card
    assert card.count("Figures are those of `talks.test.json`") == 2
    assert "talks.test.json" in (out / "README.md").read_text()
    (out / "virus.py").write_text("raise SystemExit")
    (out / "old.bin").write_bytes(b"pickle")
    result = run("pull", out, tmp_path / "in")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "in") == names(out) - {"virus.py", "old.bin"}
    pulled = Pipeline.from_pretrained(tmp_path / "in")
    assert same(pulled(dict(talk)), Pipeline.from_pretrained(own)(dict(talk)))
    # a card that is there is kept
    push(tmp_path / "in", tmp_path / "again")
    kept = [(folder / "README.md").read_text() for folder in (out, tmp_path / "again")]
    assert kept[0] == kept[1]
    result = run("push", own, out)
    assert result.exit_code == 1
    assert "already exists" in result.output


def test_push_and_pull_of_a_model(ours, tmp_path):
    for k, source in enumerate((ours, build_relation("dimnet").save(tmp_path / "model"))):
        where = Path(push(source, tmp_path / f"out{k}"))
        assert names(where) == {"README.md", "model.safetensors"}
        pulled = pull(where, tmp_path / f"in{k}")
        assert equal(Model.from_pretrained(pulled), Model.from_pretrained(source))
        assert "FusedEmbeddings" in (pulled / "README.md").read_text()


def test_pickles_are_not_shared(theirs, tmp_path):
    config = write_config(tmp_path / "config.yaml", AUDIO, segmentation=str(theirs))
    for source in (theirs, config):
        result = run("push", source, tmp_path / "out")
        assert result.exit_code == 1
        assert "pytorch_model.bin may execute something" in result.output
        assert not (tmp_path / "out").exists()


def test_what_does_not_load_safely_is_not_pulled(tmp_path):
    bad = tmp_path / "bad"
    write_config(bad / "config.yaml", "subprocess.Popen", args="true")
    (tmp_path / "empty").mkdir()
    lost = tmp_path / "lost"
    write_config(lost / "config.yaml", AUDIO, embedding="$model/embedding")
    packed = tmp_path / "packed"
    write_config(packed / "config.yaml", AUDIO)
    np.savez(packed / "plda.npz", x=np.array([Payload()], dtype=object))
    for source, said in (
        (bad, "subprocess.Popen"),
        (tmp_path / "empty", "neither a pipeline nor a model"),
        (lost, "embedding"),
        (packed, "plda.npz, array 'x' holds Python objects"),
        (tmp_path / "nothing", "no such folder"),
    ):
        result = run("pull", source, tmp_path / "in")
        assert result.exit_code == 1, source
        assert said in result.output
        assert not (tmp_path / "in").exists()


def test_links_that_lead_out_are_not_shared(tmp_path):
    from pyannote_av.sharing.hub import check

    folder = save_pipeline("audio", tmp_path / "new")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ValueError, match=r"notes\.txt leads out"):
        check(folder)


def test_hub_out_of_reach_is_said_at_once(tmp_path):
    for command in (("push", "audio", "hub:me/talk"), ("pull", "hub:me/talk", tmp_path / "in")):
        result = run(*command)
        assert result.exit_code == 1
        assert "out of reach" in result.output
    result = run("push", "audio", "hub:nobody")
    assert result.exit_code == 1
    assert "organisation" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_hub(tmp_path):
    """The real client, a real server: what is pushed can be pulled, with a token."""

    def told(hub: Hub, code: str) -> str:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            "no_proxy": "127.0.0.1",
        }
        before = "from pyannote_av.sharing.hub import pull, push\n"
        done = subprocess.run(
            [sys.executable, "-c", before + code], env=environment, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    relation = build_relation("gmu").save(tmp_path / "model")
    with Hub() as hub:
        said = told(
            hub,
            f"print(push({str(relation)!r}, 'hub:me/faces', private=True, token='hf_secret'))\n"
            f"print(pull('hub:me/faces', {str(tmp_path / 'in')!r}, token='hf_secret'))\n"
            "push('audio', 'hub:me/talk', revision='tuned')\n"
            f"pull('hub:me/nothing', {str(tmp_path / 'no')!r})\n",
        )
    assert f"{hub.url}/me/faces/commit/" in said
    assert "ConnectionError: the hub refuses access to 'me/nothing'" in said
    assert hub.private["me/faces"]
    assert hub.branches == ["tuned"]
    assert "Bearer hf_secret" in hub.tokens
    assert set(hub.repositories["me/faces"]) == {"README.md", "model.safetensors"}
    assert set(hub.repositories["me/talk"]) == {"README.md", "config.yaml"}
    assert names(tmp_path / "in") == {"README.md", "model.safetensors"}
    assert equal(Model.from_pretrained(tmp_path / "in"), build_relation("gmu"))
    assert not (tmp_path / "no").exists()
