"""One self-contained page about all runs of a folder; prints its path.

python -m experiments.report runs=runs
python -m experiments.report runs=runs/purevlm out=purevlm.html
"""

from __future__ import annotations

from pathlib import Path

from experiments.command import entry
from vlm.build import Composed
from vlm.contracts.settings import ReportConfig
from vlm.reporting.html import write_report


@entry("report", ReportConfig)
def main(composed: Composed) -> None:
    runs, out = Path(composed.config["runs"]), composed.config["out"]
    print(write_report(runs, Path(out) if out else runs / "report.html"))


if __name__ == "__main__":
    main()
