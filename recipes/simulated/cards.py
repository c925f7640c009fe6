"""Write the model cards of the shipped pipelines from benchmark results.

    python -m recipes.simulated.cards [--results benchmarks/results]
                                      [--into pyannote_av/pretrained]

The cards only contain results of ``python -m benchmarks held_aside`` and
``python -m benchmarks real_recordings``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pyannote_av.sharing.card import write_card

ROOT = Path(__file__).resolve().parents[2]
#: result files for each pipeline folder
MEASURED = {
    "hmsanet": ("held_aside", "real_ami", "real_table"),
    "hmsanet-lrasd": ("real_table_hmsanet-lrasd",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--into", type=Path, default=ROOT / "pyannote_av" / "pretrained")
    given = parser.parse_args()
    about = Path(__file__).with_name("about.md").read_text(encoding="utf-8")
    for name, files in MEASURED.items():
        found = [given.results / f"{file}.json" for file in files]
        print(
            write_card(
                given.into / name, evaluation=found, system="hmsanet", about=about, licence="mit"
            )
        )


if __name__ == "__main__":
    main()
