"""Are the intervals and tests of a study what they say? 10,000 studies of which the truth is known,
in each of three worlds.

    python benchmarks/simulated_studies.py [--json FILE]

An interval should cover the truth in 95 % of the studies, a test find what is not there in 5 % at
most, and Holm's adjustment keep that for the five contrasts of a study together, whether two of
them have a difference in truth or none has.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from cpsam.study.simulation import WORLDS, simulate

SEEDS = (3, 6, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the table here too")
    asked = parser.parse_args()
    rows = [
        {
            "world": world,
            "seeds": n,
            **asdict(simulate(world, n)),
            "family_of_nulls": simulate(world, n, false=0).family,
        }
        for world in WORLDS
        for n in SEEDS
    ]
    print(
        f"{'world':24}{'seeds':>7}{'interval covers':>17}{'t-test':>9}{'sign-flip':>11}"
        f"{'Holm, 3 of 5 null':>19}{'all null':>10}"
    )
    for row in rows:
        rates = (
            f"{row['coverage']:>17.1%}{row['t_test']:>9.1%}{row['sign_flip']:>11.1%}"
            f"{row['family']:>19.1%}{row['family_of_nulls']:>10.1%}"
        )
        print(f"{row['world']:24}{row['seeds']:>7}{rates}")
    if asked.json:
        asked.json.write_text(
            json.dumps({"schema": 1, "studies": 10_000, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
