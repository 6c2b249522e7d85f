"""The reductions of the logit lens against plain formulas in fp64, and the whole way over the wire."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steersight.client import Run, connect
from steersight.metrics import logit_lens
from steersight.protocol.messages import LensOptions

from .conftest import Server


@given(
    layers=st.integers(1, 4), runs=st.integers(1, 20), vocabulary=st.integers(5, 400),
    spread=st.sampled_from([0.1, 3.0, 60.0]), top=st.integers(1, 5), seed=st.integers(0, 99),
)  # fmt: skip
def test_reductions(layers: int, runs: int, vocabulary: int, spread: float, top: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, runs, vocabulary, generator=generator) * spread
    written = torch.randint(vocabulary, (runs,), generator=generator)
    found = logit_lens.read(logits, written, top)
    logp = torch.log_softmax(logits.double(), dim=-1)
    p = logp.exp()
    # log Z is as large as the logits, and fp32 rounds it accordingly.
    close = {"rtol": 1e-4, "atol": 1e-5 + 8e-6 * float(logits.abs().max())}
    assert torch.allclose(found.entropy.double(), -(p * logp).sum(-1), **close)
    assert torch.allclose(found.kl.double(), (p[-1] * (logp[-1] - logp)).sum(-1), **close)
    chosen = p.gather(-1, written.view(1, -1, 1).expand(layers, -1, 1))[..., 0]
    assert torch.allclose(found.probability.double(), chosen, **close)
    best = logits.topk(top, dim=-1)
    assert torch.equal(logits.gather(-1, found.top_ids.long()), best.values)
    assert torch.allclose(found.top_probabilities.double(), p.gather(-1, found.top_ids.long()), **close)
    final = logit_lens.read_final(logits[-1], written, entropy=True)
    assert final.entropy is not None
    assert torch.allclose(final.entropy, found.entropy[-1], **close)
    assert torch.allclose(final.logprobs.double(), logp[-1].gather(-1, written[:, None])[:, 0], **close)
    drawn = logits[-1].gather(-1, written[:, None])
    assert torch.equal(final.ranks.long(), (logits[-1] >= drawn).sum(-1))
    assert logit_lens.read_final(logits[-1], written, entropy=False).entropy is None
    some = torch.arange(0, runs, 2)
    ids, logprobs = logit_lens.read_alternatives(logits[-1, some], final.log_z[some], top)
    assert torch.equal(ids, found.top_ids[-1, some])
    assert torch.allclose(logprobs.double(), logp[-1, some].gather(-1, ids.long()), **close)


@given(st.integers(1, 130), st.integers(1, 140))
def test_the_last_layer_is_always_read(layers: int, stride: int) -> None:
    chosen = logit_lens.lens_layers(layers, stride)
    assert chosen[-1] == layers - 1
    assert chosen[0] < stride
    assert all(later - earlier == stride for earlier, later in pairwise(chosen))


def check_alternatives(run: Run, top: int) -> None:
    """Greedy: the first of them was written. They come without rows of the prompt and without metrics too."""
    start = len(run.prompt.ids)
    assert sorted(run.alternatives) == list(range(start - 1, start - 1 + len(run.ids)))
    assert sorted(run.revs) == list(range(start, start - 1 + len(run.ids)))
    for at, (token, logprob) in enumerate(zip(run.ids, run.logprobs, strict=True)):
        found = run.alternatives[start - 1 + at]
        assert len(found) == len({one for one, _, _ in found}) == top
        assert (found[0][0], found[0][2]) == (token, logprob)
        assert found[0][1].strip() == run.pieces[at].strip()
        assert [value for _, _, value in found] == sorted((value for _, _, value in found), reverse=True)


@pytest.mark.engine
@pytest.mark.timeout(300)
async def test_over_the_wire_with_a_neighbour_that_wants_other_layers(server: Server) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    sampling = {"max_tokens": 12, "temperature": 0}
    async with connect(f"ws://{server.address}/ws") as client:
        one = await client.start(question, sampling=sampling, lens=LensOptions(stride=4, top=3), entropy=True)
        other = await client.start(question, sampling=sampling, lens=LensOptions(stride=7, top=5), metrics=[])
        plain = await client.start(question, sampling=sampling, entropy=False)
        named = await client.start(
            question, sampling=sampling, metrics=[], alternatives=20, prompt_rows=False
        )
        for run in (one, other, plain, named):
            await run.wait()
    assert one.ids == other.ids == plain.ids
    assert plain.guesses == plain.alternatives == {}
    check_alternatives(named, 20)
    assert np.isnan(plain.entropy()).all()
    start = len(one.prompt.ids)
    for run, stride, top in ((one, 4, 3), (other, 7, 5)):
        layers = logit_lens.lens_layers(30, stride)
        read = [start - 1 + at for at in range(len(run.ids))]
        assert sorted(run.guesses) == read
        for at, position in enumerate(read):
            assert list(run.guesses[position]) == layers
            assert {len(guesses) for guesses in run.guesses[position].values()} == {top}
            # Greedy: the last layer's likeliest token is the one that was written.
            assert run.guesses[position][29][0][0].strip() == run.pieces[at].strip()
        rows = run.rows()[:, run.metrics.index("lens_probability")]
        known = np.isfinite(rows)
        assert known[read][:, layers].all()
        assert known.sum() == len(read) * len(layers)
        assert np.allclose(np.log(rows[read, 29]), run.logprobs, atol=2e-3)
    assert set(one.ranks) == {1}
    # The last layer's entropy is that of the final distribution.
    lens_entropy = one.rows()[:, one.metrics.index("lens_entropy"), 29]
    assert np.allclose(one.entropy(), lens_entropy, atol=2e-3, equal_nan=True)
    assert one.metrics[:3] == plain.metrics
    assert other.metrics == ["lens_entropy", "lens_probability", "lens_kl"]
