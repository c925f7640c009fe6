"""Model cards: description, training, evaluation and intended use of a model or pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.pipeline_config import read_config
from pyannote_av.core.trust import named_class
from pyannote_av.core.weights import REGISTRY, how_to_get
from pyannote_av.sharing.evaluation_tables import Evaluation, table
from pyannote_av.sharing.inventory import Part, describe_lineage, parts_of

CARD = "README.md"

_TAGS = ("pyannote", "pyannote-audio", "pyannote-av", "speaker-diarization", "audio-visual")

_INTENDED = """\
Diarization of recorded conversations, such as meetings, broadcasts, films and interviews. Speakers
are numbered within one recording. They are neither named nor identified.

Do not use it for

- identifying people, or making decisions about them without human review;
- surveillance of people who do not know of it or have not consented;
- recordings that differ from those it was evaluated on, unless you evaluate it again. Error rates
  depend on language, distance, camera and noise, and on the group of people: face detectors and
  face recognisers work less well for some groups than for others.

If the configuration does not name a face detector, a face embedder or an active speaker scorer,
the best one on the machine is used (see `pyannote-av doctor`), and the error rates differ."""

_BIOMETRIC = """\
Speaker embeddings and face embeddings are biometric data under the GDPR, the Illinois BIPA and
similar laws. Processing them may require the consent of the people recorded, whatever the licence
of weights and software. They are kept in memory only, unless you save them. Speaker turns and face
boxes show when and where people were present. Handle them like the recording itself."""


def make_card(
    folder: str | Path,
    evaluation: str | Path | Sequence[str | Path] | None = None,
    system: str | None = None,
    name: str | None = None,
    licence: str | None = None,
    about: str | None = None,
) -> str:
    """Write the card of a pipeline folder, or of a folder with one model.

    Parameters
    ----------
    folder : str or Path
        Folder with ``config.yaml`` or ``model.safetensors``.
    evaluation : str or Path, or several of them, optional
        JSON files of ``pyannote-av evaluate``, the only source of figures in a card.
    system : str, optional
        Name of this pipeline in these files, if they contain several systems.
    name : str, optional
        Title. Defaults to the name of the folder.
    licence : str, optional
        Licence of the content of the folder, as abbreviated on the hub. Defaults to the licence of
        this package if there are no weights, and to "other" if there are.
    about : str, optional
        Markdown text about training, such as the data and their licences.

    Returns
    -------
    card : str
        Markdown with the front matter of the Hugging Face hub.

    Raises
    ------
    ValueError
        If a JSON file is not an evaluation, or has several systems and none is named.
    """
    from huggingface_hub import ModelCard, ModelCardData

    folder = Path(folder)
    name = name or folder.absolute().name
    config = _config(folder)
    parts = parts_of(folder, config)
    results = []
    figures = ["It was not measured in this form: measure it with `pyannote-av evaluate`."]
    given = [evaluation] if isinstance(evaluation, (str, Path)) else list(evaluation or ())
    for number, path in enumerate(given):
        found = Evaluation.read(path)
        chosen = found.choose(system)
        results += found.results(chosen)
        text = found.to_markdown()
        if len(found.systems) > 1:
            text = f"This is `{chosen}`.\n\n{text}"
        figures[number:] = [text]
    kind = "pyannote-audio-pipeline" if config else "pyannote-audio-model"
    data = ModelCardData(
        license=licence or ("other" if any(part.file for part in parts) else "mit"),
        library_name="pyannote-audio",
        tags=[*_TAGS, kind],
        # the most similar task of the hub
        pipeline_tag="voice-activity-detection",
        model_name=name,
        eval_results=results or None,
    )
    sections = {
        f"# {name}": _summary(config, parts),
        "## Use": _usage(config, name),
        "## Contents": _contents(parts),
        "## Training": "\n\n".join(filter(None, [about, *map(describe_lineage, parts)])),
        "## Evaluation": "\n\n".join(figures),
        "## Intended use": _INTENDED,
        "## Personal data": _BIOMETRIC,
    }
    body = "\n\n".join(f"{head}\n\n{text}" for head, text in sections.items() if text)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def write_card(folder: str | Path, card: str | None = None, **options: Any) -> Path:
    """Write a card into a folder. Defaults to the card of :func:`make_card`."""
    return write_text(Path(folder) / CARD, card or make_card(folder, **options))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    return read_config(path) if path.is_file() else {}


def _summary(config: Mapping[str, Any], parts: list[Part]) -> str:
    """First paragraph of the docstring of the class."""
    dotted = config["pipeline"]["name"] if config else parts[0].architecture
    cls = named_class(dotted, "pipeline" if config else "model", "the card")
    text = (getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
    return f"{text}\n\nClass: `{dotted}`."


def _usage(config: Mapping[str, Any], name: str) -> str:
    # a name, a folder, or an identifier on the hub
    lines = [f"from pyannote_av import {'Pipeline' if config else 'Model'}", ""]
    if config:
        lines += [f'pipeline = Pipeline.from_pretrained("{name}")', 'output = pipeline("talk.mp4")']
        lines += ["for turn, speaker in output.speaker_diarization:", "    print(turn, speaker)"]
    else:
        lines += [f'model = Model.from_pretrained("{name}")']
    code = "\n".join(lines)
    return f"```\npip install pyannote-av\n```\n\n```python\n{code}\n```"


def _contents(parts: list[Part]) -> str:
    rows = []
    for part in parts:
        if part.file:
            where = f"`{part.file}` (sha256 `{part.sha256}`)"
            rows.append([part.argument, part.title, where, f"{part.parameters:,}", "as above"])
        else:
            known = REGISTRY[part.title]
            text = f"{known.purpose}; {how_to_get(part.title)}"
            rows.append([part.argument, f"`{part.title}`", text, "-", known.licence])
    if not rows:
        return ""
    return table(["argument", "model", "location", "parameters", "licence"], rows, left=3)
