"""The two ways a command can end badly, apart from being interrupted."""


class BadInput(Exception):
    """The user asked for something impossible: one line saying what was expected, what came and which
    key to change. Exit code 2, nothing written."""


class JobFailed(Exception):
    """The request was fine, the job was not (NaN loss, full disk): one line. Exit code 1."""


class DataMissing(BadInput):
    """The files of a data set are not on this machine; the jobs of other data sets can be done."""


class Busy(BadInput):
    """Another process has this run; the job can be done later, or by waiting."""
