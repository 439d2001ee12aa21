"""How long ten million exposures take from the archive to a verdict, and how much memory.

python -m bench.ab_analysis                 both figures
python -m bench.ab_analysis FOLDER          one analysis in this process, as JSON

Time and memory are of a whole process, its start and imports included: the kernel's own count of
its peak (VmHWM).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson

from bench.ab_archive import ROOT, deployment, make
from bench.ab_figures import AbFigure
from serving.experiments.archive_units import units_of_archive
from serving.experiments.decision_rule import DecisionRule
from serving.experiments.verdict import decide

EXPOSURES: Final = 10_000_000
WINDOW_DAYS: Final = 7.0
_MOST_S: Final = 30.0
_MOST_GIB: Final = 2.0
_TIMEOUT_S: Final = 300.0
_GIB: Final = 1 << 30


def measure(say: Callable[[str], None], exposures: int = EXPOSURES) -> dict[str, AbFigure]:
    """``analysis_10m_s`` and ``analysis_10m_gib``, measured in a process of its own.

    Args:
        say: told what is done.
        exposures: how many; another number measures something else than the keys say.

    Raises:
        subprocess.SubprocessError: the analysis failed or took too long.
    """
    say(f"an archive of {exposures:,} exposures is made, where it is not there yet")
    began = time.perf_counter()
    folder = make(exposures)
    say(f"it lies in {folder} after {time.perf_counter() - began:.0f} s; it is analysed")
    began = time.perf_counter()
    found = json.loads(
        subprocess.run(
            [sys.executable, "-m", "bench.ab_analysis", str(folder)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            check=True,
            timeout=_TIMEOUT_S,
        ).stdout
    )
    seconds = time.perf_counter() - began
    read_gb = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    conditions = (
        f"{found['exposures']:,} exposures of {found['units']:,} units and {found['outcomes']:,} "
        f"outcomes that count (latest of several, within {WINDOW_DAYS:.0f} days) from "
        f"{read_gb:.2f} GB of zstd Parquet, every byte hashed against the manifest; verdict "
        f"({found['decision']}) and JSON included; a whole process with its start and imports"
    )
    say(f"{seconds:.1f} s, {found['gib']:.2f} GiB; by part: {found['parts']}")
    return {
        "analysis_10m_s": AbFigure(seconds, f"<= {_MOST_S:g}", conditions, seconds <= _MOST_S),
        "analysis_10m_gib": AbFigure(
            found["gib"], f"<= {_MOST_GIB:g}", conditions, found["gib"] <= _MOST_GIB
        ),
    }


def analyse(folder: Path) -> dict[str, object]:
    """Archive to verdict to JSON: what was counted, how long each part took, and the peak."""
    began = time.perf_counter()
    deployed = deployment()
    units = units_of_archive(
        folder, deployed.experiment_id, deployed.deployment_id, window_days=WINDOW_DAYS
    )
    read_s, read_gib = time.perf_counter() - began, _peak_gib()
    rule = DecisionRule(tuned_for_units=1_000_000)
    verdict = decide(units, deployed, rule)
    text = verdict.model_dump_json()
    return {
        "exposures": sum(verdict.exposures.values()),
        "outcomes": sum(verdict.outcomes.values()),
        "units": sum(verdict.units.values()),
        "decision": verdict.decision,
        "json_bytes": len(text),
        "parts": {
            "units_s": round(read_s, 1),
            "units_gib": round(read_gib, 2),
            "verdict_s": round(time.perf_counter() - began - read_s, 1),
        },
        "gib": _peak_gib(),
    }


def _peak_gib() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / _GIB
    raise RuntimeError("the kernel does not say VmHWM; measure on Linux")


def main() -> None:
    """One analysis of a folder, or both figures."""
    if len(sys.argv) > 1:
        print(orjson.dumps(analyse(Path(sys.argv[1]))).decode())
        return
    from bench.progress import say

    for key, figure in measure(say).items():
        print(f"{key}: {figure.value:.2f} ({figure.bar}, met: {figure.met}); {figure.conditions}")


if __name__ == "__main__":
    main()
