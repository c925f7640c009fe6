"""Multi-stage optimization: what is frozen, where stages start, and that nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback
from talkers import make_protocol, make_talkers

from pyannote_av import Model
from pyannote_av.core.checksums import sha256_of
from pyannote_av.data.build import build_store
from pyannote_av.data.crop_store import CropStore
from pyannote_av.models.active_speaker.compact import CompactASD
from pyannote_av.tasks import ActiveSpeakerDetection
from pyannote_av.training import Stage, end_to_end, multi_stage, optimize
from pyannote_av.training.fitting import freeze_others
from pyannote_av.training.stages import check_stages

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
PLAN = [
    Stage(name="visual", train=("visual", "visual_classifier"), max_epochs=2, learning_rate=1e-3),
    Stage(
        name="fusion", train=("fusion", "decoder", "classifier"), max_epochs=2, learning_rate=1e-3
    ),
    Stage(name="joint", max_epochs=3, learning_rate=1e-4, warm_up=2, schedule="cosine"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[list[dict], CropStore]:
    """Four short recordings of two faces each, and their store."""
    folder = tmp_path_factory.mktemp("talkers")
    files = [make_talkers(folder, f"talk{i}", duration=0.4, seed=i) for i in range(4)]
    return files, build_store(folder / "store", files).store


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make_task(corpus, validation=True, **kwargs) -> ActiveSpeakerDetection:
    files, store = corpus
    protocol = make_protocol(files[:2], *([files[2:]] if validation else []))
    return ActiveSpeakerDetection(protocol, store, batch_size=2, num_workers=0, **kwargs)


def make_model() -> CompactASD:
    """Of LR-ASD's modules, but five times as fast"""
    torch.manual_seed(0)
    return CompactASD()


