"""What every implementation of a contract has to pass: suites to inherit, with tasks that are tiny and pure NumPy.

A subclass of a suite provides an implementation; pytest then runs the suite's statements on it.
"""

import pytest

pytest.register_assert_rewrite(*(f"tests.contracts.{suite}" for suite in ("device_stores", "engines", "ledgers")))
