"""Devices by name."""

import pytest
import torch

from common.device import pick_device
from common.errors import SnowdropError


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(SnowdropError, match="server_device = 'abacus' cannot be used"):
        pick_device("abacus")
    with pytest.raises(SnowdropError, match="--device = 'abacus' cannot be used"):
        pick_device("abacus", "--device")
