"""README's table of figures, written from what a run of `make bench` measured.

python -m bench.readme_table [FIGURES.json] [README.md]
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from bench.figures import TARGETS, shown

ROOT: Final = Path(__file__).parents[1]
SNAPSHOT: Final = ROOT / "bench" / "figures" / "engines.json"
"""What the run measured that README speaks of, kept beside it."""
BEGINS: Final = "<!-- engines -->"
ENDS: Final = "<!-- /engines -->"


def table(figures: dict[str, Any]) -> str:
    """Markdown: a row per figure, what was measured, what it must and should reach."""
    lines = ["| figure | measured | least | aim | on what |", "|---|---|---|---|---|"]
    for key, target in TARGETS.items():
        row = figures[key]
        cells = [shown(key, row[name]) for name in ("value", "least", "aim")]
        conditions = " ".join(str(row["conditions"]).replace("|", "/").split())
        lines.append(f"| {target.what} (`{key}`) | {' | '.join(cells)} | {conditions} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str, figures: dict[str, Any]) -> str:
    """README with the block between its markers written anew.

    Raises:
        ValueError: README lacks a marker.
    """
    before, begins, rest = readme.partition(BEGINS)
    _, ends, after = rest.partition(ENDS)
    if not begins or not ends:
        raise ValueError(f"README has no {BEGINS!r} … {ENDS!r}; put both where the table belongs")
    return f"{before}{BEGINS}\n{table(figures)}{ENDS}{after}"


def main(figures: str = str(SNAPSHOT), readme: str = str(ROOT / "README.md")) -> None:
    """Rewrite the block."""
    said = json.loads(Path(figures).read_text(encoding="utf-8"))["figures"]
    path = Path(readme)
    path.write_text(with_table(path.read_text(encoding="utf-8"), said), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
