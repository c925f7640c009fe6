"""Prepare a downloaded corpus for its protocols.

An interrupted preparation can be run again. Outputs made from the same files are kept. Lists are
written last, so that no protocol ever reads an incomplete corpus.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from pyannote_av.core.reading import check_name, read_json
from recipes.corpus import File, digest, lab, rttm, uem, update
from recipes.database import write_database
from recipes.recipe import COLUMNS, Recipe

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"
_MADE = "made"
#: seconds by which media may be shorter than the scored region
_TOLERANCE = 1.0


@dataclass
class Report:
    """Result of a preparation.

    Attributes
    ----------
    files : dict of str to int
        Number of files, by list.
    speech : dict of str to float
        Hours of speech, summed over speakers, by list.
    problems : list of str
        Irregularities of the corpus, as sentences.
    failed : dict of str to str
        Reasons for failure, by uri.
    made, kept : int
        Number of media and track files that were written, and that already existed.
    """

    files: dict[str, int] = field(default_factory=dict)
    speech: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    made: int = 0
    kept: int = 0


def _texts(file: File) -> dict[str, str]:
    """Content of the small files of a file, by path"""
    speech = file.annotation.get_timeline().support() if file.lab is None else file.lab
    texts = {
        COLUMNS["annotation"]: rttm(file.uri, file.annotation),
        COLUMNS["annotated"]: uem(file.uri, file.annotated),
        COLUMNS["lab"]: lab(speech),
    }
    texts |= {f"{name}/{{uri}}.uem_strict": uem(file.uri, m) for name, m in file.maps.items()}
    return {path.format(uri=file.uri): text for path, text in texts.items()} | dict(file.texts)


def _short(file: File, column: str, media: Path) -> list[str]:
    """Report media that end before their scored region; raises if they are damaged"""
    from pyannote_av.core.io import Video

    # resolve links, so that errors name the linked file
    ends, scored = Video().get_duration(media.resolve()), file.annotated.extent().end
    if ends >= scored - _TOLERANCE:
        return []
    return [f"file {file.uri!r}: {column} ends at {ends:.2f} s, its scored region at {scored:g} s"]


def _write_large(file: File, into: Path, suffixes: Mapping[str, str]) -> tuple[int, int, list[str]]:
    """Write media and tracks of one file; returns numbers made and kept, and problems"""
    from pyannote_av.data.build import fingerprint

    record_path = into / _MADE / f"{file.uri}.json"
    try:
        record = read_json(record_path)
    except (OSError, ValueError):
        record = {}
    if not isinstance(record, dict) or not all(isinstance(one, dict) for one in record.values()):
        record = {}
    jobs = dict(file.media)
    if file.tracks is not None:
        jobs["face_tracks"] = file.tracks
    made, kept = 0, 0
    for column, job in jobs.items():
        for path in job.sources:
            if not path.is_file():
                raise FileNotFoundError(f"file {file.uri!r}: no such file: {path}")
        key = digest(job.key, [fingerprint(path) for path in job.sources])
        target = into / column / f"{file.uri}{suffixes[column]}"
        if record.get(column, {}).get("key") == key and target.is_file():
            kept += 1
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.stem}{_PARTIAL}{target.suffix}")
        partial.unlink(missing_ok=True)
        problems: list[str] = []
        if column == "face_tracks":
            job.read().write(partial)
        else:
            job.write(file.uri, partial, problems)
            problems += _short(file, column, partial)
        os.replace(partial, target)
        record[column] = {"key": key, "problems": problems}
        update(record_path, json.dumps(record, indent=1, sort_keys=True) + "\n")
        made += 1
    return made, kept, [text for column in jobs for text in record[column]["problems"]]


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, (OSError, ValueError)) else repr(error)


def _large(
    files: list[File], into: Path, suffixes: Mapping[str, str], workers: int
) -> Iterator[tuple[File, tuple[int, int, list[str]] | BaseException]]:
    """Every file with the result or error of :func:`_write_large`, in order of completion"""
    if workers == 0:
        for file in files:
            try:
                yield file, _write_large(file, into, suffixes)
            except Exception as error:
                yield file, error
        return
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_write_large, file, into, suffixes): file for file in files}
        for future in as_completed(futures):
            yield futures[future], future.exception() or future.result()


def _check(recipe: Recipe, report: Report, partial: bool) -> None:
    """Compare with the known size of the corpus"""
    for name, expected in recipe.expected.items():
        files, hours = report.files.get(name, 0), report.speech.get(name, 0.0)
        wrong = []
        if expected.files is not None and files != expected.files:
            wrong.append(f"{files} files, not {expected.files}")
        if expected.speech is not None and abs(hours - expected.speech) > 0.0101:
            wrong.append(f"{hours:.2f} hours of speech, not {expected.speech:.2f}")
        if wrong and partial:
            report.problems.append(f"list {name!r} has {', '.join(wrong)}")
        elif wrong:
            raise ValueError(
                f"{recipe.name}: list {name!r} has {', '.join(wrong)}: the download is not "
                "complete (--partial continues anyway)"
            )


def _unique(files: Iterable[File]) -> list[File]:
    known: dict[str, File] = {}
    for file in files:
        check_name(file.uri)
        if file.uri in known:
            raise ValueError(
                f"{file.uri!r} is listed twice, in lists {known[file.uri].list!r} and {file.list!r}"
            )
        known[file.uri] = file
    return list(known.values())


def _sweep(into: Path) -> None:
    """Remove incomplete files of an interrupted preparation"""
    for folder in [into, *(path for path in into.iterdir() if path.is_dir())]:
        for path in folder.iterdir():
            if path.name.startswith(".") and path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def prepare(
    recipe: Recipe,
    source: Path,
    into: Path,
    workers: int = 0,
    media: bool = True,
    partial: bool = False,
    progress: bool = False,
) -> Report:
    """Prepare a corpus.

    Parameters
    ----------
    recipe : Recipe
    source : Path
        Folder of the download.
    into : Path
        Folder of the output. Its ``database.yml`` contains the protocols.
    workers : int
        Number of processes that write media and tracks. 0 uses the main process.
    media : bool
        If False, only references, lists and tracks are prepared.
    partial : bool
        Accept an incomplete corpus. Files that cannot be prepared are removed from the lists.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        If the corpus is incomplete or malformed. The message names file and line.
    RuntimeError
        If another process is preparing the same folder.
    """
    from filelock import FileLock, Timeout

    source, into = Path(source), Path(into)
    if not source.is_dir():
        raise FileNotFoundError(f"{recipe.name}: no such folder: {source}")
    into.mkdir(parents=True, exist_ok=True)
    lock = FileLock(into / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(f"another process is preparing {into}") from None
    try:
        return _prepare(recipe, source, into, workers, media, partial, progress)
    finally:
        lock.release()


def _prepare(
    recipe: Recipe,
    source: Path,
    into: Path,
    workers: int,
    media: bool,
    partial: bool,
    progress: bool,
) -> Report:
    from dataclasses import replace

    _sweep(into)
    report = Report()
    files = _unique(recipe.files(source))
    if not files:
        raise ValueError(f"{recipe.name}: no file of the corpus in {source}")
    suffixes = {
        path.split("/")[0]: Path(path).suffix
        for protocol in recipe.protocols
        for path in {**COLUMNS, **protocol.columns}.values()
    }
    for file in files:
        for path, text in _texts(file).items():
            update(into / path, text)
    jobs = files if media else [replace(file, media={}) for file in files]
    outcomes = _large(jobs, into, suffixes, workers)
    if progress:
        from rich.progress import track

        outcomes = track(outcomes, recipe.name, total=len(jobs))
    odd: dict[str, list[str]] = {}
    for file, outcome in outcomes:
        if isinstance(outcome, BaseException):
            report.failed[file.uri] = _reason(outcome)
            logger.warning("%s", _reason(outcome))
            continue
        made, kept, odd[file.uri] = outcome
        report.made, report.kept = report.made + made, report.kept + kept
    for file in files:
        report.problems += [*file.problems, *odd.get(file.uri, ())]
    if report.failed and not partial:
        return report
    good = [file for file in files if file.uri not in report.failed]
    for name in dict.fromkeys([*(f.list for f in files), *recipe.expected]):
        mine = sorted((f for f in good if f.list == name), key=lambda f: f.uri)
        spoken = (s.duration for f in mine for s in f.annotation.itersegments())
        report.files[name], report.speech[name] = len(mine), sum(spoken) / 3600
    _check(recipe, report, partial)
    for name in report.files:
        mine = sorted((f for f in good if f.list == name), key=lambda f: f.uri)
        update(into / f"{name}.rttm", "".join(rttm(f.uri, f.annotation) for f in mine))
        update(into / f"{name}.uem", "".join(uem(f.uri, f.annotated) for f in mine))
        update(into / f"{name}.lst", "".join(f"{f.uri}\n" for f in mine))
    content = {"recipe": recipe.name, "files": report.files, "problems": report.problems}
    content["speech_hours"] = {name: round(hours, 4) for name, hours in report.speech.items()}
    update(into / "manifest.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
    # absolute, because pyannote.database tries relative paths in the working directory first
    write_database([recipe], into / "database.yml", {recipe.name: str(into.resolve())})
    return report
