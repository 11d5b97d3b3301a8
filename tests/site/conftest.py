"""What makes the pages of the site can be imported without Sphinx."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "_ext"))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
