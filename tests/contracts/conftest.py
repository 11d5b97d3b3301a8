"""One fixture for all that is said of every suite."""

import pytest
from suite_cases import CASES, Case


@pytest.fixture(params=CASES, ids="-".join)
def case(request) -> Case:
    return Case(*request.param)
