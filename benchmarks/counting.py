"""Who is to say how many speak at a time: the first pass, the network, or both, by what is seen.

    python benchmarks/counting.py DATA WORK [--pipeline hmsanet] [--into benchmarks/results]

On conversations for development (``recipes/simulated/held_aside.py``, kept in WORK), which the
parameters of the pipeline were chosen on, and on the recordings of ``real_recordings.py``. Writes
``counting.json``: error rates by data and by parameters. First passes and what the network says are
shared by all parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from real_recordings import ami, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.simulated.held_aside import load, read, simulate

#: of the pipeline that ships, if nothing else is said
COUNTING = {
    "first pass": {"counting": "first_pass"},
    "seen": {"counting": "seen"},
    "seen, prior 0": {"counting": "seen", "prior": 0.0},
    "seen, prior 0, onset 0.7": {"counting": "seen", "prior": 0.0, "onset": 0.7},
    "seen, prior 0, onset 0.5": {"counting": "seen", "prior": 0.0, "onset": 0.5},
    "network, onset 0.5": {"counting": "network", "onset": 0.5},
    "network, onset 0.5, prior 0": {"counting": "network", "onset": 0.5, "prior": 0.0},
}


def sources(given: argparse.Namespace) -> Iterator[tuple]:
    """Name, pipeline and files of all data."""
    from pyannote_av import Pipeline

    store = simulate(given.data, given.work, "development", 40)
    files = (read(store, uri) for uri in store.uris)
    yield "simulated, development", load(given.pipeline, store), files
    pipeline = Pipeline.from_pretrained(given.pipeline)
    yield "AMI", pipeline, ami(given.data / "ami")
    yield "table", pipeline, table(given.data / "clips" / "several")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pipeline", default="hmsanet", help="name or folder")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    warnings.simplefilter("ignore")
    import torch

    from pyannote_av.core.atomic import write_text
    from pyannote_av.evaluation.diarization import evaluate

    torch.set_num_threads(1)
    found: dict[str, dict] = {}
    for name, pipeline, files in sources(given):
        pipeline.training = True  # a file keeps what does not depend on parameters
        usual = pipeline.parameters(instantiated=True)
        references, maps = {}, {}
        turns: dict[str, dict] = {how: {} for how in COUNTING}
        for file in files:
            uri, file = file["uri"], dict(file)
            references[uri], maps[uri] = file.pop("annotation"), file.pop("annotated")
            for how, values in COUNTING.items():
                turns[how][uri] = pipeline.instantiate({**usual, **values})(file)
        pipeline.instantiate(usual)  # the next data may have the same pipeline
        found[name] = {
            how: evaluate(references, said, maps)["automatic", "Full"].figures()
            for how, said in turns.items()
        }
        for how, figures in found[name].items():
            print(f"{name}, {how}: {figures['der']:.2f} %", flush=True)
    write_text(given.into / "counting.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
