"""The list of networks, and the weights that are loaded into them."""

import pytest
import torch

from pyannote_av import Model
from pyannote_av.core.model import AVModel, read_safetensors
from pyannote_av.core.renaming import current_names
from pyannote_av.core.trust import CLASSES
from pyannote_av.models.registry import NETWORKS, get_network, published, trainable
from pyannote_av.pretrained import FOLDER
from pyannote_av.training.config import TASKS

WEIGHTS = sorted(FOLDER.rglob("*.safetensors"))


def test_the_registry_and_what_files_may_name_agree():
    allowed = {
        (module, name)
        for module, names in CLASSES["model"].items()
        if module.startswith("pyannote_av.")
        for name in names
    }
    assert {(one.module, name) for name, one in NETWORKS.items()} == allowed


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_where_the_registry_says(name):
    network = get_network(name)
    assert issubclass(network, AVModel) or name == "CAMPPlus"
    assert (network.__module__, network.__qualname__) == (NETWORKS[name].module, name)
    assert NETWORKS[name].task in (*TASKS, None)


def test_networks_are_found_by_either_name():
    assert get_network("lr-asd") is get_network("LRASD")
    assert set(published("ActiveSpeakerDetection")) == {"light-asd", "loconet", "lr-asd", "talknet"}
    assert set(published()) - set(published("ActiveSpeakerDetection")) == {"avr-net"}
    assert "HMSANet" in trainable()
    assert "CAMPPlus" not in trainable()
    with pytest.raises(ValueError, match="unknown network 'nobody': choose from AVRNet"):
        get_network("nobody")


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: str(path.relative_to(FOLDER).parent))
def test_shipped_weights_are_loaded_bit_by_bit(path):
    state = read_safetensors(path)[0]
    model = Model.from_pretrained(path)
    found = model.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name
    assert not set(getattr(model, "FORMER_HPARAMS", {})) & set(model.hparams)


def test_former_names():
    former = {"old": "new"}
    assert current_names({"a": 1, "old": 2}, former) == {"a": 1, "new": 2}
    with pytest.warns(DeprecationWarning, match="here: old is now new"):
        assert current_names({"old": 2}, former, "here") == {"new": 2}
    with pytest.raises(ValueError, match="old is the former name of new"):
        current_names({"old": 1, "new": 2}, former)
