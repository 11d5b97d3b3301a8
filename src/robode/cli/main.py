"""The command ``robode``: verbs, help, exit codes. Standard library only until a verb needs more.

Exit codes: 0 done; 1 a job failed; 2 bad input; 130 interrupted (Ctrl-C); 143 terminated (SIGTERM); 129 hung up;
138 preempted (SIGUSR1, of which a cluster's scheduler warns).
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from robode import __version__
from robode.cli.streams import forgiving
from robode.errors import BadInput
from robode.process import prepare

if TYPE_CHECKING:
    from robode.config.jobs import Outcome

USAGE = """\
usage: robode <verb> [key=value ...]

  train       train a network, evaluate it under noise, write figures and a report
  evaluate    evaluate a trained run again, without training: robode evaluate run=RUN suite=noise
  certify     certified Lipschitz constants and accuracy of a run, or of your own module: robode certify run=RUN
  export      weights, certificate and a program for torch alone: robode export run=RUN to=FOLDER
  stabilise   trained weights projected until their log-norm is at most delta: robode stabilise run=RUN delta=0
  reproduce   a table or figure of a paper, beside its published values: robode reproduce chnode_2022/table1 size=smoke
  runs        what lies under outputs/, a line a run: robode runs where="model=chnode state=done" sort=validation
  compare     runs side by side: configurations, curves, paired tests of their scores: robode compare RUN RUN
  report      tables and pages of what was run: robode report [RUN ...|PAPER/ITEM]
  clean       what could be deleted, and how much that would free: robode clean what=failed,checkpoints older=7d
  check       hold the contracts against a package of yours or one part: robode check PACKAGE, robode check model=NAME
  init        a small project of your own, with a family, a data set, a paper and tests: robode init FOLDER
  list        what can be chosen: models, data, suites, integrators, encoders, heads, objectives, experiments, papers, …
  completion  print the completion script of a shell: bash, zsh or fish

  robode <verb> --help explains a verb;  robode --version prints the version
