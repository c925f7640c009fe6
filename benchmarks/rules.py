"""What each rule that guards the sound brings: mean DER, and files that get worse than sound alone.

Examples:
    python -m benchmarks rules DATA WORK
    python -m benchmarks rules DATA WORK --files 300

The conversations are the development part of ``recipes/simulated/held_aside.py``, made from DATA
and kept in WORK. Face tracks are given. Each row leaves out one rule of the shipped pipeline:

- ``gain``: changes need a minimum of evidence (``fusion/guard.py``)
- ``speech``: a speaker who is not visible needs some seconds of speech in the sound to take the
  turns of another one (``fusion/decoding.py``)
- ``agreement``: a face and a voice are joined only if both speak at the same times
  (``fusion/targets.py``)
- ``share``: the network helps to decide how many of the visible people speak
  (``pipelines/target_speaker_diarization.py``)

Writes rules.json: mean DER of the files; the number of files that are worse than sound alone by
more than half a point and by more than two; and the largest difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module

from benchmarks._harm import harm
from benchmarks._runner import Results, add, table

#: module, constant, and its value without the rule
RULES = {
    "gain": ("pyannote_av.fusion.guard", "MIN_GAIN", float("-inf")),
    "speech": ("pyannote_av.fusion.decoding", "_MIN_SPEECH", 0.0),
    "agreement": ("pyannote_av.fusion.targets", "_AGREEMENT", 0.0),
    "share": ("pyannote_av.pipelines.target_speaker_diarization", "_COUNT_SHARE", 0.0),
}
#: rules that are left out, by variant
VARIANTS = {
    "all rules": (),
    **{f"without {name}": (name,) for name in RULES},
    "no rules": tuple(RULES),
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data", "work", "--pipeline")
    parser.add_argument("--files", type=int, default=100, help="conversations (default: 100)")


@contextmanager
def without(*rules: str) -> Iterator[None]:
    """Leave out rules."""
    with ExitStack() as stack:
        for rule in rules:
            name, constant, value = RULES[rule]
            module = import_module(name)
            stack.callback(setattr, module, constant, getattr(module, constant))
            setattr(module, constant, value)
        yield


def run(given: argparse.Namespace, results: Results) -> None:
    """Diarize all conversations with all variants."""
    from rich.progress import track

    from pyannote_av.evaluation.diarization import evaluate
    from recipes.simulated.held_aside import load, read, simulate

    store = simulate(given.data, given.work, "development", given.files)
    pipeline = load(given.pipeline, store)
    ders: dict[str, list[float]] = {name: [] for name in ("sound alone", *VARIANTS)}
    for uri in track(store.uris, description="rules"):
        file = read(store, uri)
        reference, whole = file.pop("annotation"), file.pop("annotated")
        prepared = pipeline.prepare_one(file)
        pipeline.training = True  # variants share the steps that do not depend on rules
        turns = {"sound alone": pipeline.first_pass.audio.diarize(prepared).speaker_diarization}
        for name, rules in VARIANTS.items():
            with without(*rules):
                turns[name] = pipeline.apply(prepared)
        pipeline.training = False
        for name, found in turns.items():
            scored = evaluate({uri: reference}, {uri: found}, {uri: whole})["automatic", "Full"]
            ders[name].append(100 * scored.der)
    alone = ders["sound alone"]
    rows = [{"variant": name, **harm(found, alone)} for name, found in ders.items()]
    print(table(rows))
    results.write("rules", {"files": len(alone), "variants": rows})
