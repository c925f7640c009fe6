"""Late fusion on simulated conversations: does every visible speaker get their face, without harm?

    python benchmarks/fusion_tuning.py DATA_FOLDER WORK_FOLDER [--scorer auto] [--found] [--files]
                                       [--set NAME=VALUE ...] [--json FILE]

DATA_FOLDER holds ``speech/librispeech`` (``SPEAKER-CHAPTER-UTTERANCE.flac``), ``portraits`` and
perhaps ``weights``. One-minute conversations with the voices of the first 150 speakers are for
tuning; those of the last 60 are held aside. Errors on some of the latter were looked at before
thresholds were given their bound, so there are fresh ones too, made when all had been decided. All
are made in WORK_FOLDER, where voices and speaking scores are kept as well: trying other
hyper-parameters (``--set``) then takes seconds. ``--set rise=99 minimum_evidence=1.5`` is late
fusion as it was before faces were judged by their own silence.

Face tracks are given unless ``--found``. Speakers are visible when they speak for a second in
sight; they have their own face when one of their tracks bears the label that they are matched with.
A wrong face is a track that bears another label than its owner's. Mixed ones are wrong because the
audio pipeline is: the owner does speak in turns of that label, which are mostly somebody else's.
Silent ones bear a label and say nothing in the whole of the track.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from clips import look_for_weights, table

if TYPE_CHECKING:
    from pyannote.core import Annotation

    from pyannote_av import FaceTracks
    from pyannote_av.core.output import AVDiarizeOutput

#: subset and layout to number of files and seed
SETS = {
    ("tuning", "film"): (10, 11),
    ("tuning", "meeting"): (6, 12),
    ("tuning", "gallery"): (4, 13),
    ("held aside", "film"): (10, 21),
    ("held aside", "meeting"): (5, 22),
    ("held aside", "gallery"): (5, 23),
    ("fresh", "film"): (10, 31),
    ("fresh", "meeting"): (5, 32),
    ("fresh", "gallery"): (5, 33),
}
#: which speakers, of all in the order of their numbers
SPEAKERS = {"tuning": slice(150), "held aside": slice(-60, None), "fresh": slice(-60, None)}
#: seconds of speech in sight that make a speaker visible
VISIBLE = 1.0
#: seconds of speech without which a track is one of somebody silent
SAID = 0.2

#: heading of the table to key of a row
COLUMNS = {
    "set": "set",
    "files": "files",
    "audio DER %": "audio_der",
    "fusion DER %": "fusion_der",
    "worst file": "worst",
    "best file": "best",
    "own face": "own_face_share",
    "right tracks": "right_tracks",
    "wrong": "wrong_tracks",
    "mixed": "mixed_tracks",
    "silent": "silent_tracks",
}
PER_FILE = {
    "file": "set",
    "audio DER %": "audio_der",
    "fusion DER %": "fusion_der",
    "visible": "visible",
    "own face": "own_face",
    "tracks": "tracks",
    "right": "right_tracks",
    "wrong": "wrong_tracks",
    "mixed": "mixed_tracks",
    "silent": "silent_tracks",
}
TRACKS = ("right_tracks", "wrong_tracks", "mixed_tracks", "silent_tracks")
SUMS = ("reference_seconds", "audio_error_seconds", "fusion_error_seconds", "visible", "own_face")
SUMS += TRACKS


def make_files(data: Path, work: Path, subset: str, layout: str) -> list[dict]:
    """Simulated files of one subset and layout, as a protocol gives them."""
    from pyannote.database.util import load_rttm, load_uem

    from pyannote_av.simulation.conversation import Cast, Options
    from pyannote_av.simulation.faces import find_portraits
    from pyannote_av.simulation.files import simulate_files
    from pyannote_av.simulation.scene import SceneOptions
    from pyannote_av.simulation.speech import SpeechLibrary
    from pyannote_av.simulation.statistics import ConversationStatistics

    count, seed = SETS[subset, layout]
    folder = work / f"{subset.replace(' ', '_')}_{layout}"
    if not (folder / "database.yml").is_file():
        cast = Cast(
            ConversationStatistics.read("ava_avd" if layout == "film" else "ami"),
            SpeechLibrary(links(data, work, subset)),
            find_portraits(data / "portraits"),
        )
        options = Options(scene=SceneOptions(layout=layout))
        simulate_files(cast, folder, count, 60.0, options, seed, subset="test", progress=True)
    files = []
    for video in sorted((folder / "video").glob("*.mp4")):
        uri = video.stem
        files.append(
            {
                "uri": uri,
                "video": str(video),
                "face_tracks": folder / "tracks" / f"{uri}.npz",
                "annotation": load_rttm(folder / "rttm" / f"{uri}.rttm")[uri],
                "annotated": load_uem(folder / "uem" / f"{uri}.uem")[uri],
                "layout": layout,
            }
        )
    return files


def links(data: Path, work: Path, subset: str) -> Path:
    """Folder of links to the speech of the speakers of one subset."""
    utterances: dict[int, list[Path]] = {}
    for path in sorted((data / "speech" / "librispeech").glob("*.flac")):
        utterances.setdefault(int(path.name.split("-")[0]), []).append(path)
    folder = work / f"speech_{subset.replace(' ', '_')}"
    folder.mkdir(parents=True, exist_ok=True)
    for speaker in sorted(utterances)[SPEAKERS[subset]]:
        for path in utterances[speaker]:
            if not (folder / path.name).exists():
                (folder / path.name).symlink_to(path.resolve())
    return folder


@dataclass
class SpeakingScores:
    """What the branches say of one file, before they are fused."""

    file: dict
    audio: AVDiarizeOutput
    tracks: FaceTracks


def owners_of(found: FaceTracks, truth: FaceTracks) -> dict[int, str]:
    """Whose face each track shows: the true one that its boxes are nearest to, most often."""
    index = np.round(truth.time * 25).astype(int)
    centres = (truth.box[:, :2] + truth.box[:, 2:]) / 2
    owners = {}
    for track in found.tracks:
        one, votes = found.of(track), Counter()
        for time, box in zip(one.time, one.box, strict=True):
            rows = np.flatnonzero(index == round(time * 25))
            if not len(rows):
                continue
            away = np.abs(centres[rows] - (box[:2] + box[2:]) / 2).max(axis=1)
            if away.min() < (box[2:] - box[:2]).min() / 2:
                votes[truth.speaker[int(truth.track[rows[away.argmin()]])]] += 1
        if votes:
            owners[track] = votes.most_common(1)[0][0]
    return owners


def listen(files: list[dict], work: Path, scorer: str, found: bool) -> list[SpeakingScores]:
    """First pass over files, which is kept."""
    from pyannote_av import Pipeline
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection

    audio = Pipeline.from_pretrained("audio")
    active_speaker = ActiveSpeakerDetection(scorer=scorer)
    heard = []
    for file in files:
        voices = once(work / "voices" / f"{file['uri']}.pickle", audio, file["video"])
        seen = {"uri": file["uri"], "video": file["video"]}
        seen["speech"] = voices.speaker_diarization.get_timeline().support()
        if not found:
            seen["face_tracks"] = file["face_tracks"]
        kept = work / f"faces_{scorer}_{'found' if found else 'given'}" / f"{file['uri']}.pickle"
        heard.append(SpeakingScores(file, voices, once(kept, active_speaker, seen)))
    return heard


def once(kept: Path, function: Callable, argument):
    """What a function returns, which is kept in a file."""
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(function(argument)))
    return pickle.loads(kept.read_bytes())


def fuse(heard: SpeakingScores, parameters: dict) -> dict:
    """Decide, and count what is right."""
    from pyannote_av.evaluation.diarization import score_file
    from pyannote_av.fusion.persons import find_persons
    from pyannote_av.fusion.speakers import Rules, decide

    options = {name: parameters[name] for name in ("min_face", "identity_threshold")}
    people = find_persons(heard.tracks, offset=0.0, **options)
    rules = Rules(**{field.name: parameters[field.name] for field in fields(Rules)})
    reference, uem = heard.file["annotation"], heard.file["annotated"]
    decided = decide(heard.audio, people, rules, duration=uem.extent().end)
    turns = {"audio": heard.audio.speaker_diarization, "fusion": decided.annotation}
    scores = {name: score_file(reference, one, uem)["Full"] for name, one in turns.items()}
    given = {
        track: label
        for label, persons in decided.faces.items()
        for person in persons
        for track in person.tracks
    }
    return {
        "uri": heard.file["uri"],
        "layout": heard.file["layout"],
        "reference_seconds": scores["fusion"].total,
        **{f"{name}_error_seconds": score.errors for name, score in scores.items()},
        **{f"{name}_der": 100 * score.der for name, score in scores.items()},
        **count_faces(heard, decided.annotation, given),
        "changes": decided.changes,
    }


def count_faces(
    heard: SpeakingScores, decided: Annotation, given: dict[int, str]
) -> dict[str, int]:
    """How many faces are right, where `given` has the label of those tracks that have one."""
    from pyannote.metrics.diarization import DiarizationErrorRate

    from pyannote_av import FaceTracks
    from pyannote_av.fusion.turns import activity_of

    reference = heard.file["annotation"]
    owners = owners_of(heard.tracks, FaceTracks.read(heard.file["face_tracks"]))
    frames = round(25 * heard.file["annotated"].extent().end) + 50

    def seconds(track: int, *heard_as: tuple[Annotation, str | None]) -> float:
        """For which each label is heard in its turns while a track lasts"""
        index = np.round(heard.tracks.of(track).time * 25).astype(int)
        both = np.ones(len(index), bool)
        for turns, label in heard_as:
            both &= activity_of(turns.subset([label]), [label], frames)[index, 0]
        return both.sum() / 25

    said = {track: seconds(track, (reference, owner)) for track, owner in owners.items()}
    in_sight = Counter()
    for track, owner in owners.items():
        in_sight[owner] += said[track]
    visible = {owner for owner, total in in_sight.items() if total >= VISIBLE}
    name = DiarizationErrorRate().optimal_mapping(reference, decided)
    right = {t for t, label in given.items() if label in name and name[label] == owners.get(t)}
    wrong = given.keys() - right
    mixed = [
        track
        for track in wrong & owners.keys()
        if seconds(track, (reference, owners[track]), (decided, given[track])) >= SAID
    ]
    return {
        "visible": len(visible),
        "own_face": len(visible & {owners[track] for track in right}),
        "tracks": len(heard.tracks.tracks),
        "right_tracks": len(right),
        "wrong_tracks": len(wrong),
        "mixed_tracks": len(mixed),
        "silent_tracks": sum(bool(said.get(track, 0.0) < SAID) for track in given),
    }


def summary(rows: list[dict]) -> dict:
    """One row of several."""
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key in SUMS}
    differences = [row["fusion_der"] - row["audio_der"] for row in rows]
    return {
        "files": len(rows),
        **{
            f"{name}_der": 100 * total[f"{name}_error_seconds"] / total["reference_seconds"]
            for name in ("audio", "fusion")
        },
        "worst": max(differences),
        "best": min(differences),
        "own_face_share": f"{total['own_face']}/{total['visible']}",
        **{key: total[key] for key in TRACKS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scorer", default="auto", help="see ActiveSpeakerDetection")
    parser.add_argument("--found", action="store_true", help="find the face tracks, too")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", dest="changes")
    parser.add_argument("--files", action="store_true", help="rows of single files as well")
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    look_for_weights(options.data / "weights")
    warnings.simplefilter("ignore")
    import torch

    from pyannote_av.pipelines.late_fusion import LateFusion

    torch.set_num_threads(1)
    parameters = LateFusion().default_parameters()
    changed = dict(change.split("=") for change in options.changes)
    parameters |= {name: float(value) for name, value in changed.items()}
    rows = {}
    for key in SETS:
        files = make_files(options.data, options.work, *key)
        heard = listen(files, options.work, options.scorer, options.found)
        rows[key] = [fuse(one, parameters) for one in heard]
    groups = [{"set": " ".join(key), **summary(found)} for key, found in rows.items()]
    for subset in SPEAKERS:
        every = [row for (name, _), found in rows.items() if name == subset for row in found]
        groups.append({"set": f"{subset}, all", **summary(every)})
    print("\n".join(table(groups, COLUMNS)))
    each = [{"set": key[0], **row} for key, found in rows.items() for row in found]
    if options.files:
        print("\n".join(["", *table([{**row, "set": row["uri"]} for row in each], PER_FILE)]))
    if options.json:
        content = {
            "scorer": options.scorer,
            "tracks": "found" if options.found else "given",
            "parameters": {k: v for k, v in parameters.items() if isinstance(v, float)},
        }
        content |= {"summary": groups} | ({"files": each} if options.files else {})
        options.json.write_text(json.dumps(rounded(content), indent=1) + "\n")


def rounded(value):
    """Floats to 3 digits, whatever they are in."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
