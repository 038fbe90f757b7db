"""Devices by name."""

import pytest
import torch

from common.device import one_thread, pick_device
from common.errors import SnowdropError


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(SnowdropError, match="server_device = 'abacus' cannot be used"):
        pick_device("abacus")
    with pytest.raises(SnowdropError, match="--device = 'abacus' cannot be used"):
        pick_device("abacus", "--device")


def test_one_thread_within_and_as_many_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with pytest.raises(ZeroDivisionError), one_thread():
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
