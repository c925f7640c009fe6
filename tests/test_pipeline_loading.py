"""``Pipeline.from_pretrained`` and the weights registry: names, errors, trust."""

import pickle
import subprocess
import sys
import time

import pytest
import torch

from pyannote_av import Model, Pipeline
from pyannote_av.core import weights
from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.model import UntrustedError
from pyannote_av.pretrained import shipped


def test_shipped_names():
    assert {"audio", "late_fusion"} <= set(shipped())


@pytest.mark.parametrize("name", ["nothing", "./nothing", "a/b/c", "nothing.yaml"])
def test_missing_path_is_not_a_hub_error(name):
    with pytest.raises(FileNotFoundError, match=r"no such|neither a shipped pipeline nor"):
        Pipeline.from_pretrained(name)


def test_offline_answers_at_once():
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="out of reach"):
        Pipeline.from_pretrained("nobody/nothing")
    assert time.monotonic() - start < 10


def test_foreign_class_needs_trust(tmp_path):
    (tmp_path / "config.yaml").write_text("pipeline: {name: subprocess.Popen, params: {}}")
    with pytest.raises(UntrustedError, match=r"subprocess\.Popen"):
        Pipeline.from_pretrained(tmp_path)


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_checkpoint_is_not_executed(tmp_path):
    torch.save({"state_dict": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UntrustedError, match="trust=True"):
        Model.from_pretrained(tmp_path)
    (tmp_path / "bad.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"bad\.bin"):
        Model.from_pretrained(tmp_path / "bad.bin")


def test_weights_are_found_in_folders_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(tmp_path))
    assert weights.find("lr-asd") is None
    with pytest.raises(weights.MissingWeightsError, match="download lr-asd"):
        weights.require("lr-asd")
    path = tmp_path / "lr_asd_finetuning_TalkSet.model"
    path.write_bytes(b"x")
    assert weights.find("lr-asd") == weights.require("lr-asd") == path
    with pytest.raises(ValueError, match=r"TalkSet\.model has sha256 2d711642.*it is not 'lr-asd'"):
        weights.verified("lr-asd")


@pytest.mark.parametrize("name", ["yunet", "sface", "segmentation-3.0", "campplus"])
def test_weights_in_installed_packages_are_those_of_the_registry(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path))
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", "")
    assert weights.verified(name).as_posix().endswith("/".join(weights.REGISTRY[name].package))


def test_download_keeps_nothing_that_fails_its_checksum(tmp_path, monkeypatch):
    served = tmp_path / "served"
    served.write_bytes(b"not the weights")
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYANNOTE_AV_WEIGHTS", raising=False)
    entry = weights.Weights(("w.bin",), "0" * 64, "MIT", "test", url=served.as_uri())
    monkeypatch.setitem(weights.REGISTRY, "test", entry)
    with pytest.raises(ValueError, match="sha256"):
        weights.download("test")
    assert list((tmp_path / "cache" / "weights").iterdir()) == []
    good = weights.Weights(("w.bin",), sha256_of(served), "MIT", "test", served.as_uri())
    monkeypatch.setitem(weights.REGISTRY, "test", good)
    assert weights.download("test").read_bytes() == b"not the weights"


def test_import_loads_no_torch():
    code = "import sys, pyannote_av, pyannote_av.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
