"""What each source of evidence contributes to the decision who speaks, and how often it does harm.

Examples:
    python -m benchmarks evidence DATA WORK
    python -m benchmarks evidence DATA WORK --late -0.12 --variants hmsanet

Conversations of one minute are composed of the real talkers in DATA/clips/talkers, in all layouts,
and kept in WORK. With ``--talkers train``, they are development material: the weights of the
pipeline were chosen on them, and the networks were trained on the same people. Talkers that are
``aside`` are not for training. Each variant changes weights of the decision; see
``pyannote_av/fusion/decoding.py``.

With ``--late``, the sound of all conversations is later than the picture, or earlier.

Writes evidence.json, or evidence_TALKERS.json, with the shift in its name: mean DER of the files,
by layout, and the confusion of speakers in it; harm: the number of files that are worse than sound
alone by more than half a point, and the largest difference; and the DER of each file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._data import existing
from benchmarks._harm import harm
from benchmarks._runner import Results, add, table
from recipes.simulated.corpus import links, talkers

if TYPE_CHECKING:
    from pyannote.core import Annotation

LAYOUTS = ("gallery", "meeting", "film")
#: of the first layout; with the same seed, people would say the same in all layouts
SEED = 900
#: talkers by name of the choice; see :func:`recipes.simulated.corpus.talkers`
TALKERS = {"all": None, "train": False, "aside": True}
#: changes of hyper-parameters, by name; those of the first pass apply to both passes
VARIANTS: dict[str, dict] = {
    "late fusion": {"network_weight": None},
    "hmsanet": {},
    "without posteriors of the sound": {"sound_weight": 0.0},
    "without turns of the sound": {"turn_weight": 0.0},
    "without speaking scores": {"score_weight": 0.0},
    "without number of speakers": {"count_weight": 0.0},
    **{f"count_weight {w:g}": {"count_weight": w} for w in (1.0, 4.0)},
    **{f"score_weight {w:g}": {"score_weight": w} for w in (0.35, 1.4)},
    **{f"network_weight {w:g}": {"network_weight": w} for w in (0.35, 1.4)},
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data", "work", "--pipeline")
    parser.add_argument("--files", type=int, default=8, help="conversations of each layout")
    parser.add_argument("--minutes", type=float, default=1.0, help="duration of each")
    parser.add_argument(
        "--talkers", choices=TALKERS, default="all", help="whose clips (default: %(default)s)"
    )
    parser.add_argument(
        "--late", type=float, default=0.0, metavar="SECONDS", help="how late sound is (default: 0)"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        metavar="NAME",
        help=f"systems, of {', '.join(VARIANTS)} (default: all)",
    )


def composed(data: Path, work: Path, files: int, minutes: float, whose: str) -> list[Path]:
    """Videos of conversations of real talkers."""
    work, noises = work / whose, existing(data / "noise")
    clips = work / "clips"
    for name, paths in talkers(existing(data), TALKERS[whose]).items():
        links(paths, clips / name)
    program, videos = Path(sys.executable).with_name("pyannote-av"), []
    for number, layout in enumerate(LAYOUTS):
        into = work / layout
        options = {"into": into, "clips": clips, "noises": noises, "layout": layout}
        options |= {"files": files, "minutes": minutes, "seed": SEED + number, "subset": "test"}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        subprocess.run([program, "simulate", *words], check=True)
        videos += sorted((into / "video").glob("*.mp4"))[:files]
    return videos


def diarize(pipeline, file: Mapping, changes: dict):
    """Turns of a pipeline with changed hyper-parameters; of its first pass without network."""
    values, changes = pipeline.default_parameters(), dict(changes)
    no_network = "network_weight" in changes and changes["network_weight"] is None
    if no_network:
        del changes["network_weight"]
    for name, value in changes.items():
        (values["first_pass"] if name in values["first_pass"] else values)[name] = value
    pipeline.instantiate(values)
    if no_network:
        model = pipeline.segmentation.model
        return pipeline.first_pass.fuse(file, visual_model=model).kept.speaker_diarization
    return pipeline.apply(file)


def with_late_sound(
    file: Mapping, reference: Annotation, seconds: float
) -> tuple[dict, Annotation]:
    """Move sound and turns of a file to a later time (or an earlier one), and not its picture."""
    import torch
    from pyannote.core import Annotation, Segment

    rate, samples = file["sample_rate"], file["waveform"].shape[1]
    shift = round(seconds * rate)
    moved = torch.zeros_like(file["waveform"])
    moved[:, max(shift, 0) : samples + shift] = file["waveform"][
        :, max(-shift, 0) : samples - shift
    ]
    turns, end = Annotation(uri=reference.uri), samples / rate
    for segment, track, label in reference.itertracks(yield_label=True):
        later = Segment(max(0.0, segment.start + seconds), min(end, segment.end + seconds))
        if later:
            turns[later, track] = label
    return {**file, "waveform": moved}, turns


def run(given: argparse.Namespace, results: Results) -> None:
    """Diarize all conversations with all variants."""
    import torch
    from pyannote.core import Segment, Timeline

    from pyannote_av import Pipeline
    from pyannote_av.evaluation.diarization import evaluate
    from pyannote_av.formats.annotations import read_rttm

    torch.set_num_threads(1)
    pipeline = Pipeline.from_pretrained(given.pipeline)
    turns: dict[str, dict] = {name: {} for name in ("sound alone", *given.variants)}
    references, maps = {}, {}
    for video in composed(given.data, given.work, given.files, given.minutes, given.talkers):
        uri = f"{video.parent.parent.name}-{video.stem}"
        rttm = video.parent.parent / "rttm" / f"{video.stem}.rttm"
        said = read_rttm(rttm)[video.stem]
        prepared = dict(pipeline.prepare_one(str(video)))
        late, references[uri] = with_late_sound(prepared, said, given.late)
        pipeline.training = True  # variants share the steps that do not depend on their weights
        file = pipeline.prepare_one(late)
        maps[uri] = Timeline([Segment(0, file["waveform"].shape[1] / file["sample_rate"])])
        turns["sound alone"][uri] = pipeline.first_pass.audio.diarize(file).speaker_diarization
        for name in given.variants:
            turns[name][uri] = diarize(pipeline, file, VARIANTS[name])
        pipeline.training = False
        reference, whole = {uri: references[uri]}, {uri: maps[uri]}
        mine = (evaluate(reference, {uri: one[uri]}, whole) for one in turns.values())
        print(uri, *(f"{100 * one.per_file()[uri].der:.1f}" for one in mine), flush=True)
    scored = {name: evaluate(references, one, maps).per_file() for name, one in turns.items()}
    alone, rows = scored["sound alone"], []
    for name, files in scored.items():
        ders = ([100 * one[uri].der for uri in references] for one in (files, alone))
        row: dict = {"variant": name, **harm(*ders)}
        for layout in LAYOUTS:
            some = [one for uri, one in files.items() if uri.startswith(layout)]
            row[layout] = mean(one.der for one in some)
            row[f"{layout}, confusion"] = mean(one.rate(one.confusion) for one in some)
        rows.append({key: round(v, 2) if isinstance(v, float) else v for key, v in row.items()})
    print(table(rows))
    name = "evidence" if given.talkers == "all" else f"evidence_{given.talkers}"
    name += f"_late_{given.late:g}" if given.late else ""
    by_file = {
        uri: {name: round(100 * files[uri].der, 2) for name, files in scored.items()}
        for uri in references
    }
    content = {"files": len(references), "variants": rows, "DER by file": by_file}
    results.write(name, content)


def mean(rates) -> float:
    """Mean of rates, in percent; 0 if there are none."""
    rates = list(rates)
    return 100 * sum(rates) / max(1, len(rates))
