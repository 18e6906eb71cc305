"""Metrics, received by a real Carbon."""

from .backends import graphite


def test_carbon_is_there() -> None:
    assert graphite.executable().is_file()
