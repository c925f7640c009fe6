"""How much the readers of data files accept."""

from __future__ import annotations

#: bytes of a text that people write or read: configurations, lists, records, indices
TEXT_LIMIT = 16 * 2**20
#: bytes of a YAML file: the parser of Python reads 100 kB a second, and configurations are small
YAML_LIMIT = 2**20
#: values in a YAML file, each counted as often as aliases repeat it
YAML_VALUES = 100_000
#: characters of a number in YAML: 1:1:1:... to base 60 takes time that grows with the square
YAML_NUMBER = 1000
#: bytes and lines of RTTM, UEM and LAB: a week has 600,000 seconds
ANNOTATION_LIMIT, ANNOTATION_LINES = 128 * 2**20, 1_000_000
#: bytes, and lines of CSV, of face tracks as text: a day of a few faces; a week is for ``.npz``
TRACKS_LIMIT, TRACKS_LINES = 512 * 2**20, 10_000_000
#: values in a JSON file, which take up to 100 bytes each in memory
JSON_VALUES = 50_000_000
#: bytes of an index that this package writes: of a store, a week of ten faces
INDEX_LIMIT = 128 * 2**20
#: bytes of arrays: a week of ten faces at 25 Hz takes 13 GB as text and 3 GB as arrays
ARRAYS_LIMIT = 4 * 2**30
#: bytes that any archive or ``.gz`` may unpack to, and how many times its size a larger one may;
#: face tracks unpack to 2 to 20 times
UNPACKED, UNPACKED_RATIO = 256 * 2**20, 200
#: characters of a line, and lines of other texts
LINE_LIMIT, LINES = 2**20, 1_000_000
#: lists in lists, mappings in mappings
DEPTH_LIMIT = 100
