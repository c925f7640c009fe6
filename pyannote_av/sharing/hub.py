"""Share pipelines and models through folders or the Hugging Face hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyannote_av.core.hub import hub_is_reachable
from pyannote_av.core.model import Model
from pyannote_av.core.paths import lies_within
from pyannote_av.core.pipeline import Pipeline
from pyannote_av.core.reading import read_npz
from pyannote_av.core.trust import trusting
from pyannote_av.sharing.atomic_folder import new_folder
from pyannote_av.sharing.card import CARD, write_card
from pyannote_av.sharing.folders import CONFIG, check_links, save_pipeline
from pyannote_av.sharing.models import MODEL, copy_model

#: prefix of destinations and sources on the hub
HUB = "hub:"
#: suffixes of shared files: data that can be read without executing anything
DATA = (".yaml", ".json", ".safetensors", ".npz", ".md", ".txt", ".onnx")


def push(
    source: str | Path,
    destination: str | Path,
    evaluation: str | Path | Sequence[str | Path] | None = None,
    system: str | None = None,
    licence: str | None = None,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    about: str | None = None,
    trust: bool = False,
) -> str:
    """Share a pipeline or a model, with everything it needs and a model card.

    Parameters
    ----------
    source : str or Path
        Name of a shipped pipeline, a pipeline folder, a model file, or a folder with one.
    destination : str or Path
        A folder, or ``hub:organisation/name``.
    evaluation, system, licence, about : optional
        For the card; see :func:`~pyannote_av.sharing.card.make_card`. If none of these is given,
        an existing card of the folder is kept.
    private : bool, optional
        Whether a repository that is created on the hub is private.
    revision : str, optional
        Branch of the repository, created if missing.
    token : str, optional
        Token of the hub. Defaults to that of ``hf auth login``.
    overwrite : bool, optional
        Replace a folder that contains a pipeline or a model. On the hub, files of the same name
        always get a new version, and the history is kept.
    trust : bool, optional
        Build classes of other packages that the files name, and unpickle files, to check that the
        copy loads.

    Returns
    -------
    where : str
        The folder, or the address of the commit.

    Raises
    ------
    ConnectionError
        If the hub cannot be reached, without waiting for a timeout.
    ValueError
        If the files to share contain pickles, or anything else but data.
    """
    source, name = str(source), str(destination).removeprefix(HUB)
    card = {"evaluation": evaluation, "system": system, "licence": licence, "about": about}
    if not str(destination).startswith(HUB):
        with new_folder(destination, overwrite) as folder, trusting(trust):
            _collect(source, folder, Path(destination).absolute().name, card)
        return str(destination)

    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _hub(name), TemporaryDirectory() as temporary, trusting(trust):
        folder = Path(temporary) / "shared"
        folder.mkdir()
        _collect(source, folder, name, card)
        api.create_repo(name, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=revision,
            commit_message=f"pyannote-av push {Path(source).name}",
        )
        return str(commit.commit_url)


def pull(
    source: str | Path,
    destination: str | Path,
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> Path:
    """Fetch a shared pipeline or model: only data files, which load without executing anything.

    Parameters
    ----------
    source : str or Path
        ``hub:organisation/name``, or a folder.
    destination : str or Path
        A folder. It appears only when it is complete.
    revision, token, overwrite, trust : optional
        See :func:`push`.

    Returns
    -------
    destination : Path

    Raises
    ------
    ConnectionError
        If the hub cannot be reached, without waiting for a timeout.
    ValueError
        If the source is neither a pipeline nor a model, or loads only with `trust`.
    """
    with new_folder(destination, overwrite) as folder, trusting(trust):
        if str(source).startswith(HUB):
            from huggingface_hub import snapshot_download

            name = str(source).removeprefix(HUB)
            with _hub(name):
                snapshot_download(
                    name,
                    revision=revision,
                    token=token,
                    local_dir=folder,
                    allow_patterns=[f"*{suffix}" for suffix in DATA],
                )
            # records of the client about the download
            shutil.rmtree(folder / ".cache", ignore_errors=True)
        else:
            for path in _data_files(Path(source).expanduser()):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(source).expanduser() / path, folder / path)
        check(folder)
    return Path(destination)


def check(folder: Path) -> None:
    """Check that a folder contains only data, and that it loads.

    Raises
    ------
    ValueError
        If it is neither a pipeline nor a model, or contains other files.
    FileNotFoundError
        If it refers to missing files. For missing weights, the message explains how to get them.
    """
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_symlink() and not lies_within(path, folder):
            raise ValueError(f"{name} leads out of the folder: it is not shared")
        if path.is_file() and path.suffix not in DATA:
            raise ValueError(
                f"{name} may execute something where it is opened: only {', '.join(DATA)} are "
                "shared. Make safetensors of models by `pyannote-av strip` or "
                "`pyannote-av import-checkpoint`."
            )
        if path.suffix == ".npz":
            read_npz(path)
    if (folder / CONFIG).is_file():
        Pipeline.from_pretrained(folder)
    elif (folder / MODEL).is_file():
        Model.from_pretrained(folder)
    else:
        raise ValueError(
            f"there is neither {CONFIG} nor {MODEL}: this is neither a pipeline nor a model"
        )


def _collect(source: str, folder: Path, name: str, options: dict[str, Any]) -> None:
    """Fill an empty folder with the files to share, and check them."""
    path = Path(source).expanduser()
    is_file = path.is_file() and path.suffix not in (".yaml", ".yml")
    if is_file or ((path / MODEL).is_file() and not (path / CONFIG).is_file()):
        copy_model(path, folder)
    else:
        save_pipeline(source, folder)
    customized = any(value is not None for value in options.values())
    if not customized and (path / CARD).is_file():
        check_links(path / CARD, path)
        shutil.copyfile(path / CARD, folder / CARD)
    else:
        write_card(folder, name=name, **options)
    check(folder)


def _data_files(folder: Path) -> list[Path]:
    """Paths of the data files of a folder, relative to it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder} (of the hub: {HUB}organisation/name)")
    found = []
    for root, _, names in os.walk(folder):
        paths = [Path(root) / name for name in names if Path(name).suffix in DATA]
        for path in paths:
            check_links(path, folder)
        found += [path.relative_to(folder) for path in paths]
    return sorted(found)


@contextmanager
def _hub(name: str) -> Iterator[None]:
    """Report at once if the hub cannot be reached, and quote its answer if it refuses."""
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(name)
    if "/" not in name:
        raise ValueError(f"{HUB}{name} does not name an organisation: {HUB}organisation/{name}")
    if not hub_is_reachable():
        raise ConnectionError(
            "the Hugging Face hub is out of reach. Give a folder in its place, or connect to a "
            "network (and unset HF_HUB_OFFLINE)."
        )
    try:
        yield
    except HTTPError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"the hub refuses access to {name!r} ({reason}). Check the name. Private and gated "
            "repositories need --token, or `hf auth login`, of an account that has access."
        ) from error
