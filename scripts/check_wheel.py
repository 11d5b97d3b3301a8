"""Build the wheel and use it the way a user does who has no checkout: unpacked, from an empty folder.

python scripts/check_wheel.py
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        site, empty = Path(folder, "site"), Path(folder, "empty")
        empty.mkdir()
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
        subprocess.run([*pip, str(CHECKOUT)], check=True)
        (wheel,) = Path(folder).glob("robode-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        where = "import robode.config.paths; print(robode.config.paths.conf_dir())"
        for words in (["-c", where], ["-m", "robode", "list"], ["-m", "robode", "train", "--cfg"]):
            print(_in_empty_folder([sys.executable, *words], site, empty).splitlines()[0])
        left = list(empty.iterdir())
        if left:
            print(f"the commands left {left} behind", file=sys.stderr)
    return 1 if left else 0


def _in_empty_folder(command: list[str], site: Path, empty: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=empty, env=environment, check=True, capture_output=True, text=True)
    if str(CHECKOUT) in done.stdout:
        raise SystemExit(f"{command}: used the checkout instead of the wheel")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
