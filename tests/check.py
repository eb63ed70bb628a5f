"""python -m tests.check PART...: all of them even if one fails, and the seconds of each at the end.

`slow` asks package registries, and nothing else on the network: published packages are fetched into <paths.data>/.cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from experiments.ledger import Ledger

ROOT = Path(__file__).resolve().parents[1]
PARTS = {
    "lint": ["ruff", "check", "."],
    "types": ["pyright", "--pythonpath", sys.executable],
    # One process a core, at most two: the files of a room are spread over them, the tests of a file stay together.
    "tests": ["pytest", "-m", "not slow and not network", "-n", str(min(2, os.cpu_count() or 1)), "--dist", "loadfile"],
    "slow": ["pytest", "-m", "slow or published"],
}
ENVIRONMENT = {"slow": {"FETCH_PUBLISHED": "1"}}  # a package that cannot be had is then a failure, not a skipped test


def main(names: list[str]) -> int:
    ledger, failed = Ledger(), False
    for name in names:
        print(f"== {name}: {' '.join(PARTS[name])}", flush=True)
        with ledger.part(name) as notes:
            environment = os.environ | ENVIRONMENT.get(name, {})
            code = subprocess.run([sys.executable, "-m", *PARTS[name]], cwd=ROOT, env=environment).returncode
            notes.append("failed" if code else "passed")
            failed |= code != 0
    print(ledger)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
