"""Fixtures that tests of several folders share."""

from __future__ import annotations

import pytest

from reference_data import BUNDLED, REFERENCE_NAMES, ReferenceSet, load_reference


@pytest.fixture(scope="session", params=REFERENCE_NAMES)
def reference_set(request: pytest.FixtureRequest) -> ReferenceSet:
    """Every model with reference results: the bundled ones, and the full set where it exists."""
    return load_reference(request.param)


@pytest.fixture(scope="session", params=list(BUNDLED))
def bundled_set(request: pytest.FixtureRequest) -> ReferenceSet:
    """One small model of one layer and one of two layers."""
    return load_reference(request.param)
