"""Encrypted media, which decode to errors or noise"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.files import MediaError

if TYPE_CHECKING:
    import av

# number of bytes that are inspected at the beginning of a file
_BEGIN = 2**21
# share of scrambled packets from which on a file is encrypted: the first ones may be clear
_SHARE = 0.1
# objects in the header of WMA and WMV files with digital rights management
_ASF = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
# codecs of protected songs of iTunes, and of Audible
_TAGS = {"drms", "drmi", "p608", "aavd"}


def refuse_encrypted(container: av.container.InputContainer, path: str | Path) -> None:
    """Raise MediaError if the content of a container is encrypted.

    Looks at the first packets and at the beginning of the file. Afterwards, the container is at an
    arbitrary position.
    """
    name, kind = container.format.name, ""
    if "mp4" in name and _is_protected(container):
        kind = "MP4"
    elif "matroska" in name and any("enc_key_id" in one.metadata for one in container.streams):
        kind = "WebM"
    elif name in ("mpegts", "mpeg", "asf"):
        with open(path, "rb") as file:
            begin = file.read(_BEGIN)
        if name == "asf":
            kind = "Windows Media" if any(mark in begin for mark in _ASF) else ""
        elif (_scrambled_ts if name == "mpegts" else _scrambled_ps)(begin):
            kind = "transport stream" if name == "mpegts" else "DVD"
    if kind:
        raise MediaError(
            f"{path} is encrypted or copy-protected ({kind}): it cannot be decoded without its "
            "key; pass a decrypted file"
        )


def _is_protected(container: av.container.InputContainer) -> bool:
    """Whether packets of an MP4 file come with information on how to decrypt them"""
    import av

    if any(one.codec_context and one.codec_context.codec_tag in _TAGS for one in container.streams):
        return True
    with suppress(av.error.FFmpegError, ArithmeticError, LookupError, OSError, ValueError):
        container.seek(0)
        for packet, _ in zip(container.demux(), range(16), strict=False):
            # PyAV 14 does not expose this
            if hasattr(packet, "has_sidedata") and packet.has_sidedata("encryption_info"):
                return True
    return False


def _scrambled_ts(begin: bytes) -> bool:
    """Whether packets of a transport stream are marked as scrambled"""
    # Blu-ray discs and camcorders put four bytes before each packet
    for length in (188, 192):
        first = next((i for i in range(length) if _in_step(begin, i, length)), None)
        if first is None:
            continue
        headers = [begin[i + 1 : i + 4] for i in range(first, len(begin) - 3, length)]
        # bits: payload, scrambling control
        filled = [header[2] for header in headers if len(header) == 3 and header[2] & 0x10]
        return sum(flags >> 6 > 1 for flags in filled) > _SHARE * len(filled)
    return False


def _in_step(begin: bytes, first: int, length: int) -> bool:
    return all(begin[i : i + 1] == b"G" for i in range(first, first + 5 * length, length))


def _scrambled_ps(begin: bytes) -> bool:
    """Whether packets of video and sound of a DVD are marked as scrambled"""
    # stream number, length (2 bytes), flags that begin with the bits 10
    flags = re.findall(rb"\x00\x00\x01[\xbd\xc0-\xef]..([\x80-\xbf])", begin, re.DOTALL)
    return sum(one[0] & 0x30 != 0 for one in flags) > _SHARE * len(flags)
