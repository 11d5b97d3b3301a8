"""Build sdist and wheel as they would be published, look at what is in them, and use the wheel the way a user does who
has no checkout: unpacked, from an empty folder.

python scripts/check_wheel.py [--keep dist]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

CHECKOUT = Path(__file__).resolve().parents[1]
PLACES = {"src/robode": "robode", "conf": "robode/conf", "templates": "robode/templates"}
"""Folders of the checkout, and where a wheel has them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder to leave the sdist and the wheel in")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        built = words.keep or Path(folder, "dist")
        wheel = _built(built)
        straight = _built(Path(folder, "straight"), "--wheel")
        with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(straight) as other:
            wrong = [*_unlike(archive, other), *_missing(archive), *_metadata(archive)]
            archive.extractall(Path(folder, "site"))
        wrong += _used(Path(folder, "site"), Path(folder, "empty"))
    print(*wrong, f"check_wheel: {wheel.name}, {len(wrong)} wrong", sep="\n")
    return int(bool(wrong))


def _built(folder: Path, *words: str) -> Path:
    """The wheel that `python -m build` makes, by way of the sdist unless the words say something else."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), *words, str(CHECKOUT)], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    (wheel,) = folder.glob("robode-*.whl")
    return wheel


def _unlike(archive: zipfile.ZipFile, other: zipfile.ZipFile) -> list[str]:
    """Files that the wheel of the sdist and that of the checkout do not have alike."""
    there, here = ({each.filename: each.CRC for each in wheel.infolist()} for wheel in (archive, other))
    return [
        f"{name}: differs by way of the sdist" for name in sorted(there | here) if there.get(name) != here.get(name)
    ]


def _missing(archive: zipfile.ZipFile) -> list[str]:
    """Files of the package that the wheel lacks, and others that it has."""
    expected = {
        f"{inside}/{file.relative_to(CHECKOUT / place).as_posix()}"
        for place, inside in PLACES.items()
        for file in (CHECKOUT / place).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    found = {name for name in archive.namelist() if ".dist-info/" not in name}
    return [f"{name}: in the wheel or in the checkout alone" for name in sorted(expected ^ found)]


def _metadata(archive: zipfile.ZipFile) -> list[str]:
    """What an index would refuse, and what the metadata must say."""
    (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
    metadata = Metadata.from_email(archive.read(name), validate=True)
    said = {"a summary": metadata.summary, "a licence": metadata.license_expression, "a README": metadata.description,
            "the Pythons": metadata.requires_python, "classifiers": metadata.classifiers}  # fmt: skip
    return [f"METADATA lacks {what}" for what, value in said.items() if not value]


def _used(site: Path, empty: Path) -> list[str]:
    """What goes wrong when the unpacked wheel is used from an empty folder."""
    empty.mkdir()
    where = "import robode.config.paths; print(robode.config.paths.conf_dir())"
    made = ["-m", "robode", "init", str(empty.with_name("made_lab"))]
    for words in (["-c", where], ["-m", "robode", "list"], ["-m", "robode", "train", "--cfg"], made):
        print(_in_empty_folder([sys.executable, *words], site, empty).splitlines()[0])
    return [f"the commands left {each} behind" for each in empty.iterdir()]


def _in_empty_folder(command: list[str], site: Path, empty: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=empty, env=environment, check=True, capture_output=True, text=True)
    if str(CHECKOUT) in done.stdout:
        raise SystemExit(f"{command}: used the checkout instead of the wheel")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
