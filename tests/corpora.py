"""Miniature corpora with the layout and the formats of the real ones, made on the fly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from media import write_media
from pyannote.core import Annotation, Segment

SIZE = (64, 48)
#: seconds of the files that are short
DURATION = 3.0
TURNS = ((0.1, 1.2, "a"), (0.9, 1.9, "b"), (2.0, 2.6, "a"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def rttm(uri: str, turns=TURNS, offset: float = 0.0, names=None) -> str:
    return "".join(
        f"SPEAKER {uri} 1 {start + offset:.6f} {end - start:.6f} <NA> <NA> "
        f"{(names or {}).get(who, who)} <NA> <NA>\n"
        for start, end, who in turns
    )


def media(path: Path, **kwargs) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kwargs = {"duration": DURATION, "size": SIZE} | kwargs
    return write_media(path, **kwargs)


def sound(path: Path, duration: float = DURATION) -> Path:
    from scipy.io import wavfile

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(-99, 99, round(16000 * duration)).astype(np.int16)
    wavfile.write(path, 16000, noise)
    return path


def annotation(uri: str, names=None) -> Annotation:
    """What `TURNS` are."""
    made = Annotation(uri=uri)
    for track, (start, end, who) in enumerate(TURNS):
        made[Segment(start, end), track] = (names or {}).get(who, who)
    return made


def ava_avd(folder: Path, with_media: bool = True) -> Path:
    """One movie, one clip a list; lists have no final newline, times are those of the movie."""
    movie = "-a_b-C9"
    names = {"a": "spk00", "b": "spk01"}
    for which, name in ((1, "train"), (2, "val"), (3, "test")):
        uri, start = f"{movie}_c_{which:02d}", 900.0 + 300 * (which - 1)
        write(folder / "split" / f"{name}.list", uri)
        # not sorted by time, as they are
        lines = rttm(uri, offset=start + 10, names=names).splitlines(keepends=True)
        write(folder / "rttms" / f"{uri}.rttm", "".join(lines[::-1]))
        regions = ((10.1, 11.9), (12.0, 12.6))
        lab = "".join(f"{start + a:.3f} {start + b:.3f} speech\n" for a, b in regions)
        write(folder / "labs" / f"{uri}.lab", lab)
    rows = []
    for which in (1, 2, 3):
        start = 900.0 + 300 * (which - 1)
        for k in range(30):  # 24 pictures a second
            t = start + 10.1 + k / 24
            spoken = f"{which:02d}spk00" if k < 20 else f"{which:02d}NA"
            label = "SPEAKING_AUDIBLE" if k < 20 else "NOT_SPEAKING"
            rows.append(
                f"{movie},{t:.2f},0.1,0.2,0.3,0.5,{label},{movie}_{start:.0f}_{start + 60:.0f}:1,"
                f"{spoken if k % 7 else '-1'}"
            )
    write(folder / "tracks" / f"{movie}-activespeaker.csv", "\n".join(rows) + "\n")
    write(folder / "split" / "video.list", f"{movie}.mkv")
    if with_media:
        # a picture every 20 s: what is cut out shows whether the right one is there
        times = [20.0 * k for k in range(91)]
        media(folder / "videos" / f"{movie}.mkv", audio=False, timestamps=times, size=(96, 64))
    return folder


def ami(folder: Path, cameras: int = 3) -> Path:
    seats = """<?xml version="1.0" encoding="ISO-8859-1"?>
<nite:root xmlns:nite="http://nite.sourceforge.net/">
  <meeting observation="TS3003c">
    <speaker nxt_agent="A" channel="0" camera="Closeup3" global_name="a" role="PM"/>
    <speaker nxt_agent="B" channel="1" camera="Closeup1" global_name="b" role="ID"/>
  </meeting>
