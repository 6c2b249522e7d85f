"""What NNsight does to every module, and that it is out of the way where no trace takes part."""

from __future__ import annotations

import pytest
import torch


class Small(torch.nn.Module):
    """One layer, and one module that has a `forward` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.odd = torch.nn.Identity()
        self.odd.forward = lambda value: value * 2  # type: ignore[assignment,method-assign]

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.odd(self.layer(value))
        return changed


def test_what_nnsight_carries_is_counted() -> None:
    from steersight.engine.nnsight_adapter import TracedRunner  # isort: split

    from nnsight.modeling.vllm.model_runners.GPUModelRunner import Request, Requests

    runner = object.__new__(TracedRunner)
    # As NNsight's `load_model` makes it.
    runner.nnsight_requests = Requests()
    assert runner.nnsight_held() == 0
    runner.nnsight_requests.requests["a"] = Request("a")
    assert runner.nnsight_held() == 1


def test_the_handoff_is_taken_off_and_put_back() -> None:
    from steersight.engine.nnsight_adapter import Handoff  # isort: split

    from nnsight import NNsight

    module = Small()
    plain = module(torch.ones(1, 2))
    traced = NNsight(module)
    held = {name: vars(part).get("forward") for name, part in module.named_modules()}
    assert all(held.values()), "NNsight no longer replaces forward; Handoff can go"
    handoff = Handoff(module)

    handoff.switch(False)
    left = {name for name, part in module.named_modules() if "forward" in vars(part)}
    assert left == {"odd"}
    assert torch.equal(module(torch.ones(1, 2)), plain)

    handoff.switch(True)
    assert {name: vars(part).get("forward") for name, part in module.named_modules()} == held
    with traced.trace(torch.ones(1, 2)):
        seen = traced.layer.output.save()
    assert torch.equal(seen * 2, plain)


def test_the_tree_is_built_without_touching_weights_on_any_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA too: a checkpoint whose tied head is stored once more made vLLM copy it from a meta tensor."""
    from steersight.engine import nnsight_adapter  # isort: split

    from vllm.model_executor.model_loader import base_loader

    def touching() -> list[object]:
        return [base_loader.process_weights_after_loading, base_loader.finalize_layerwise_processing]

    usual, seen = touching(), []
    monkeypatch.setattr(
        nnsight_adapter.VLLM,
        "_load_meta",
        lambda *_: seen.extend(now is before for now, before in zip(touching(), usual, strict=True)),
    )
    monkeypatch.setattr(type(nnsight_adapter.current_platform), "is_cpu", lambda _: False)
    nnsight_adapter.SteersightVLLM._load_meta(object.__new__(nnsight_adapter.SteersightVLLM), "a checkpoint")
    assert seen == [False, False]
    assert touching() == usual
