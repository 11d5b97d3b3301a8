"""Where ``robode`` and ``python -m robode`` begin: Ctrl-C ends them without a word until they can say one."""

import signal
import sys


def main() -> int:
    """The command line. Its imports take a tenth of a second, in which nothing has been done that could be cut off."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from robode.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