"""
COMPOSED = ("train", "evaluate", "certify", "export", "stabilise")  # verbs with a primary configuration of their name
OTHERS = ("reproduce", "runs", "compare", "report", "clean", "check", "init", "list")
FLAGS = {"runs": ("watch", "json"), "clean": ("yes",)}
INTERRUPTED = 130
ENDS = {
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
    signal.SIGUSR1: "preempted",
}  # exit code: 128 and the number


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    prepare()
    with _termination() as received, forgiving():
        try:
            return _dispatch(words)
        except (KeyboardInterrupt, SystemExit) as stop:
            return _stopped(stop, received)
        except Exception as error:
            from robode.config.jobs import failure

            outcome = failure(error)
            return _complain(outcome.error, outcome.code)


def _dispatch(words: list[str]) -> int:
    verb, rest = (words[0], words[1:]) if words else ("--help", [])
    if verb in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if verb == "--version":
        print(f"robode {__version__}")
        return 0
    if verb == "list":
        from robode.verbs.list import run_list

        return run_list(rest)
    if verb == "completion":
        from robode.cli.completion import run_completion

        return run_completion(rest)
    if verb in COMPOSED:
        return _run_composed(verb, rest)
    if verb in ("reproduce", "report"):
        return _run_paper_verb(verb, rest)
    if verb == "check":
        return _run_check(rest)
    if verb in ("runs", "compare", "clean", "init"):
        return _run_words(verb, rest)
    raise BadInput(f"unknown verb '{verb}': choose {', '.join(COMPOSED)}, {', '.join(OTHERS)} or completion")


class _Parser(argparse.ArgumentParser):
    """Of a verb: --config-dir and --help, and what is added."""

    def __init__(self, verb: str) -> None:
        super().__init__(prog=f"robode {verb}", add_help=False, allow_abbrev=False)
        self.add_argument("--config-dir", action="append", default=[], type=_folder)
        self.add_argument("-h", "--help", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{self.prog}: {message}")


def _folder(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _run_composed(verb: str, words: list[str]) -> int:
    parser = _Parser(verb)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(words)
    if given.help:
        from robode.cli.help import verb_help

        print(verb_help(verb, given.config_dir))
        return 0
    from robode.config.compose import Request
    from robode.verbs.composed import look_ahead, run_composed, show_config

    request = Request(verb, tuple(given.overrides), given.multirun, tuple(given.config_dir))
    if given.dry_run:
        jobs, forecasts = look_ahead(request)
        from rich.console import Console

        from robode.report.sweep import show_forecasts

        show_forecasts(jobs, forecasts, Console())
        return 0
    if given.cfg:
        print(show_config(request), end="")
        return 0
    return _ended(run_composed(request))


def _run_paper_verb(verb: str, words: list[str]) -> int:
    parser = _Parser(verb)
    if verb == "reproduce":
        parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("words", nargs="*")
    given = parser.parse_intermixed_args(words)
    if given.help:
        from robode.papers.selection import usage

        print(usage(verb, given.config_dir))
        return 0
    if verb == "report":
        from robode.verbs.report import run_report

        return run_report(given.words, tuple(given.config_dir))
    from robode.verbs.reproduce import run_reproduce

    return run_reproduce(given.words, tuple(given.config_dir), given.dry_run)


def _run_check(words: list[str]) -> int:
    from robode.contracts.check import HELP, run_check

    parser = _Parser("check")
    parser.add_argument("words", nargs="*")
    given = parser.parse_intermixed_args(words)
    if given.help:
        print(HELP)
        return 0
    return run_check(given.words, given.config_dir)


def _run_words(verb: str, words: list[str]) -> int:
    """A verb with words of its own, key=value or names, and maybe flags."""
    module = import_module(f"robode.verbs.{verb}")
    parser = _Parser(verb)
    for flag in FLAGS.get(verb, ()):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("words", nargs="*")
    given = vars(parser.parse_intermixed_args(words))
    if given.pop("help"):
        print(module.HELP, end="")
        return 0
    if given.pop("config_dir"):
        raise BadInput(f"robode {verb}: takes no --config-dir; robode {verb} --help explains it")
    done: int = getattr(module, f"run_{verb}")(**given)
    return done


@contextmanager
def _termination() -> Iterator[list[int]]:
    """SIGTERM, SIGHUP (a terminal that is closed) and SIGUSR1 (a scheduler that wants the machine) end a job the way
    Ctrl-C does: the run is marked and can be resumed. Yields what came. What the caller ignores (nohup) stays
    ignored."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def terminate(signum: int, frame: object) -> None:
        received.append(signum)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (*ENDS, signal.SIGINT)}
    for number in ENDS:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, terminate)
    if before[signal.SIGINT] == signal.SIG_DFL:  # of `robode.__main__`, until now
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(stop: BaseException, received: list[int]) -> int:
    """Exit code of a job that a signal ended; Lightning turns KeyboardInterrupt into SystemExit."""
    if received:
        return _complain(ENDS[signal.Signals(received[0])], 128 + received[0])
    cause: BaseException | None = stop
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    if cause is None:
        raise stop
    return _complain("interrupted", INTERRUPTED)


def _ended(outcomes: "list[Outcome]") -> int:
    """Say how the jobs ended. Exit code: the job's own, or 1 for a sweep with failures."""
    failed = [(number, outcome) for number, outcome in enumerate(outcomes) if outcome.code]
    if len(outcomes) == 1:
        return _complain(failed[0][1].error, failed[0][1].code) if failed else 0
    from rich.console import Console

    from robode.report.sweep import show_outcomes

    show_outcomes(outcomes, Console())
    for number, outcome in failed:
        _complain(f"job {number} ({' '.join(outcome.overrides)}): {outcome.error}", 1)
    return 1 if failed else 0


def _complain(line: str, code: int) -> int:
    print(f"robode: {line}", file=sys.stderr)
    return code
