"""Ways to decide how many people speak at a time: DER of the first pass, the network, or both.

Example:
    python -m benchmarks counting DATA WORK --corpus CORPUS

Hyper-parameters of the target speaker pipeline are compared on development conversations
(``recipes/simulated/held_aside.py``, kept in WORK) and, with ``--corpus``, on conversations with
real mouths. The network was trained on the latter, because there are no others. The parameters of
the pipeline were chosen on both. DATA also contains the recordings of ``real_recordings``, on which
nothing was chosen.

Writes counting.json: DER, its parts, and the number of files that are worse than the audio-only
result by more than half a point. All variants share the first pass and the posteriors of the
network.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks._data import ami, existing, meeting_table
from benchmarks._runner import Results, add, table

#: changes of the hyper-parameters, by name
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
#: files of each part of the corpus with real mouths
REAL_FILES = 4


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data", "work", "--pipeline", "--limit")
    parser.add_argument("--corpus", type=Path, metavar="CORPUS", help="add those with real mouths")
    parser.add_argument("--files", type=int, default=40, help="development conversations")


def sources(given: argparse.Namespace) -> Iterator[tuple]:
    """Name, pipeline and files of each data set."""
    from pyannote_av import Pipeline
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.data.face_embeddings import build_face_embeddings
    from recipes.simulated.corpus import PARTS
    from recipes.simulated.held_aside import load, read, simulate

    def of(store: CropStore, uris: list[str]) -> Iterator[dict]:
        return (read(store, uri) for uri in uris[: given.limit])

    store = simulate(given.data, given.work, "development", given.files)
    yield "simulated, development", load(given.pipeline, store), of(store, store.uris)
    for part in PARTS if given.corpus is not None else ():
        if part.real:
            store = CropStore(existing(given.corpus / "parts" / part.name, "part of the corpus"))
            uris = store.uris[:REAL_FILES]
            build_face_embeddings(store, uris=uris, interval=1e9, progress=True)
            yield "simulated, real mouths", load(given.pipeline, store), of(store, uris)
    pipeline = Pipeline.from_pretrained(given.pipeline)
    yield "AMI", pipeline, iter(ami(given.data, given.limit))
    yield "table", pipeline, iter(meeting_table(given.data))


def run(given: argparse.Namespace, results: Results) -> None:
    """Diarize all data with all variants."""
    import torch

    from pyannote_av.evaluation.diarization import evaluate

    torch.set_num_threads(1)
    known: dict[str, tuple] = {}
    for name, pipeline, files in sources(given):
        usual = pipeline.parameters(instantiated=True)
        references, maps, turns = known.setdefault(
            name, ({}, {}, {how: {} for how in ("audio only", *COUNTING)})
        )
        for file in files:
            uri, file = file["uri"], dict(file)
            references[uri], maps[uri] = file.pop("annotation"), file.pop("annotated")
            turns["audio only"][uri] = pipeline.first_pass.audio(dict(file)).speaker_diarization
            pipeline.training = True  # so that variants share what does not depend on parameters
            for how, values in COUNTING.items():
                turns[how][uri] = pipeline.instantiate({**usual, **values})(file)
            pipeline.training = False
            print(f"{name}: {uri}", flush=True)
        pipeline.instantiate(usual)  # the next data set may have the same pipeline
    found: dict[str, dict] = {}
    for name, (references, maps, turns) in known.items():
        scored = {how: evaluate(references, one, maps) for how, one in turns.items()}
        alone = scored["audio only"].per_file()
        found[name] = {}
        for how, result in scored.items():
            scores, figures = result.per_file(), result["automatic", "Full"].figures()
            found[name][how] = {
                part: round(figures[part], 2)
                for part in ("der", "false_alarm", "missed", "confusion")
            } | {"worse": sum(scores[uri].der - alone[uri].der > 0.005 for uri in scores)}
        print(f"\n{name}\n{table([{'variant': how, **one} for how, one in found[name].items()])}")
    results.write("counting", {"DER (%)": found})