</nite:root>
"""
    write(folder / "manual" / "corpusResources" / "meetings.xml", seats)
    for name, uri in (("train", "ES2002a"), ("dev", "IS1008b"), ("test", "TS3003c")):
        write(folder / "lists" / f"{name}.meetings.txt", f"{uri}\n")
        write(folder / "only_words" / "rttms" / name / f"{uri}.rttm", rttm(uri))
        write(folder / "only_words" / "labs" / name / f"{uri}.lab", "0.1 1.9\n2.0 2.6\n")
        write(folder / "uems" / name / f"{uri}.uem", f"{uri} 1 0.000 {DURATION:.6f}\n")
        meeting = folder / "amicorpus" / uri
        sound(meeting / "audio" / f"{uri}.Mix-Headset.wav")
        for camera in range(1, cameras + 1):
            # one camera stops early
            end = DURATION - (camera == 2)
            media(
                meeting / "video" / f"{uri}.Closeup{camera}.avi",
                duration=end,
                audio=False,
                video_codec="mpeg4",
            )
    return folder


def misp2022(folder: Path) -> Path:
    released, names = folder / "Released", {"a": "186", "b": "187"}
    for name, listed, turns, lab in (
        ("train", "train.list", "train1.rttm", "train_fat_timestamp.lab"),
        ("dev", "dev.list", "dev_far_RTTM.rttm", "dev_far_timestamp.lab"),
    ):
        uri = f"R{10 + len(name)}_S186187_C11_I1"
        write(folder / "scp_dir" / listed, uri)
        write(folder / "scp_dir" / turns, rttm(uri, names=names))
        write(folder / "scp_dir" / lab, f"{uri} 0.1 1.9\n{uri} 2.0 2.6\n")
        sound(released / "audio" / name / "far" / f"{uri}_Far_0.wav")
        sound(released / "audio" / name / "middle" / f"{uri}_Middle_0.wav")
        media(released / "video" / name / "far" / f"{uri}_Far.mp4", audio=False)
        face = {"x1": 8, "y1": 8, "x2": 24, "y2": 32, "lip": [10, 20, 20, 26]}
        boxes = {str(k): [{"id": 186, **face}] for k in range(50)}
        boxes["50"] = []
        lips = released / "roi_coordinates" / name
        write(lips / "far" / "lip" / f"{uri}_Far.json", json.dumps(boxes))
        sound(released / "audio" / name / "near" / f"{uri}_Near_186.wav")
        media(released / "video" / name / "middle" / f"{uri}_Middle_186.mp4", audio=False)
        write(lips / "middle" / "lip" / f"{uri}_Middle_186.json", json.dumps(boxes))
    return folder


def msdwild(folder: Path) -> Path:
    for stem, uris in (
        ("few.train", ("00001", "00002")),
        ("few.val", ("00003",)),
        ("many.val", ("00004",)),
    ):
        names = {"a": "0", "b": "h0"}
        write(folder / "rttms" / f"{stem}.rttm", "".join(rttm(u, names=names) for u in uris))
        for uri in uris:
            media(folder / "RELEASED_dark_labels" / f"{uri}.mp4")
            rows = [f"{k},face,0,8,8,24,{30 + k % 3},0" for k in range(60)]
            rows.insert(5, "99,face,1,20,20,20,20,0")  # an empty box
            write(folder / "RELEASED_dark_labels" / f"{uri}.csv", "\n".join(rows) + "\n")
    return folder


def ava_activespeaker(folder: Path) -> Path:
    header = "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,"
    header += "label,entity_id\n"
    for name, movie in (("train", "_Ab-1"), ("val", "Zz_9")):
        rows = [
            f"{movie},{900 + k / 30:.2f},0.1,0.1,0.4,0.6,"
            f"{'SPEAKING_AUDIBLE' if 10 <= k < 40 else 'NOT_SPEAKING'},{movie}_0900_0960:1\n"
            for k in range(60)
        ]
        place = folder / f"labels_{name}" / name
        write(place / f"{movie}-activespeaker.csv", header + "".join(rows))
        media(folder / "videos" / f"{movie}.mkv", audio=False, timestamps=[0.0, 899.0, 905.0])
    return folder


def simulated(folder: Path) -> Path:
    from pyannote_av.core.tracks import FaceTracks

    for name in ("train", "development", "test"):
        uri = f"{name}-0-00000"
        write(folder / "lists" / f"{name}.txt", f"{uri}\n")
        write(folder / "rttm" / f"{uri}.rttm", rttm(uri))
        write(folder / "uem" / f"{uri}.uem", f"{uri} 1 0.000 {DURATION:.3f}\n")
        media(folder / "video" / f"{uri}.mp4")
        (folder / "tracks").mkdir(exist_ok=True)
        time = np.arange(75) / 25
        box = np.tile([0.1, 0.1, 0.5, 0.8], (75, 1))
        label = ((time >= 0.1) & (time < 1.2)).astype(int)
        tracks = FaceTracks(time, np.zeros(75), box, label=label, speaker={0: "a"}, uri=uri)
        tracks.write(folder / "tracks" / f"{uri}.npz")
    return folder


MAKERS = {
    "ava_avd": ava_avd,
    "ami": ami,
    "misp2022": misp2022,
    "msdwild": msdwild,
    "ava_activespeaker": ava_activespeaker,
    "simulated": simulated,
}
