"""``python -m robode`` is the same command as ``robode``."""

import sys

from robode.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
