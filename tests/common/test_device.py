"""Devices by name."""

import pytest
import torch

from common import device
from common.device import one_thread, pick_device, pick_dtype
from common.errors import SnowdropError


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(SnowdropError, match="server_device = 'abacus' cannot be used"):
        pick_device("abacus")
    with pytest.raises(SnowdropError, match="--device = 'abacus' cannot be used"):
        pick_device("abacus", "--device")


@pytest.mark.parametrize("able", [True, False])
def test_dtypes(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(device, "has_bfloat16", lambda: able)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert pick_dtype("auto", cpu) is (torch.bfloat16 if able else torch.float32)
    assert pick_dtype("auto", gpu) is torch.float32
    for one in (cpu, gpu):
        assert pick_dtype("float32", one) is torch.float32
        assert pick_dtype("bfloat16", one) is torch.bfloat16


@pytest.mark.parametrize("able", [{"avx512_bf16": True}, {"amx_bf16": True}, {"avx2": True}, {}])
def test_bfloat16_is_taken_where_the_processor_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert device.has_bfloat16() == any("bf16" in name for name in able)


def test_a_torch_that_cannot_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert pick_dtype("auto", torch.device("cpu")) is torch.float32


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
