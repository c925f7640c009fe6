"""A sample file of two people talking, generated on first use for tests and demonstrations.

The sound is pyannote.audio's own sample (30 s of a telephone conversation between two speakers,
with its reference). The video is synthetic. It shows two public-domain portraits side by side,
Grace Hopper (from matplotlib) and Eileen Collins (from scikit-image). The loudness of a voice opens
the mouth of each portrait. **Results on this file are no evidence of quality**: neither of these
people said these words, and real faces are harder.

Nothing is downloaded, and no face detector is needed, because the positions of the faces are known.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pyannote_av.core.grid import FRAME_RATE

URI = "sample"
#: width and height of the video in pixels
SIZE = (640, 360)

_FILES = {"video": f"{URI}.mp4", "rttm": f"{URI}.rttm", "tracks": f"{URI}.tracks.npz"}
# part of the name of the cache folder; increase it when the sample changes
_VERSION = 2
_FACE_HEIGHT = 142


def sample() -> Path:
    """Path of the sample file, which is generated in the cache on first use (some seconds).

    Its reference is next to it: ``sample.rttm`` and ``sample.tracks.npz``.
    """
    from pyannote_av.core.weights import cache_folder

    folder = cache_folder() / f"sample-{_VERSION}"
    if all((folder / name).is_file() for name in _FILES.values()):
        return folder / _FILES["video"]
    return make_sample(folder)["video"]


def make_sample(folder: str | Path) -> dict[str, Path]:
    """Write the sample file and its reference. The bytes are reproducible on the same machine.

    Parameters
    ----------
    folder : str or Path
        Created if missing. Files of the same names are replaced.

    Returns
    -------
    paths : dict
        ``video`` (MP4, H.264 and AAC, 30 s, 640x360 at 25 frames per second), ``rttm`` (who
        speaks when) and ``tracks`` (:class:`~pyannote_av.core.tracks.FaceTracks` of both faces,
        with names and labels: audibly speaking during reference turns, not speaking elsewhere).

    Raises
    ------
    ModuleNotFoundError
        If scikit-image is not installed. It is not a dependency of the package itself.
    """
    from scipy.io import wavfile

    from pyannote_av.formats.annotations import read_rttm

    portraits = [
        portrait.placed((SIZE[0] // 2, SIZE[1]), _FACE_HEIGHT) for portrait in _portraits()
    ]
    wav, rttm = _recording()
    sample_rate, pcm = wavfile.read(wav)
    reference = read_rttm(rttm)[URI]

    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".sample-") as unfinished:
        made = {key: Path(unfinished) / name for key, name in _FILES.items()}
        shutil.copyfile(rttm, made["rttm"])
        _render(pcm, sample_rate, reference, portraits, made["video"], made["tracks"])
        paths = {key: folder / name for key, name in _FILES.items()}
        # move the video last, so that the other files exist by then
        for key in ("rttm", "tracks", "video"):
            os.replace(made[key], paths[key])
    return paths


def _recording() -> tuple[Path, Path]:
    """pyannote.audio's sample and its reference, located without importing pyannote.audio."""
    spec = find_spec("pyannote.audio")
    folder = Path(next(iter(spec.submodule_search_locations))) / "sample"
    return folder / "sample.wav", folder / "sample.rttm"


def _portraits():
    """The two portraits, with positions determined by MTCNN and manually."""
    import cv2
    from matplotlib.cbook import get_sample_data

    from pyannote_av.simulation.portrait import Portrait

    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise ModuleNotFoundError(
            "making the sample file needs a portrait that comes with scikit-image: "
            "pip install 'pyannote-av[sample]'"
        ) from error

    hopper = cv2.imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return [
        Portrait(
            image=cv2.cvtColor(hopper, cv2.COLOR_BGR2RGB),
            box=(174.4, 119.6, 355.6, 340.5),
            landmarks=((221.7, 191.0), (305.0, 187.0), (269.4, 239.2), (230, 281), (305, 277)),
            lips=((229.0, 281.0), (266.0, 280.5), (304.0, 277.0)),
            eye=(14.0, 7.5),
        ),
        Portrait(
            image=astronaut(),
            box=(181.1, 62.2, 267.7, 172.1),
            landmarks=((203.0, 101.5), (247.0, 103.7), (224.7, 129.0), (202, 139.5), (245, 141.5)),
            lips=((202.5, 139.5), (224.0, 150.0), (244.5, 141.0)),
            eye=(9.5, 5.0),
        ),
    ]


def _render(pcm, sample_rate, reference, portraits, video: Path, tracks: Path) -> None:
    """Write the video, with sound `pcm` (N,), and the face tracks according to `reference`."""
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.simulation.encoding import encode
    from pyannote_av.simulation.portrait import TalkingPortrait, act, loudness

    num_frames = int(len(pcm) * FRAME_RATE) // sample_rate
    time = np.arange(num_frames) / FRAME_RATE
    # only two speakers are visible; any others are off-screen
    seated = [label for label, _ in reference.chart()[: len(portraits)]]
    actors, columns = [], {"time": [], "track": [], "box": [], "landmarks": [], "label": []}
    for seat, (label, portrait) in enumerate(zip(sorted(seated), portraits, strict=True)):
        turns = reference.label_timeline(label)
        own = np.where(_inside(turns, np.arange(len(pcm)) / sample_rate), pcm / 32768.0, 0.0)
        loud = loudness(own, sample_rate, num_frames, int(FRAME_RATE))
        motion = act(loud, np.random.default_rng(seat))
        actor = TalkingPortrait(portrait)
        actors.append((actor, motion))

        box, landmarks = actor.geometry(motion.sway)
        offset = np.float64([seat * SIZE[0] // 2, 0])
        columns["time"].append(time)
        columns["track"].append(np.full(num_frames, seat))
        columns["box"].append((box + np.tile(offset, 2)) / np.tile(SIZE, 2))
        columns["landmarks"].append((landmarks + offset) / SIZE)
        columns["label"].append(_inside(turns, time).astype(np.int8))

    FaceTracks(
        **{name: np.concatenate(parts) for name, parts in columns.items()},
        confidence=np.ones(2 * num_frames),
        speaker=dict(enumerate(sorted(seated))),
        uri=URI,
        frame_size=SIZE,
    ).write(tracks)
    frames = (
        np.hstack([a.draw(m.mouth[k], m.blink[k], m.sway[k], m.light[k]) for a, m in actors])
        for k in range(num_frames)
    )
    encode(video, enumerate(frames), pcm / 32767.0, SIZE, compression=20)


def _inside(timeline, time: np.ndarray) -> np.ndarray:
    """Which of the times (N,) are inside a timeline (start included, end excluded)."""
    inside = np.zeros(len(time), bool)
    for segment in timeline:
        first, last = np.searchsorted(time, [segment.start - 1e-6, segment.end - 1e-6])
        inside[first:last] = True
    return inside
