"""LoRA's products on a CPU against plain formulas: each token has its own adapter, or none."""

from __future__ import annotations

import torch


def test_each_stretch_has_its_adapter_and_the_base_model_s_tokens_none() -> None:
    from steersight.engine.lora_cpu import expand_slice, shrink

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(9, 16, generator=generator)
    a, b = torch.randn(2, 1, 4, 16, generator=generator), torch.randn(2, 1, 6, 4, generator=generator)
    lengths, adapters = torch.tensor([3, 2, 4]), torch.tensor([1, -1, 0])
    of_token = [1, 1, 1, -1, -1, 0, 0, 0, 0]
    starts = torch.tensor([0, 3, 5])
    inner, output = torch.zeros(9, 4), torch.randn(9, 10, generator=generator)
    before = output.clone()
    shrink(x, a, inner, starts, lengths, adapters, 3, 4, 9, 0.5)
    expand_slice(inner, b, output, starts, lengths, adapters, 3, 4, 9, 2, 6, add_inputs=True)
    for row, adapter in enumerate(of_token):
        added = torch.zeros(6) if adapter < 0 else b[adapter, 0] @ (0.5 * a[adapter, 0] @ x[row])
        assert torch.allclose(output[row, 2:8], before[row, 2:8] + added, atol=1e-5)
    assert torch.equal(output[:, :2], before[:, :2])
    assert torch.equal(output[:, 8:], before[:, 8:])
    assert torch.equal(output[3:5], before[3:5])
