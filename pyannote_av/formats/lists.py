"""Lists: text files with one name or path per line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyannote_av.core.reading import ReadError, check_name, foreign_byte, read_lines


def _lines(path: str | Path, keep: bool = False) -> Iterator[tuple[str, str]]:
    """Yield ("FILE, line N", text) for each line that is not blank"""
    lines = read_lines(path, foreign="keep" if keep else "refuse")
    for number, line in enumerate(lines, start=1):
        # spaces may be part of the name
        if text := line.strip("\r\n") if line.strip() else "":
            yield f"{path}, line {number}", text


def read_names(path: str | Path) -> list[str]:
    """Names of files, in a list with one name per line. Blank lines are skipped.

    Raises
    ------
    ReadError
        When a name occurs twice or is not valid in a path, or when the text is neither UTF-8 nor
        UTF-16 with a byte order mark. The message names file and line.
    """
    first: dict[str, str] = {}
    for where, line in _lines(path):
        name = line.strip()
        try:
            check_name(name)
        except ReadError as error:
            raise ReadError(f"{where}: {error}") from error
        if name in first:
            number = first[name].rpartition(" ")[2]
            raise ReadError(f"{where}: {name!r} is already in line {number}")
        first[name] = where
    return list(first)


def read_paths(path: str | Path) -> list[Path]:
    """Paths of files, in a list with one path per line, relative to the folder of the list.

    Blank lines are skipped, and so are lines that begin with ``#`` unless there is such a file.
    Spaces around a path, and quotes, are removed if there is no such file. Files need not exist.

    Raises
    ------
    ReadError
        When a line is not UTF-8, and its bytes are not the name of a file. The message names file
        and line.
    """
    folder, found = Path(path).parent, []
    for where, line in _lines(path, keep=True):
        bare = line.strip()
        quoted = len(bare) > 2 and bare[0] == bare[-1] and bare[0] in "\"'"
        spellings = [line, bare, bare[1:-1]] if quoted else [line, bare]
        there = next((one for one in spellings if _exists(folder / one)), None)
        if there is None and bare.startswith("#"):
            continue
        if there is None and (byte := foreign_byte(line)):
            raise ReadError(
                f"{where}: neither UTF-8 (byte 0x{byte:02x}) nor the name of a file: save the list "
                "as UTF-8"
            )
        found.append(folder / (bare if there is None else there))
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # name too long
        return False
