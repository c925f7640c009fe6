"""Data files of strangers, read with bounded memory and time, or refused with a reason.

A limit is the number of bytes that a file may have, decompressed where it is compressed. All
readers raise :class:`ReadError` for content, and leave the errors of the file system
(FileNotFoundError, PermissionError, IsADirectoryError) as they are.
"""

from pyannote_av.core.reading.arrays import check_array, read_npy, read_npz
from pyannote_av.core.reading.json_files import parse_json, read_json
from pyannote_av.core.reading.names import check_name, inside
from pyannote_av.core.reading.numbers import LONGEST, decimal, whole
from pyannote_av.core.reading.refusing import ReadError, refusing
from pyannote_av.core.reading.text import open_bytes, read_lines, read_text
from pyannote_av.core.reading.yaml_files import parse_yaml, read_yaml

__all__ = [
    "LONGEST",
    "ReadError",
    "check_array",
    "check_name",
    "decimal",
    "inside",
    "open_bytes",
    "parse_json",
    "parse_yaml",
    "read_json",
    "read_lines",
    "read_npy",
    "read_npz",
    "read_text",
    "read_yaml",
    "refusing",
    "whole",
]
