"""Training by configuration: what is refused, what is learnt, what survives."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from test_target_speaker_task import TINY, URIS, embedder, folder  # noqa: F401
from typer.testing import CliRunner

from pyannote_av import Model
from pyannote_av.cli.train import command
from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.training import Stage, TrainingConfig, train
from pyannote_av.training.config import PlanConfig, TaskConfig, keys
from pyannote_av.training.fitting import learning_rate_factor

QUICK = {"accelerator": "cpu", "limit_train_batches": 2, "limit_val_batches": 1}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def database(folder, tmp_path_factory) -> Path:  # noqa: F811
    """Protocol of the conversations of a store: two to learn from, one to validate on"""
    place = tmp_path_factory.mktemp("database")
    entries = {}
    for subset, uris in {"train": URIS[:2], "development": URIS[2:]}.items():
        (place / f"{subset}.txt").write_text("\n".join(uris) + "\n")
        entries[subset] = {
            "uri": str(place / f"{subset}.txt"),
            "annotation": f"{folder}/rttm/{{uri}}.rttm",
            "annotated": f"{folder}/uem/{{uri}}.uem",
            "audio": f"{folder}/audio/{{uri}}.wav",
            "face_tracks": f"{folder}/tracks/{{uri}}.npz",
        }
    protocols = {"Tiny": {"SpeakerDiarization": {"Talk": {"scope": "file", **entries}}}}
    path = place / "database.yml"
    path.write_text(yaml.safe_dump({"Databases": {"Tiny": []}, "Protocols": protocols}))
    return path


@pytest.fixture
def content(database, folder, tmp_path) -> dict:  # noqa: F811
    """A configuration of HMSA-Net, as small as can be"""
    return {
        "protocol": "Tiny.SpeakerDiarization.Talk",
        "database": str(database),
        "into": str(tmp_path / "run"),
        "task": {
            "name": "TargetSpeakerSegmentation",
            "params": {
                "store": str(folder),
                "duration": 0.8,
                "batch_size": 2,
                "max_targets": 3,
                "num_workers": 0,
            },
        },
        "model": {"name": "HMSANet", "params": {**TINY, "visual": "compact"}},
        "stages": [{"name": "all", "max_epochs": 1}],
        "trainer": dict(QUICK),
        "seed": 3,
    }


@pytest.fixture
def config(content, tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments: str):
    import typer

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(one) for one in arguments])


def same(first, second) -> bool:
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all((first[k] == second[k]).all() for k in first)


# what is refused, before anything is loaded


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocl=x", "config.yaml: *protocl: unknown key; did you mean 'protocol'?"),
        ("task.nam=x", "task.nam: unknown key; did you mean 'name'?"),
        ("task.name=Diarization", "task.name: unknown task 'Diarization'; choose from Active"),
        (
            "task.params.batchsize=1",
            "task.params.batchsize: unknown key; did you mean 'batch_size'",
        ),
        ("task.params.batch_size=many", "task.params.batch_size: 'many': .*integer"),
        ("task.params={}", "task.params.store: is missing"),
        ("model={}", "model: give the name of a network, or a checkpoint"),
        ("model.name=HMSANett", "model.name: unknown network 'HMSANett'; did you mean 'HMSANet'?"),
        ("model.params.widht=3", "model.params.widht: unknown key; did you mean 'width'?"),
        ("model.params.channels=wide", "model.params.channels: 'wide': .*Sequence"),
        ("model.name=os.path.Model", "not one of the models"),
        ("stages=[]", "stages: a list of stages is expected"),
        ("stages=[{train: [visual]}]", "stages.0.name: is missing"),
        ("stages=[{name: a}, {name: a}]", "stages: two stages are called 'a'"),
        ("stages.all.lr=3", "stages.all.lr: unknown key; choose from name, train"),
        ("stages.all.max_epoch=3", "stages.all.max_epoch: unknown key; did you mean 'max_epochs'"),
        ("stages.all.max_epochs=0", "stages.all.max_epochs: 0: .*greater than or equal to 1"),
        ("stages.all.schedule=linear", "stages.all.schedule: 'linear': .*'constant', 'cosine'"),
        ("stages.all.name=a/b", "name: a stage cannot be called 'a/b'"),
        ("stages.all.start=one", "stages: stage 'all' starts from 'one'"),
        ("stages.all.optimizer=Adagrat", "stages.all.optimizer: .*; did you mean 'Adagrad'?"),
        ("stages.first.max_epochs=3", "no 'first' among \\['all'\\]"),
        ("stages.all.train=[visuals]", "HMSANet has no visuals, but acoustic"),
        ("stages.all.settings.bach_size=3", "TargetSpeakerSegmentation has no setting 'bach_size'"),
        ("stages={preset: five}", "stages.preset: 'five': .*'multi_stage' or 'end_to_end'"),
        (
            "stages={preset: multi_stage, epochs: [1]}",
            "stages: five numbers of epochs are needed, 1 were",
        ),
        ("trainer.precison=16", "trainer.precison: unknown key; did you mean 'precision'?"),
        ("trainer.max_epochs=3", "trainer: max_epochs: stages define it"),
        ("trainer.devices=1000000000", "trainer: devices is 1000000000, but must .* to 4096"),
        ("trainer.devices=[0,", "not valid YAML"),
        (
            "trainer.devices=many",
            "trainer: devices: 'many' is neither a number nor a list of devices",
        ),
        ("trainer.num_nodes=5000", "trainer: num_nodes is 5000"),
        ("trainer.strategy=deepseed", "trainer: strategy: 'deepseed' is not one of auto, ddp"),
        ("trainer.strategy=deepspeed", "trainer: .*DeepSpeed"),
        ("trainer.limit_train_batches=0", "at least one batch is needed"),
        ("trainer.profiler=os.system", "trainer: profiler: 'os.system' is not one of simple"),
        ("trainer.plugins=[os.system]", "trainer.plugins: .*instance of CheckpointIO"),
        ("trainer.callbacks=[os.system]", "trainer.callbacks: .*instance of Callback"),
        ("trainer.model_registry=me/mine", "trainer.model_registry uploads models. Pass trust"),
        ("task.params.cache=../files.npz", "task.params.cache: .* is outside of .*/run"),
        ("stages.all.settings={cache: ../files.npz}", "'all': settings.cache: .* is outside of"),
        ("stages.all.settings={val_monitor: 1}", "val_monitor of the task cannot be set"),
        ("stages.all.settings=[3]", "stages.all.settings: .*dictionary"),
        ("stages.all.train=visual", "stages.all.train: 'visual': .*tuple"),
        ("stages.all.name=[a]", "stages.0.name: .*string"),
        ("task.params.augmentation=3", "task.params.augmentation: {transform: Gain"),
        (
            "task.params.augmentation={transform: Gain, params: {x: 3}}",
            "task.params.augmentation: .*'x'",
        ),
        ("loggers=[tensorbord]", "unknown logger 'tensorbord'; did you mean 'tensorboard'?"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
        ("protocol=Tiny.SpeakerDiarization.Walk", "no protocol 'Tiny.SpeakerDiarization.Walk'"),
        ("protocol=Tiny", "names read DATABASE.TASK.PROTOCOL"),
        ("database=nowhere.yml", "no such file: nowhere.yml"),
        ("task.params.store=nowhere", "nowhere"),
        ("model.checkpoint=nowhere.safetensors", "no such path|nowhere.safetensors"),
        ("seed", "overrides read key=value"),
        ("seed={", "not valid YAML"),
    ],
)
def test_what_makes_no_sense_is_refused_by_key(config, override, message):
    done = run(config, override)
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    import re

    assert re.search(message, done.output.replace("\n", " ")), done.output
    assert not (config.parent / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.params.batchsize=1", "did you mean 'batch_size'"),
        ("model.name=HMSANett", "did you mean 'HMSANet'"),
        ("model.params.max_lag=3", "model.params.max_lag: unknown key"),
        ("stages.all.settings.bach_size=3", "has no setting 'bach_size'"),
        ("stages.all.train=[visuals]", "HMSANet has no visuals"),
        ("task.params.store=nowhere", "nowhere"),
        ("protocol=Tiny.SpeakerDiarization.Walk", "no protocol"),
        ("model.checkpoint=nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_check_finds_what_training_would_find(config, override, message):
    done = run(config, "--check", override)
    assert done.exit_code == 1
    assert message in done.output.replace("\n", " ")
    assert not (config.parent / "run").exists()


def test_losses_of_other_packages_need_trust(config, tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(
        "from pyannote_av.tasks.losses import diarization_loss\n"
        "from pyannote_av.tasks.target_speaker_segmentation import Loss\n"
        "MINE = Loss(1.0, 'decoder', diarization_loss)\n"
        "def plain(output, batch): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    change = "stages.all.losses={own_losses.%s: 1.0}"
    assert "is code of another package. Pass trust=True" in run(config, change % "MINE").output
    assert "own_losses.plain is a function, not a" in (
        run(config, "--check", "--trust", change % "plain").output
    )
    done = run(config, "--trust", change % "MINE")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run" / "01-all" / "stage.json").read_text())
    assert "loss/val/own_losses.MINE" in record["history"][0]


def test_database_of_the_command_line(content, tmp_path):
    database = content.pop("database")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    shown = run(path, "--check", "--database", database)
    assert yaml.safe_load(shown.output)["database"] == database


def test_files_that_are_no_configuration(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("- a\n- b\n")
    assert f"{path}: expected a mapping of keys to values" in run(path).output
    path.write_text("a: [")
    assert "not valid YAML" in run(path).output
    assert "No such file" in run(tmp_path / "none.yaml").output


def test_a_checkpoint_of_another_network(config, tmp_path):
    given = LRASD().save(tmp_path / "lrasd.safetensors")
    done = run(config, f"model.checkpoint={given}", "model.params={}")
    assert "is a LRASD, not a HMSANet" in done.output
    done = run(config, f"model={{checkpoint: {given}}}")
    assert "TargetSpeakerSegmentation does not train LRASD" in done.output
    assert done.exit_code == 1


# keys


def test_every_key_is_explained():
    listed = keys()
    for part in (TrainingConfig, PlanConfig):
        for name in part.model_fields:
            assert f"{name}" in listed
    for name in Stage.model_fields:
        line = next(line for line in listed.splitlines() if line.strip().startswith(f"{name}: "))
        assert len(line) > 25, line
    assert keys() in run("--keys").output


def test_what_is_understood_can_be_read_again(config, tmp_path):
    shown = run(config, "--check", "stages.all.max_epochs=7", "task.params.batch_size=5")
    assert shown.exit_code == 0
    again = tmp_path / "again.yaml"
    again.write_text(shown.output)
    read = TrainingConfig.read(again)
    assert read.plan()[0].max_epochs == 7
    assert read.task.params["batch_size"] == 5
    assert read.to_dict() == yaml.safe_load(shown.output)
    assert not (tmp_path / "run").exists()


def test_presets_are_stages(content):
    content["stages"] = {"preset": "multi_stage", "epochs": [1, 2, 3, 4, 5], "learning_rate": 0.01}
    plan = TrainingConfig.parse(content).plan()
    assert [stage.max_epochs for stage in plan] == [1, 2, 3, 4, 5]
    content["stages"] = {"preset": "end_to_end", "epochs": 9}
    assert [stage.name for stage in TrainingConfig.parse(content).plan()] == ["end_to_end"]


def test_stages_of_a_preset_can_be_changed(config, content):
    content["stages"] = {"preset": "multi_stage", "epochs": 2}
    config.write_text(yaml.safe_dump(content))
    changes = ["stages.epochs=3", "stages.joint.max_epochs=30", "stages.0.learning_rate=0.5"]
    plan = TrainingConfig.read(config, changes).plan()
    assert [stage.max_epochs for stage in plan] == [3, 3, 3, 3, 30]
    assert plan[0].learning_rate == 0.5
    assert plan[1].settings == {"corruption": {}}
    shown = run(config, "--check", *changes)
    assert shown.exit_code == 0, shown.output
    for wrong, message in (
        (["stages.end.max_epochs=1"], "no 'end' among \\['visual', 'acoustic'"),
        (["stages.joint.lr=1"], "stages.joint.lr: unknown key"),
        ([*changes, "stages.epochs=9"], "give keys of the preset before those of its stages"),
        (["stages.preset=six", "stages.joint.max_epochs=1"], "stages.preset: 'six'"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainingConfig.read(config, wrong)


def test_the_command_of_the_documentation():
    recipe = Path(__file__).parents[1] / "recipes" / "ava_avd" / "train" / "hmsanet.yaml"
    plan = TrainingConfig.read(recipe, ["trainer.devices=4", "stages.joint.max_epochs=30"]).plan()
    assert [stage.max_epochs for stage in plan] == [20, 10, 20, 10, 30]


def test_former_names_are_read_with_one_warning(content):
    content["task"]["params"]["max_slots"] = content["task"]["params"].pop("max_targets")
    with pytest.warns(DeprecationWarning, match="max_slots is now max_targets") as caught:
        config = TrainingConfig.parse(content)
    assert len(caught) == 1
    assert config.task.params["max_targets"] == 3
    content["task"]["params"]["max_targets"] = 4
    with pytest.raises(ValueError, match="max_slots is the former name of max_targets"):
        TrainingConfig.parse(content)
    content["task"]["params"].pop("max_slots")
    content["model"]["params"] |= {"context": 5, "window": 1}
    with pytest.warns(DeprecationWarning, match="context is now attention_window, window is now"):
        config = TrainingConfig.parse(content)
    assert config.model.params["attention_window"] == 5
    assert config.model.params["speaker_reach"] == 1


@pytest.mark.parametrize("name", ["PairwiseRelation", "SpeakerCounting"])
def test_former_names_of_tasks_on_windows_are_read(name):
    given = {"store": "store", "voices": "a", "identities": "b"}
    with pytest.warns(DeprecationWarning, match="voices is now speaker_embeddings, identities is"):
        task = TaskConfig(name=name, params=given)
    assert task.params == {"store": "store", "speaker_embeddings": "a", "face_embeddings": "b"}


def test_learning_rates():
    stage = Stage(name="a", schedule="exponential", decay=0.5, max_epochs=3)
    assert [learning_rate_factor(stage, n, 6) for n in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    stage = Stage(name="a", schedule="cosine", warm_up=2)
    assert learning_rate_factor(stage, 0, 10) == 0.5
    assert learning_rate_factor(stage, 5, 10) == pytest.approx(0.5)
    assert learning_rate_factor(stage, 10, 10) == 0
    assert learning_rate_factor(Stage(name="a"), 7, 10) == 1


# training


def test_train_go_on_and_fine_tune(config, tmp_path):
    done = run(config)
    assert done.exit_code == 0, done.output
    into = tmp_path / "run"
    assert "01-all: 2 steps, 1 epochs, best loss/val" in done.output
    assert "waiting for data" in done.output
    model = Model.from_pretrained(into)
    assert model.lineage[0]["stage"]["name"] == "all"
    assert list(into.glob("01-all/csv_logs/version_0/metrics.csv"))
    assert list(into.glob("01-all/tensorboard_logs/version_0/events.*"))

    # there is nothing left to do, whatever changes of where it is done
    before = (into / "model.safetensors").stat().st_mtime_ns
    assert run(config, "trainer.devices=1").exit_code == 0
    assert same(Model.from_pretrained(into), model)
    assert (into / "01-all" / "stage.json").stat().st_mtime_ns < before + 10**10
    refused = run(config, "seed=4")
    assert "started there with another seed" in refused.output
    refused = run(config, "task.params.batch_size=1")
    assert "started there with another task" in refused.output

    # fine-tuned, by one module only, with another optimizer
    tuned = run(
        config,
        f"into={tmp_path / 'tuned'}",
        f"model={{checkpoint: {into}}}",
        "stages=[{name: decoder, train: [decoder], max_epochs: 1, optimizer: SGD}]",
        "loggers=[]",
    )
    assert tuned.exit_code == 0, tuned.output
    after = Model.from_pretrained(tmp_path / "tuned")
    assert [one["stage"]["name"] for one in after.lineage] == ["all", "decoder"]
    for name, value in after.state_dict().items():
        changed = bool((value != model.state_dict()[name]).any())
        assert not changed or name.startswith("decoder"), name
    assert not same(after, model)
    assert not list((tmp_path / "tuned").rglob("metrics.csv"))


def test_training_begun_under_former_names_continues(config, tmp_path):
    assert run(config, "loggers=[]").exit_code == 0
    path = tmp_path / "run" / "config.yaml"
    then = yaml.safe_load(path.read_text())
    params = then["task"]["params"]
    params["max_slots"] = params.pop("max_targets")
    path.write_text(yaml.safe_dump(then))
    again = run(config, "loggers=[]")
    assert again.exit_code == 0, again.output
    assert yaml.safe_load(path.read_text())["task"]["params"]["max_targets"] == 3


def test_python_does_the_same(config, tmp_path):
    first = train(TrainingConfig.read(config, ["loggers=[]"]))
    path = tmp_path / "again"
    second = train(TrainingConfig.read(config, ["loggers=[]", f"into={path}"]))
    assert same(first, second)
    assert not first.training


def test_accumulated_gradients_and_augmented_sound(config):
    done = run(
        config,
        "trainer.accumulate_grad_batches=2",
        "task.params.augmentation={transform: Gain, params: {p: 1.0}}",
    )
    assert done.exit_code == 0, done.output
    assert "01-all: 1 steps" in done.output


# caches


def test_caches_go_by_content(config, database, folder, tmp_path, caplog):  # noqa: F811
    # without trust, a cache is made in the folder of a training; others may use it again
    cache = tmp_path / "a" / "files.npz"
    given = [f"task.params.cache={cache}", "loggers=[]"]

    def trained(name: str, *more: str):
        done = run(config, *given, f"into={tmp_path / name}", *more)
        assert done.exit_code == 0, done.output
        return cache.stat().st_mtime_ns

    written = trained("a")
    assert trained("b") == written
    # the same names, another reference
    other = tmp_path / "other"
    other.mkdir()
    text = database.read_text().replace(f"{folder}/rttm", str(other))
    for uri in URIS:
        turns = (folder / "rttm" / f"{uri}.rttm").read_text().splitlines(keepends=True)
        (other / f"{uri}.rttm").write_text("".join(turns[:-1]))
    changed = tmp_path / "changed.yml"
    changed.write_text(text)
    assert trained("c", f"database={changed}") > written
    assert "made again" in caplog.text
    # something else is not written over
    cache.write_bytes(b"my diary")
    done = run(config, *given, f"into={tmp_path / 'd'}")
    assert done.exit_code == 1
    assert f"{cache} holds no recordings" in done.output
    assert cache.read_bytes() == b"my diary"


@pytest.mark.slow
def test_more_processes_than_there_is_to_validate_on(config):
    given = [config, "trainer.devices=2", "task.params.batch_size=64"]
    done = subprocess.run(
        [sys.executable, "-m", "pyannote_av", "train", *given],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode != 0
    assert "1 batches of development files for 2 processes" in done.stderr


# accidents


def test_full_disk(config, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", place], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        done = run(config, f"into={place / 'run'}", "loggers=[]")
        assert done.exit_code == 1
        assert "is full" in done.output
        left = [path for path in place.rglob("*") if path.is_file()]
        assert all(path.suffix in (".yaml", ".json") for path in left), left
        again = run(config, f"into={tmp_path / 'roomy'}", "loggers=[]")
        assert again.exit_code == 0
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_too_large_for_the_memory(config):
    done = run(config, "task.params.duration=600000.0")
    assert done.exit_code == 1
    assert "out of memory" in done.output
    assert "accumulate_grad_batches" in done.output


@pytest.mark.slow
def test_killed_ten_times(config, tmp_path):
    plan = {"preset": "multi_stage", "epochs": 2, "learning_rate": 0.001}
    given = [f"stages={yaml.safe_dump(plan, default_flow_style=True).strip()}"]
    given += ["trainer.limit_train_batches=8", "trainer.limit_val_batches=4"]

    def start(into: Path) -> subprocess.Popen:
        line = [sys.executable, "-m", "pyannote_av", "train", str(config), f"into={into}", *given]
        return subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    begun = time.monotonic()
    assert start(tmp_path / "undisturbed").wait() == 0
    lasts = time.monotonic() - begun
    chance, kills = random.Random(0), 0
    while True:
        process = start(tmp_path / "killed")
        try:
            # what is done already is not done again: later runs are short
            code = process.wait(None if kills == 10 else chance.uniform(0.3, 0.8) * lasts)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert code == 0
        if kills == 10:
            break
        # through before the tenth: once more from the beginning of another folder
        for path in sorted((tmp_path / "killed").glob("0[2-5]-*/stage.json")):
            path.unlink()
    first, second = (tmp_path / name for name in ("undisturbed", "killed"))
    assert same(Model.from_pretrained(first), Model.from_pretrained(second))
    for path in sorted(first.glob("*/stage.json")):
        there = second / path.relative_to(first)
        mine, other = (json.loads(one.read_text()) for one in (path, there))
        assert mine["history"] == other["history"]
        assert mine["lineage"] == other["lineage"]


def test_the_former_name_of_a_module_hides_no_function():
    code = "from pyannote_av.training.train import make_model, make_task\n"
    code += "from pyannote_av.training import train\n"
    code += "import pyannote_av.training.from_config as new\n"
    code += "assert make_model is new.make_model and callable(train)\n"
    code += "try:\n    train('config')\nexcept AttributeError as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'str' object has no attribute" in done.stdout  # train takes a TrainingConfig
