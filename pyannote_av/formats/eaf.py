"""EAF: one tier per speaker, linked to the media, for ELAN (https://archive.mpi.nl/tla/elan).

Annotations hold the text that is said or, without words, the name of the speaker.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pyannote_av.core.atomic import write_text
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import ANNOTATION_LIMIT, ReadError, read_text
from pyannote_av.core.transcript import Cue
from pyannote_av.formats.content import UNKNOWN, Content, by_speaker
from pyannote_av.formats.lines import check_times, one_line, written_names

# characters that XML cannot hold
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KIND = "speech"
# ELAN sets the date when it saves; a fixed one keeps files of equal content equal
_DATE = "1970-01-01T00:00:00+00:00"
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"


def to_eaf(output: Any, media: str | Path | None = None, folder: str | Path | None = None) -> str:
    """Cues as an ELAN document.

    Turns of one speaker that overlap are united; see
    :func:`~pyannote_av.formats.content.by_speaker`.

    Parameters
    ----------
    output : AVDiarizeOutput, Annotation, Transcript or Content
    media : str or Path, optional
        Media file that ELAN opens. Defaults to that of the content.
    folder : str or Path, optional
        Folder of the document, from which a relative path leads to the media as well.
    """
    content = Content.of(output)
    media = content.media if media is None else Path(media)
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "pyannote-av",
            "DATE": _DATE,
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    header = ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if media is not None:
        ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", _link(media, folder))
    last = ElementTree.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId")
    order = ElementTree.SubElement(root, "TIME_ORDER")
    tiers = by_speaker(content.cues())
    count = slots = 0
    # names of tiers are unique, and compared without regard to white space at their ends
    names = written_names(tiers, "EAF", content.uri, _plain_name)
    for speaker, cues in tiers.items():
        name = names[speaker]
        attributes = {"LINGUISTIC_TYPE_REF": _KIND, "PARTICIPANT": name, "TIER_ID": name}
        tier = ElementTree.SubElement(root, "TIER", attributes)
        for cue in cues:
            count += 1
            ends = {}
            for side, time in (("TIME_SLOT_REF1", cue.start), ("TIME_SLOT_REF2", cue.end)):
                slots += 1
                ends[side] = f"ts{slots}"
                value = {"TIME_SLOT_ID": ends[side], "TIME_VALUE": str(round(time * 1000))}
                ElementTree.SubElement(order, "TIME_SLOT", value)
            annotation = ElementTree.SubElement(tier, "ANNOTATION")
            one = {"ANNOTATION_ID": f"a{count}", **ends}
            one = ElementTree.SubElement(annotation, "ALIGNABLE_ANNOTATION", one)
            ElementTree.SubElement(one, "ANNOTATION_VALUE").text = _plain(cue.text) or name
    last.text = str(count)
    kind = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": _KIND, "TIME_ALIGNABLE": "true"}
    ElementTree.SubElement(root, "LINGUISTIC_TYPE", kind)
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _plain(text: str) -> str:
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _NO_XML.sub("\ufffd", text).replace("\r", " ")


def _plain_name(name: str) -> str:
    return _plain(one_line(name))


def _link(media: Path, folder: str | Path | None) -> dict[str, str]:
    kind = mimetypes.guess_type(media.name)[0] or "unknown"
    attributes = {"MEDIA_URL": media.absolute().as_uri(), "MIME_TYPE": kind}
    if folder is not None:
        try:
            relative = media.absolute().relative_to(Path(folder).absolute())
            attributes["RELATIVE_MEDIA_URL"] = f"./{relative.as_posix()}"
        except ValueError:  # outside of the folder
            pass
    return attributes


def write_eaf(output: Any, path: str | Path, media: str | Path | None = None) -> Path:
    """Write cues to an ELAN file; return its path. See :func:`to_eaf`."""
    return write_text(path, to_eaf(output, media, Path(path).parent))


def read_eaf(path: str | Path) -> Content:
    """Turns of an ELAN file: all annotations that are aligned with the time line.

    Each tier is one speaker, who is named by the participant of the tier or else by the tier.
    Tiers that depend on others by reference only (translations, glosses) are left out.

    Raises
    ------
    ReadError
        With the file, and the line or the annotation, when it is malformed.
    """
    root = _parse(path)
    slots = {}
    for slot in root.iterfind("TIME_ORDER/TIME_SLOT"):
        slots[slot.get("TIME_SLOT_ID")] = slot.get("TIME_VALUE")
    cues = []
    for tier in root.iterfind("TIER"):
        # dependent tiers may be aligned, too: words below sentences
        if tier.get("PARENT_REF") is not None:
            continue
        name = tier.get("PARTICIPANT") or tier.get("TIER_ID") or ""
        for one in tier.iterfind("ANNOTATION/ALIGNABLE_ANNOTATION"):
            where = f"{path}, annotation {one.get('ANNOTATION_ID')!r}"
            times = []
            for side in ("TIME_SLOT_REF1", "TIME_SLOT_REF2"):
                value = slots.get(one.get(side))
                if value is None or not re.fullmatch(r"\d{1,12}", value, re.ASCII):
                    raise ReadError(f"{where}: its time is {value!r}, not in milliseconds")
                times.append(int(value) / 1000)
            text = (one.findtext("ANNOTATION_VALUE") or "").strip()
            text = "" if text == name else text
            cues.append(Cue(*check_times(where, *times), text, None if name == UNKNOWN else name))
    return Content.of_cues(cues, Path(path).name.split(".")[0])


def _parse(path: str | Path) -> ElementTree.Element:
    if not Path(path).exists():
        raise FileNotFoundError(no_such_file(path))
    text = read_text(path, ANNOTATION_LIMIT).removeprefix("\ufeff")
    # entities can grow without bound, and ELAN writes none
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ReadError(f"{path}: a document type, which ELAN does not write")
    # an encoding that is declared has been decoded by now
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text, count=1)
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line = error.position[0]
        raise ReadError(f"{path}, line {line}: not valid XML ({error})") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ReadError(f"{path}: not an ELAN document, but {root.tag!r}")
    return root


def media_of(path: str | Path) -> Iterator[Path]:
    """Yield the media files that an ELAN file is linked to, as they are written there."""
    for one in _parse(path).iterfind("HEADER/MEDIA_DESCRIPTOR"):
        if url := one.get("RELATIVE_MEDIA_URL") or one.get("MEDIA_URL"):
            yield Path(url.removeprefix("file://"))
