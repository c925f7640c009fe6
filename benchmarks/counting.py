"""Who is to say how many speak at a time: the first pass, the network, or both, by what is seen.

    python benchmarks/counting.py DATA WORK [--corpus CORPUS] [--pipeline hmsanet]
                                  [--into benchmarks/results]

On conversations for development (``recipes/simulated/held_aside.py``, kept in WORK) and, with
CORPUS, which ``recipes/simulated/corpus.py`` made, on some whose mouths are real (the network was
trained on these: there are no others); the parameters of the pipeline were chosen on both. And on
the recordings of ``real_recordings.py``, which nothing was chosen on. Writes ``counting.json``:
error rates by data and by parameters, and on how many files they are worse than those of sound
alone by more than half a point. First passes and what the network says are shared by all
parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from real_recordings import ami, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyannote_av.clustering.identities import build_identities
from pyannote_av.data.crop_store import CropStore
from recipes.simulated.corpus import PARTS
from recipes.simulated.held_aside import load, read, simulate

#: of the pipeline that ships, if nothing else is said
COUNTING: dict[str, dict] = {
    "first pass": {"counting": "first_pass"},
    "network": {"counting": "network"},
    "no faces join voices": {"join_similarity": 1.0},
    **{
        f"prior {prior}, onset {onset}": {"prior": prior, "onset": onset}
        for prior in (0.0, 0.5)
        for onset in (0.5, 0.7, 0.85)
    },
    **{f"onset_unheard {least}": {"onset_unheard": least} for least in (0.5, 0.95)},
}
#: parts of the corpus with real mouths, and files of each
REAL, FILES = tuple(part.name for part in PARTS if part.real), 4


def sources(given: argparse.Namespace) -> Iterator[tuple]:
    """Name, pipeline and files of all data."""
    from pyannote_av import Pipeline

    store = simulate(given.data, given.work, "development", 40)
    yield "simulated, development", load(given.pipeline, store), of(store, store.uris)
    if given.corpus is not None:
        for part in REAL:
            store = CropStore(given.corpus / "parts" / part)
            uris = store.uris[:FILES]
            build_identities(store, uris=uris, interval=1e9, progress=True)
            yield "simulated, real mouths", load(given.pipeline, store), of(store, uris)
    pipeline = Pipeline.from_pretrained(given.pipeline)
    yield "AMI", pipeline, ami(given.data / "ami")
    yield "table", pipeline, table(given.data / "clips" / "several")


def of(store: CropStore, uris: Iterable[str]) -> Iterator[dict]:
    """Files of a store."""
    return (read(store, uri) for uri in uris)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--corpus", type=Path, help="for conversations with real mouths")
    parser.add_argument("--pipeline", default="hmsanet", help="name or folder")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    warnings.simplefilter("ignore")
    import torch

    from pyannote_av.core.atomic import write_text
    from pyannote_av.evaluation.diarization import evaluate

    torch.set_num_threads(1)
    known: dict[str, tuple] = {}
    for name, pipeline, files in sources(given):
        usual = pipeline.parameters(instantiated=True)
        references, maps, turns = known.setdefault(
            name, ({}, {}, {how: {} for how in ("sound alone", *COUNTING)})
        )
        for file in files:
            uri, file = file["uri"], dict(file)
            references[uri], maps[uri] = file.pop("annotation"), file.pop("annotated")
            turns["sound alone"][uri] = pipeline.first_pass.audio(dict(file)).speaker_diarization
            pipeline.training = True  # a file keeps what does not depend on parameters
            for how, values in COUNTING.items():
                turns[how][uri] = pipeline.instantiate({**usual, **values})(file)
            pipeline.training = False
            print(f"{name}: {uri}", flush=True)
        pipeline.instantiate(usual)  # the next data may have the same pipeline
    found: dict[str, dict] = {}
    for name, (references, maps, turns) in known.items():
        results = {how: evaluate(references, said, maps) for how, said in turns.items()}
        alone = results["sound alone"].per_file()
        found[name] = {}
        for how, result in results.items():
            scores, total = result.per_file(), result["automatic", "Full"]
            found[name][how] = {
                part: round(total.figures()[part], 2)
                for part in ("der", "false_alarm", "missed", "confusion")
            } | {"worse": sum(scores[uri].der - alone[uri].der > 0.005 for uri in scores)}
            print(f"{name}, {how}: {found[name][how]}")
    command = "python benchmarks/counting.py DATA WORK" + " --corpus CORPUS" * bool(given.corpus)
    content = {"command": command, "DER (%)": found}
    write_text(given.into / "counting.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
