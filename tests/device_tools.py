"""The device that tests of device evaluators use: emulated kernels, or a GPU with GRACE_TEST_DEVICE=cuda."""

from __future__ import annotations

import os

import pytest

DEVICE = os.environ.get("GRACE_TEST_DEVICE", "emulated:2")
KIND = DEVICE.split(":", maxsplit=1)[0]
IS_EMULATED = KIND == "emulated"
EMULATED_ONLY = pytest.mark.skipif(not IS_EMULATED, reason=f"about emulated kernels, GRACE_TEST_DEVICE={DEVICE}")
# The devices of tests that ask whether results depend on the order of blocks and threads: on a GPU there is one.
ORDERS = [f"emulated:{seed}" for seed in range(5)] if IS_EMULATED else [DEVICE]
