"""``python -m recipes CORPUS get|prepare|evaluate``, and ``python -m recipes database``.

CORPUS may be the dotted name of a module of your own that defines ``RECIPE``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from recipes import NAMES, load
from recipes.database import write_database
from recipes.recipe import Recipe

logger = logging.getLogger("recipes")

ROOT = Path(__file__).resolve().parents[1]
_SHOWN = 20


def _parser(own: Sequence[str] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes", description=__doc__)
    corpora = parser.add_subparsers(dest="corpus", required=True, metavar="CORPUS")
    database = corpora.add_parser("database", help="rewrite database.yml")
    database.add_argument("--into", type=Path, default=ROOT / "database.yml")
    for name in (*NAMES, *own):
        steps = corpora.add_parser(name).add_subparsers(dest="step", required=True)
        raw, prepared = ROOT / "data" / "download" / name, ROOT / "data" / name
        step = steps.add_parser("get", help="download what may be downloaded; say how else")
        step.add_argument("--into", type=Path, default=raw, help="default: %(default)s")
        step.add_argument("--workers", type=int, default=4, help="downloads at once")
        step.add_argument("--only", default="", help="paths that begin so, such as split/")
        step = steps.add_parser("prepare", help="lists, references, tracks and media of protocols")
        step.add_argument("--source", type=Path, default=raw, help="default: %(default)s")
        step.add_argument("--into", type=Path, default=prepared, help="default: %(default)s")
        step.add_argument("--workers", type=int, default=0, help="processes at work at once")
        step.add_argument("--no-media", action="store_true", help="references and tracks only")
        step.add_argument("--partial", action="store_true", help="accept an incomplete corpus")
        step = steps.add_parser("evaluate", help="figures of references, scores of systems")
        step.add_argument("--data", type=Path, default=prepared, help="default: %(default)s")
        step.add_argument("--protocol", help="default: the first of the recipe")
        step.add_argument("--subset", default="test", help="train, development or test")
        step.add_argument("--pipeline", action="append", default=[], help="run and score it")
        step.add_argument(
            "--hypothesis", action="append", default=[], type=Path, help="RTTM file or folder"
        )
        step.add_argument("--given-tracks", action="store_true", help="show the corpus' tracks")
        step.add_argument("--device", default="cpu")
        step.add_argument("--json", type=Path, help="write everything")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _get(recipe: Recipe, arguments: argparse.Namespace) -> int:
    from recipes.fetch import get

    _say(f"{recipe.database}: {recipe.licence}")
    if recipe.instructions:
        _say(recipe.instructions)
    if recipe.make is not None:
        recipe.make(arguments.into)
        _say(f"made: {arguments.into}")
    downloads = [d for d in recipe.downloads(arguments.into) if d.path.startswith(arguments.only)]
    paths, failed = get(downloads, arguments.into, arguments.workers)
    for reason in failed.values():
        _say(f"error: {reason}")
    _say(f"{len(paths)} of {len(downloads)} files downloaded to {arguments.into}")
    return 1 if failed else 0


def _prepare(recipe: Recipe, arguments: argparse.Namespace) -> int:
    from recipes.prepare import prepare

    report = prepare(
        recipe,
        arguments.source,
        arguments.into,
        workers=arguments.workers,
        media=not arguments.no_media,
        partial=arguments.partial,
        progress=sys.stderr.isatty(),
    )
    for problem in report.problems[:_SHOWN]:
        _say(f"note: {problem}")
    if (more := len(report.problems) - _SHOWN) > 0:
        _say(f"note: and {more} more, in {arguments.into / 'manifest.json'}")
    for reason in report.failed.values():
        _say(f"error: {reason}")
    for name, count in report.files.items():
        _say(f"{name}: {count} files, {report.speech[name]:.2f} hours of speech")
    _say(f"media and tracks: {report.made} made, {report.kept} already present")
    if report.failed and not arguments.partial:
        _say(f"{len(report.failed)} files failed: no lists written (--partial leaves them out)")
    return 1 if report.failed else 0


def _evaluate(recipe: Recipe, arguments: argparse.Namespace) -> int:
    from recipes import evaluate

    files = evaluate.open_protocol(recipe, arguments.data, arguments.protocol, arguments.subset)
    figures = evaluate.describe(files)
    for name, value in figures.items():
        _say(f"{name:18} {value:.2f}" if isinstance(value, float) else f"{name:18} {value}")
    content: dict = {"reference": figures}
    if recipe.metric == "active speaker":
        if arguments.hypothesis:
            raise ValueError("score a file of predictions with evaluate_files (see the README)")
        for scorer in arguments.pipeline:
            result = evaluate.active_speaker_scores(files, scorer)
            _say(f"\n{scorer}\n{result}")
            content[scorer] = result.to_dataframe().to_dict(orient="records")
    elif arguments.pipeline or arguments.hypothesis:
        from pyannote_av.evaluation import diarization_report as report

        results, comparisons, tables = evaluate.diarization_scores(
            files,
            arguments.pipeline,
            arguments.hypothesis,
            arguments.given_tracks,
            arguments.device,
        )
        _say("\n" + report.to_text(results, comparisons, tables))
        content["systems"] = [record for result in results for record in result.to_records()]
    if arguments.json is not None:
        evaluate.save(arguments.json, content)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    # a recipe of one's own: the dotted name of its module
    arguments = _parser([one for one in argv[:1] if "." in one]).parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    if arguments.corpus == "database":
        # relative to the file, although pyannote.database tries the working directory first
        folder = os.path.relpath(ROOT / "data", arguments.into.resolve().parent)
        recipes = [load(name) for name in NAMES]
        write_database(recipes, arguments.into, {name: f"{folder}/{name}" for name in NAMES})
        _say(str(arguments.into))
        return 0
    try:
        recipe = load(arguments.corpus)
        step = {"get": _get, "prepare": _prepare, "evaluate": _evaluate}[arguments.step]
        return step(recipe, arguments)
    except (OSError, ValueError, RuntimeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
