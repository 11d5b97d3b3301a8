"""A small training and the fast tests, in a new environment with one end of the versions that pyproject.toml admits.

python scripts/try_versions.py lowest --python python3.11
python scripts/try_versions.py newest --python python3.13 --also omegaconf==2.4.0

The environment lies in a temporary folder, takes 6 GB, and is removed in the end. Fails where a test fails, or where
the training writes anything but robode's own lines to stderr. `cpu` tries what `make` installs with another Python.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", choices=["lowest", "newest", "cpu"], help="constraints-END.txt")
    parser.add_argument("--python", default=sys.executable, help="of the environment (default: this one)")
    parser.add_argument("--also", nargs="*", default=[], help="releases installed on top, whatever others ask for")
    words, tests = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        python = installed(Path(folder, "env"), words.python, CHECKOUT / f"constraints-{words.end}.txt", words.also)
        failed = [train(python, Path(folder)), fast_tests(python, tests)]
    return int(any(failed))


def installed(env: Path, python: str, constraints: Path, also: list[str]) -> Path:
    """The Python of a new environment with robode and its tests."""
    subprocess.run([python, "-m", "venv", str(env)], check=True)
    pip = [str(env / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-c", str(constraints), "-e", f"{CHECKOUT}[dev]"], check=True)
    if also:
        subprocess.run([*pip, "install", "--quiet", "--no-deps", *also], check=True)
    subprocess.run([*pip, "freeze", "--exclude-editable"], check=True)
    return env / "bin" / "python"


def train(python: Path, folder: Path) -> bool:
    """Whether the small training fails, or anybody else than robode speaks."""
    done = subprocess.run(
        [str(python), "-m", "robode", "train", "experiment=smoke"], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    others = [line for line in done.stderr.splitlines() if not line.startswith("robode: ")]
    print(*others, f"training: exit code {done.returncode}, {len(others)} lines of others on stderr", sep="\n")
    return bool(done.returncode or others)


def fast_tests(python: Path, more: list[str]) -> bool:
    """Whether one of them fails. more: words for pytest."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *more]
    return bool(subprocess.run(command, cwd=CHECKOUT, env=one_thread).returncode)


if __name__ == "__main__":
    sys.exit(main())
