# %% [markdown]
# # Fine-tune and compare
#
# This notebook simulates a tiny corpus, fine-tunes the shipped HMSA-Net on it for a few steps, and
# compares sound alone with the audio-visual systems, with a test of significance. It takes some
# minutes on a CPU.
#
# **Its figures mean nothing.** The corpus has seconds of speech of two speakers, who are in all
# subsets. For an experiment, use other speakers and faces for each subset, hundreds of files, and
# the corpora of the [recipes](../corpora.md).

# %% [markdown]
# ## Speech
#
# Simulation needs recordings with one speaker each. Here, they are cut from the sample.

# %%
from pathlib import Path

from scipy.io import wavfile

from pyannote_av import Video
from pyannote_av.formats.annotations import read_rttm
from pyannote_av.simulation.sample import make_sample

sample = make_sample("sample")
reference = read_rttm(sample["rttm"])["sample"]
sound = Video().waveform(sample["video"])[0].numpy()
alone = reference.get_timeline().support().extrude(reference.get_overlap())
for i, (turn, _, speaker) in enumerate(reference.crop(alone).itertracks(yield_label=True)):
    if turn.duration > 1:
        path = Path("speech", speaker, f"{i}.wav")
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, 16000, sound[round(16000 * turn.start) : round(16000 * turn.end)])

# %% [markdown]
# ## A corpus
#
# `simulate` writes videos with exact references, and a protocol of pyannote.database. `prepare`
# stores face crops, sound and speaker embeddings, so that training never decodes a video.

# %% [bash]
# simulate="pyannote-av simulate --into corpus --speech speech --speakers 2 --layout gallery"
# $simulate --subset train --files 2 --minutes 0.2
# $simulate --subset development --files 1 --minutes 0.2 --seed 1
# $simulate --subset test --files 3 --minutes 0.2 --seed 2
# pyannote-av prepare Simulated.SpeakerDiarization.Conversations --database corpus/database.yml \
#     --into corpus/store --voices

# %% [markdown]
# ## Fine-tune
#
# A training is one configuration: a YAML file for `pyannote-av train`, or a dictionary. `"hmsanet"`
# is the network that ships with the package. `train` lists the modules that learn; all others are
# frozen. The limits at the end are what makes this a demonstration: leave them out.

# %%
from pyannote_av.training import TrainingConfig, train

config = TrainingConfig.parse(
    {
        "protocol": "Simulated.SpeakerDiarization.Conversations",
        "database": "corpus/database.yml",
        "into": "fine-tuned",
        "task": {
            "name": "TargetSpeakerSegmentation",
            "params": {"store": "corpus/store", "duration": 4.0, "batch_size": 2},
        },
        "model": {"checkpoint": "hmsanet"},
        "stages": [
            {"name": "decoder", "train": ["decoder"], "max_epochs": 2, "learning_rate": 3e-5}
        ],
        "trainer": {
            "accelerator": "cpu",
            "limit_train_batches": 4,
            "limit_val_batches": 2,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "loggers": [],
    }
)
model = train(config)

# %% [markdown]
# The record of the stage has one row of metrics per epoch:

# %%
import json

import pandas as pd

record = json.loads(Path("fine-tuned/01-decoder/stage.json").read_text())
pd.DataFrame(record["history"])

# %% [markdown]
# ## Compare
#
# `segmentation` puts the fine-tuned network into the pipeline that ships with the package. Every
# system diarizes the test files from the sound and the pictures, and finds the faces itself.

# %%
from pyannote_av import Pipeline
from pyannote_av.core.protocols import files_of

files = files_of(config.protocol, ["test"], "corpus/database.yml")["test"]
systems = {
    "audio": Pipeline.from_pretrained("audio"),
    "hmsanet": Pipeline.from_pretrained("hmsanet"),
    "fine-tuned": Pipeline.from_pretrained("hmsanet", segmentation="fine-tuned"),
}
turns = {
    name: {file["uri"]: pipeline(file).speaker_diarization for file in files}
    for name, pipeline in systems.items()
}

# %% [markdown]
# DER under the rules that papers use, and the differences with 95 % intervals and p-values from
# bootstrap and permutation over files, corrected for the number of comparisons. With three files,
# no difference can be significant:

# %%
from pyannote_av.evaluation.diarization_report import evaluate_systems, plot, to_text

references = {file["uri"]: file["annotation"] for file in files}
uem = {file["uri"]: file["annotated"] for file in files}
results, comparisons, _ = evaluate_systems(references, turns, uem)
print(to_text(results, comparisons))

# %%
from IPython.display import Image

plot(results, "errors.png")
Image("errors.png", width=600)

# %% [markdown]
# `pyannote-av push fine-tuned FOLDER` and `save_pipeline(systems["fine-tuned"], FOLDER)` make
# folders that can be [shared](../sharing.md). `pyannote-av optimize` [tunes](../tuning.md) the
# hyper-parameters of a pipeline for new weights.