def same(first, second) -> bool:
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all((first[k] == second[k]).all() for k in first)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """Undisturbed: the model, and its folder."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    return optimize(make_model(), make_task(corpus), PLAN, folder, **QUIET), folder


# stages as data


def test_default_plan_trains_every_branch_then_all():
    stages = multi_stage()
    assert [s.name for s in stages] == ["visual", "acoustic", "fusion", "decoder", "joint"]
    assert stages[-1].train == ("*",)
    assert stages[-1].learning_rate == pytest.approx(stages[0].learning_rate / 10)
    (one,) = end_to_end(epochs=7)
    assert one.train == ("*",)
    assert one.losses == stages[-1].losses
    assert [s.max_epochs for s in multi_stage((1, 2, 3, 4, 5))] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="five"):
        multi_stage((1, 2))


@given(
    st.builds(
        Stage,
        name=st.text("abcdef", min_size=1),
        train=st.sampled_from([("*",), ("visual",), ("fusion", "decoder.layers")]),
        losses=st.dictionaries(st.sampled_from(["visual", "nce"]), st.floats(0, 1)),
        max_epochs=st.integers(1, 99),
        patience=st.none() | st.integers(1, 9),
        schedule=st.sampled_from(["constant", "cosine"]),
        settings=st.dictionaries(st.sampled_from(["batch_size"]), st.integers(1, 9)),
    )
)
@settings(max_examples=25, deadline=None)
def test_stages_are_plain_data(stage):
    for short in (False, True):
        assert Stage(**json.loads(json.dumps(stage.to_dict(short)))) == stage
    assert set(stage.to_dict()) == set(Stage.model_fields)
    assert Stage(name="a").to_dict(short=True) == {"name": "a"}


def test_stages_that_do_not_fit_together():
    one = Stage(name="a")
    with pytest.raises(ValueError, match="two stages are called 'a'"):
        check_stages([one, one])
    with pytest.raises(ValueError, match="stage 'a' starts from 'b'"):
        check_stages([Stage(name="a", start="b"), Stage(name="b")])
    with pytest.raises(ValueError, match="no stage"):
        check_stages([])


# freezing


def test_only_what_a_stage_names_learns():
    model = make_model()
    names = freeze_others(model, ("fusion", "decoder.gru"))
    assert names
    assert all(name.startswith(("fusion.", "decoder.gru.")) for name in names)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(names)
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.Dropout)):
            assert module.training == name.startswith("fusion")
    freeze_others(model, ("*",))
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
    with pytest.raises(ValueError, match=r"no visua, but .*visual"):
        freeze_others(model, ("visua",))


def test_frozen_modules_stay_as_they_are(trained):
    folder = trained[1]
    before = make_model().state_dict()
    states = {stage.name: stage for stage in PLAN}
    for number, name in enumerate(states, 1):
        after = Model.from_pretrained(folder / f"{number:02d}-{name}").state_dict()
        for key, value in after.items():
            learns = states[name].train == ("*",) or key.startswith(states[name].train)
            if not learns:  # running statistics of batch normalisation too
                assert (value == before[key]).all(), (name, key)
        changed = {k for k in after if (after[k] != before[k]).any()}
        assert changed
        before = after


# the course of training


def test_lineage_and_history_tell_where_weights_come_from(trained, tmp_path):
    model, folder = trained
    assert [entry["stage"]["name"] for entry in model.lineage] == ["visual", "fusion", "joint"]
    loaded = Model.from_pretrained(folder)
    assert loaded.lineage == model.lineage
    assert same(loaded, model)
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())
    record = json.loads((folder / "03-joint" / "stage.json").read_text())
    assert [row["epoch"] for row in record["history"]] == [0, 1, 2]
    assert all({"loss/train", "loss/val"} <= row.keys() for row in record["history"])
    # what the task says: average precision
    best = max(record["history"], key=lambda row: row["BinaryAveragePrecision"])
    assert model.lineage[-1]["epoch"] == best["epoch"]
    assert not list(folder.rglob("*.ckpt"))


def test_done_stages_are_not_done_again(corpus, trained):
    class Never(Callback):
        def on_fit_start(self, trainer, model):
            raise AssertionError("nothing is left to do")

    model, folder = trained
    again = optimize(make_model(), make_task(corpus), PLAN, folder, callbacks=[Never()], **QUIET)
    assert same(again, model)


@pytest.mark.parametrize(
    "moment", [(2, 1), *(pytest.param(m, marks=pytest.mark.slow) for m in ((1, 0), (3, 1), (3, 2)))]
)
def test_interrupted_training_ends_with_the_same_weights(corpus, trained, tmp_path, moment):
    class Killed(Exception):
        pass

    class Kill(Callback):
        stage = 0

        def on_fit_start(self, trainer, model):
            self.stage += 1

        def on_train_batch_end(self, trainer, model, outputs, batch, index):
            if (self.stage, trainer.current_epoch) == moment and index == 1:
                raise Killed

    with pytest.raises(Killed):
        optimize(make_model(), make_task(corpus), PLAN, tmp_path, callbacks=[Kill()], **QUIET)
    torch.manual_seed(1234)  # another process would be somewhere else, too
    model = optimize(make_model(), make_task(corpus), PLAN, tmp_path, **QUIET)
    assert same(model, trained[0])
    assert model.lineage == trained[0].lineage


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}]
from test_training import *
corpus = [make_talkers(Path({media!r}), f"talk{{i}}", duration=0.4, seed=i) for i in range(4)]
torch.set_num_threads(1)
optimize(make_model(), make_task((corpus, CropStore({store!r}))), PLAN, {folder!r}, **QUIET)
"""


