"""How many threads a process computes with."""

import os

import pytest

from retract.threads import cores, given_to_children, threads


@pytest.mark.parametrize(
    ("given", "found"), [("3", 3), ("2,4", 2), ("", None), ("0", None), ("many", None), (None, None)]
)
def test_threads_are_those_of_the_environment_or_the_cores(given, found, monkeypatch):
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads() == (found or cores())


def test_the_environment_of_children_is_theirs_alone_even_if_they_fail(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before, inside = dict(os.environ), {}

    def fails():
        with given_to_children(3):
            inside.update(os.environ)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert {inside[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")} == {"3"}
    assert dict(os.environ) == before
