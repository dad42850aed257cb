"""Fixtures of the tests of operators."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

# Without torch there is nothing to test; other files say so themselves.
collect_ignore_glob = [] if find_spec("torch") else ["test_layout.py", "test_model*.py", "test_presets.py"]


@pytest.fixture(params=["baseline", "v3", "v4"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every instruction set that this build has and this processor runs."""
    from grace_md._core import Error, bond_radial_basis

    monkeypatch.setenv("GRACE_MD_ISA", request.param)
    try:
        bond_radial_basis(True, 1, 1, 0, 0, 0, 0, 1)
    except Error as error:
        pytest.skip(str(error))
    return str(request.param)
