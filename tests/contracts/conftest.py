"""One fixture for all that is said of every suite."""

import pytest
from suite_cases import AGAIN, CASES, Case

# Every suite, every protocol and every kind of data; their product is for slow tests.
ENOUGH = {("data_space", "grey"), ("data_space", "vectors")}


def params() -> list:
    slow = [pytest.mark.slow]
    return [pytest.param(each, marks=slow if each[0] in AGAIN or each[1:] not in ENOUGH else []) for each in CASES]


@pytest.fixture(params=params(), ids="-".join)
def case(request) -> Case:
    return Case(*request.param)
