"""One fixture for all that is said of every suite."""

import pytest
from suite_cases import AGAIN, CASES, Case


def params() -> list:
    return [pytest.param(case, marks=[pytest.mark.slow] if case[0] in AGAIN else []) for case in CASES]


@pytest.fixture(params=params(), ids="-".join)
def case(request) -> Case:
    return Case(*request.param)
