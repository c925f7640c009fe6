"""``python -m benchmarks NAME [options]``."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parent
USAGE = "python -m benchmarks NAME [options]"


def summaries() -> dict[str, str]:
    """First line of the docstring of each benchmark, by name. Nothing is imported."""
    found = {}
    for path in sorted(FOLDER.glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = text.split("\n")[0]
    return found


def overview() -> str:
    """All benchmarks, a line each."""
    known = summaries()
    width = max(map(len, known))
    lines = [f"  {name.ljust(width)}  {summary}" for name, summary in known.items()]
    return "\n".join([f"usage: {USAGE}", "", *lines, "", f"{USAGE[:-9]}--help explains one."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *words = words
    if name not in summaries():
        print(f"error: there is no benchmark {name!r}\n\n{overview()}", file=sys.stderr)
        return 2
    # before numpy and torch are imported: one thread, unless a benchmark sets another number
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.update(PYANNOTE_METRICS_ENABLED="0", PYTHONWARNINGS="ignore")
    warnings.simplefilter("ignore")
    from benchmarks._runner import Results, add, find_weights

    module = import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.options(parser)
    add(parser, "--into")
    given = parser.parse_args(words)
    find_weights(given)
    try:
        module.run(given, Results(name, words, given))
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
