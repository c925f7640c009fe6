"""Weights of a training in a pipeline, and pipelines that were loaded as folders."""

from pathlib import Path

import pytest
import torch

from pyannote_av import Model, Pipeline
from pyannote_av.pretrained import FOLDER
from pyannote_av.sharing.folders import save_pipeline


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """Output folder of a training: the shipped network with one weight changed."""
    model = Model.from_pretrained(FOLDER / "hmsanet" / "segmentation")
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    return Path(model.save(tmp_path_factory.mktemp("ft")))


def first_weight(pipeline) -> torch.Tensor:
    return next(pipeline.segmentation.model.parameters()).detach()


def test_fine_tuned_weights_in_one_step(tuned, tmp_path):
    plain = Pipeline.from_pretrained("hmsanet")
    pipeline = Pipeline.from_pretrained("hmsanet", segmentation=tuned)
    torch.testing.assert_close(first_weight(pipeline), first_weight(plain) + 1.0)
    assert pipeline.network_weight == plain.network_weight
    pipeline.instantiate({**pipeline.parameters(instantiated=True), "network_weight": 0.9})

    # a folder of its own, with its weights and its hyper-parameters
    again = Pipeline.from_pretrained(save_pipeline(pipeline, tmp_path / "mine"))
    torch.testing.assert_close(first_weight(again), first_weight(pipeline))
    assert again.network_weight == 0.9


def test_arguments_that_a_pipeline_does_not_have(tuned):
    with pytest.raises(TypeError, match=r"has no argument 'segmentatoin': it has segmentation"):
        Pipeline.from_pretrained("hmsanet", segmentatoin=tuned)
    with pytest.raises(FileNotFoundError, match=r"segmentation of .*no such file"):
        Pipeline.from_pretrained("hmsanet", segmentation=tuned / "nothing")


def test_arguments_of_a_base_class():
    pipeline = Pipeline.from_pretrained("similarity", use_faces=False, oracle_vad=True)
    assert pipeline.oracle_vad
    with pytest.raises(TypeError, match=r"no argument 'oracle': it has constrained, .*oracle_vad"):
        Pipeline.from_pretrained("similarity", oracle=True)


def test_a_pipeline_that_was_built_by_hand_has_no_folder(tmp_path):
    from pyannote_av.pipelines.face_tracking import FaceTracking

    with pytest.raises(ValueError, match=r"only a pipeline that Pipeline\.from_pretrained"):
        save_pipeline(FaceTracking(), tmp_path / "mine")
