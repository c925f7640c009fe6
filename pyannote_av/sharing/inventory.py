"""The models that a folder contains or refers to: size, checksum and training history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.model import load_checkpoint
from pyannote_av.core.reading import ReadError, parse_json, read_npz, refusing
from pyannote_av.core.text import printable
from pyannote_av.core.weights import REGISTRY
from pyannote_av.sharing.evaluation_tables import table
from pyannote_av.sharing.strip import architecture


@dataclass(frozen=True)
class Part:
    """A model of a pipeline.

    Attributes
    ----------
    argument : str
        Argument of the pipeline, such as ``audio/embedding``.
    title : str
        Class of the model, or the name of weights that are not in the folder.
    file : str
        Path relative to the folder. Empty for weights that are not in the folder.
    architecture : str
        Dotted name of the class.
    sha256 : str
    parameters : int
    lineage : list of dict
        Training stages; see ``AVModel.lineage``.
    """

    argument: str
    title: str
    file: str = ""
    architecture: str = ""
    sha256: str = ""
    parameters: int = 0
    lineage: list[dict[str, Any]] = field(default_factory=list)


def parts_of(folder: Path, config: Mapping[str, Any]) -> list[Part]:
    """Models in a folder, and weights that its configuration refers to by name."""
    files = [*folder.rglob("*.safetensors"), *folder.rglob("*.npz"), *folder.rglob("*.bin")]
    held = [_read(folder, path) for path in sorted(files)]
    return [*(Part(argument, name) for argument, name in _named(config)), *held]


def _named(config: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if isinstance(value, str) and value in REGISTRY:
            place = [*at, str(key)]
            yield "/".join(one for one in place if one not in ("pipeline", "params")), value
        yield from _named(value, (*at, str(key)))


def _read(folder: Path, path: Path) -> Part:
    relative = path.relative_to(folder)
    common = {
        "argument": relative.parent.as_posix() if relative.parent.parts else "model",
        "file": printable(relative.as_posix(), one_line=True),
        "sha256": sha256_of(path),
    }
    if path.suffix == ".npz":
        size = sum(array.size for array in read_npz(path).values())
        return Part(title=path.stem, parameters=size, **common)
    if path.suffix == ".bin":
        content = load_checkpoint(path)
        cls = architecture(content, path)
        size = sum(tensor.numel() for tensor in content["state_dict"].values())
        dotted = f"{cls.__module__}.{cls.__qualname__}"
        return Part(title=cls.__name__, architecture=dotted, parameters=size, **common)

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # only shapes are read
            size = sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ReadError(f"{path}: not a file of weights ({error})") from error
    lineage = parse_json(metadata.get("lineage", "[]"), f"{path}, lineage", nan=True)
    if not isinstance(lineage, list) or not all(isinstance(one, dict) for one in lineage):
        raise ReadError(f"{path}: its lineage is not a list of stages")
    dotted = printable(metadata.get("architecture", ""), one_line=True)
    return Part(
        title=dotted.rsplit(".", 1)[-1],
        architecture=dotted,
        parameters=size,
        lineage=lineage,
        **common,
    )


def describe_lineage(part: Part) -> str:
    """Training stages of a model as a Markdown table. Empty if they are unknown."""
    with refusing(part.file, "its lineage is invalid"):
        return _describe_lineage(part)


def _describe_lineage(part: Part) -> str:
    rows = []
    for number, entry in enumerate(part.lineage, 1):
        stage = entry.get("stage", {})
        # only the name of the initial weights is public, not their path
        name = stage.get("name") or Path(entry.get("start", "unfinished")).name
        rows.append(
            [
                number,
                name,
                ", ".join(stage.get("train", ())) or "-",
                ", ".join(f"{key} {value:g}" for key, value in stage.get("losses", {}).items())
                or "-",
                *(entry.get(key) for key in ("epochs", "steps", "seed")),
            ]
        )
    if not rows:
        return ""
    heads = ["", "stage", "trained modules", "losses", "epochs", "steps", "seed"]
    return f"{part.title} (`{part.file}`), stage by stage:\n\n{table(heads, rows, left=4)}"
