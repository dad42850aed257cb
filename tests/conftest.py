"""Fixtures that tests of several folders share."""

from __future__ import annotations

import os

import pytest

from device_tools import HAS_TORCH
from reference_data import BUNDLED, REFERENCE_NAMES, ReferenceSet, load_reference

# Tests that do not name a device are those of the CPU, also on a machine with a GPU; processes they start inherit this.
os.environ.setdefault("GRACE_MD_DEVICE", "cpu")

collect_ignore = [] if HAS_TORCH else ["torch", "training"]


def pytest_report_header() -> str:
    """Say what is left out."""
    return "" if HAS_TORCH else "torch is not installed: tests/torch and tests/training are left out"


@pytest.fixture(scope="session", params=REFERENCE_NAMES)
def reference_set(request: pytest.FixtureRequest) -> ReferenceSet:
    """Every model with reference results: the bundled ones, and the full set where it exists."""
    return load_reference(request.param)


@pytest.fixture(scope="session", params=list(BUNDLED))
def bundled_set(request: pytest.FixtureRequest) -> ReferenceSet:
    """One small model of one layer and one of two layers."""
    return load_reference(request.param)
