"""The device that tests of device evaluators use: emulated kernels, or a GPU with GRACE_TEST_DEVICE=cuda; and torch."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

DEVICE = os.environ.get("GRACE_TEST_DEVICE", "emulated:2")
KIND = DEVICE.split(":", maxsplit=1)[0]
IS_EMULATED = KIND == "emulated"
EMULATED_ONLY = pytest.mark.skipif(not IS_EMULATED, reason=f"about emulated kernels, GRACE_TEST_DEVICE={DEVICE}")
# Without torch the folder tests/torch is found in its place, as a package without a file of its own; importing that
# would mislead other packages.
_torch = find_spec("torch")
HAS_TORCH = _torch is not None and _torch.origin is not None
# The devices of tests that ask whether results depend on the order of blocks and threads: on a GPU there is one.
ORDERS = [f"emulated:{seed}" for seed in range(5)] if IS_EMULATED else [DEVICE]