@pytest.mark.slow
def test_killed_in_stage_three_ends_with_the_same_weights(corpus, trained, tmp_path):
    store = corpus[1]
    names = {
        "tests": str(Path(__file__).parent),
        "media": str(tmp_path),
        "store": str(store.folder),
        "folder": str(tmp_path / "run"),
    }
    command = [sys.executable, "-c", SCRIPT.format(**names)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "run" / "03-joint" / "last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "03-joint" / "stage.json").exists()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert same(Model.from_pretrained(tmp_path / "run"), trained[0])


def test_patience_ends_a_stage_early_and_survives_an_interruption(corpus, tmp_path):
    # nothing is learnt at a rate of nought: no epoch is better than the first
    plan = [Stage(name="idle", train=("classifier",), learning_rate=0.0, max_epochs=9, patience=2)]
    model = optimize(make_model(), make_task(corpus), plan, tmp_path / "a", **QUIET)
    assert model.lineage[-1]["epochs"] == 3

    class KillAfter(Callback):
        def on_fit_end(self, trainer, model):
            raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017, PT011
        optimize(
            make_model(), make_task(corpus), plan, tmp_path / "b", callbacks=[KillAfter()], **QUIET
        )
    again = optimize(make_model(), make_task(corpus), plan, tmp_path / "b", **QUIET)
    assert again.lineage == model.lineage


def test_stages_may_start_from_any_earlier_one_or_a_file(corpus, trained, tmp_path):
    task, given = make_task(corpus, validation=False), str(trained[1] / "model.safetensors")
    plan = [
        Stage(name="first", train=("fusion",), max_epochs=1, learning_rate=1e-3),
        Stage(name="second", train=("decoder",), max_epochs=1, learning_rate=1e-3),
        Stage(name="other", train=("classifier",), max_epochs=1, learning_rate=0.0, start="first"),
        Stage(name="given", train=("classifier",), max_epochs=1, learning_rate=0.0, start=given),
    ]
    model = optimize(make_model(), task, plan, tmp_path, **QUIET)
    other = Model.from_pretrained(tmp_path / "03-other")
    assert same(other, Model.from_pretrained(tmp_path / "01-first"))
    assert [entry["stage"]["name"] for entry in other.lineage] == ["first", "other"]
    assert same(model, trained[0])
    assert model.lineage[0] == {"start": "model.safetensors", "sha256": sha256_of(given)}
    assert model.lineage[-1]["stage"]["start"] == "model.safetensors"
    some = [plan[-1].model_copy(update={"take": ("visual", "fusion")})]
    model = optimize(make_model(), task, some, tmp_path / "some", **QUIET)
    expected, initial = trained[0].state_dict(), make_model().state_dict()
    for name, value in model.state_dict().items():
        if not name.startswith("classifier"):
            origin = expected if name.startswith(("visual.", "fusion.")) else initial
            assert (value == origin[name]).all(), name


def test_stages_set_what_the_task_is_to_do(corpus, tmp_path):
    task = make_task(corpus, validation=False)
    plan = [Stage(name="one", max_epochs=1, losses={"visual": 1.0}, settings={"batch_size": 1})]
    optimize(make_model(), task, plan, tmp_path / "a", **QUIET)
    assert task.losses == {"visual": 1.0}
    assert task.batch_size == 1
    plan = [Stage(name="one", max_epochs=1, settings={"bach_size": 1})]
    with pytest.raises(ValueError, match="has no setting 'bach_size'"):
        optimize(make_model(), task, plan, tmp_path / "b", **QUIET)


def test_what_done_stages_set_is_set_when_training_goes_on(corpus, tmp_path):
    plan = [
        Stage(name="one", max_epochs=1, losses={"visual": 1.0}, settings={"batch_size": 1}),
        Stage(name="two", max_epochs=1),
    ]
    optimize(make_model(), make_task(corpus, validation=False), plan[:1], tmp_path, **QUIET)
    task = make_task(corpus, validation=False)  # as another process would make it
    optimize(make_model(), task, plan, tmp_path, **QUIET)
    assert task.batch_size == 1
    assert task.losses == {"visual": 1.0}


def test_a_folder_belongs_to_one_plan(corpus, trained):
    changed = [PLAN[0].model_copy(update={"learning_rate": 0.5}), *PLAN[1:]]
    with pytest.raises(ValueError, match="started with other learning_rate"):
        optimize(make_model(), make_task(corpus), changed, trained[1], **QUIET)
