"""How fast the store of crops feeds training, against the training step that eats it.

Writes a small corpus of drawn talkers (tests/talkers.py), builds its store, and times, one right
after the other on the same batches: reading a batch with all augmentation, in one process, and a
forward and backward pass of LR-ASD over it. Both use one thread.

    python benchmarks/crop_store.py --json benchmarks/crop_store.json
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from talkers import make_protocol, make_talkers

from pyannote_av.data.build import build_store
from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.tasks import ActiveSpeakerDetection


def measure(folder: Path, frames_per_batch: int, rounds: int) -> dict:
    """Times of both, in seconds, for as many rounds; and of building the store."""
    files = [make_talkers(folder, f"talk{i}", duration=4.0, seed=i) for i in range(8)]
    start = time.perf_counter()
    report = build_store(folder / "store", files)
    build = time.perf_counter() - start
    assert not report.failed, report.failed

    task = ActiveSpeakerDetection(
        make_protocol(files), report.store, frames_per_batch=frames_per_batch, missing_faces=0.5
    )
    task.prepare_data()
    task.setup()
    torch.manual_seed(0)
    task.model = model = LRASD(task=task).train()
    model.log = lambda *args, **kwargs: None
    batches = task.batches("train")
    reading, plain, training = [], [], []
    for k in range(rounds + 1):
        index = k % len(batches)
        start = time.perf_counter()
        batch = batches[(k, index, True)]
        read = time.perf_counter()
        task.training_step(batch, 0)["loss"].backward()
        stepped = time.perf_counter()
        model.zero_grad()
        if k:  # the first round warms up
            reading.append(read - start)
            training.append(stepped - read)
    task.audio_mixing = task.missing_faces = 0.0
    task.face_transforms = False
    unchanged = task.batches("train")
    for k in range(rounds):
        start = time.perf_counter()
        unchanged[k % len(batches)]
        plain.append(time.perf_counter() - start)
    pictures = int(np.prod(batch["y"].shape))
    return {
        "tracks_per_batch": len(batch["y"]),
        "pictures_per_batch": pictures,
        "read_and_augment_s": median(reading),
        "read_s": median(plain),
        "lr_asd_step_s": median(training),
        "pictures_read_per_s": pictures / median(reading),
        "tracks_read_per_s": len(batch["y"]) / median(reading),
        "ratio": median(t / r for t, r in zip(training, reading, strict=True)),
        "worst_ratio": min(t / r for t, r in zip(training, reading, strict=True)),
        "rounds": rounds,
        "build_video_s_per_s": 4.0 * len(files) / build,
        "store_bytes_per_picture": sum(p.stat().st_size for p in (folder / "store").rglob("*.npy"))
        / (8 * 2 * 100),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames-per-batch", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.frames_per_batch, arguments.rounds)
    result |= {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    for name, value in result.items():
        print(f"{name:26} {value:.4g}" if isinstance(value, float) else f"{name:26} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
