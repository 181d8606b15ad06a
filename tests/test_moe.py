"""A mixture of experts: the paper's parameters, the router, its balance, and the conformance list of the mixers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hybrid_nas_kernels.experts import experts
from hybrid_nas_kernels.experts.by_expert import WHOLE
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.cost import cost, ffn_params
from hybrid_nas.model import build
from hybrid_nas.moe import BALANCE_STEP, MoE

WIDTH, TOKENS = 24, 45
FFN = MoE(hidden=16, experts=5, active=2)
MODEL = Architecture(
    WIDTH, 11, (Block(Attention(4, 2, 6), FFN), Block(Mamba2(48, 12, 16), MoE(8, 4)), Block(None, SwiGLU(8)))
)


def tokens(seed: int = 0, length: int = TOKENS) -> torch.Tensor:
    return torch.randint(11, (2, length), generator=torch.Generator().manual_seed(seed))


def test_parameters_are_those_of_cost() -> None:
    model = build(MODEL, generator=0)
    counted = cost(MODEL, TOKENS)
    assert sum(p.numel() for p in model.parameters()) == counted.params
    idle = 3 * 3 * WIDTH * 16 + 3 * 3 * WIDTH * 8  # 3 of 5 experts of 16 channels, and 3 of 4 of 8
    assert counted.params_active == counted.params_nonembedding - idle
    assert counted.train_flops_per_token == pytest.approx(
        cost(replace(MODEL, blocks=tuple(Block(b.mixer, None) for b in MODEL.blocks[:2])), TOKENS).train_flops_per_token
        + 6 * (2 * WIDTH + ffn_params(FFN, WIDTH, True) + ffn_params(MoE(8, 4), WIDTH, True) + WIDTH + 3 * WIDTH * 8)
    )


def test_tokens_use_what_cost_says() -> None:
    """torch counts the products of router and experts: the active weights of 64 tokens less the shared expert's, twice,
    and rows that fill an expert up to 8."""
    ffn = build(MODEL, generator=0).blocks[0].ffn
    one = 3 * WIDTH * FFN.hidden
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        n = torch.randn(64, WIDTH)
        experts(n, *ffn.route(n), ffn.gate, ffn.up, ffn.down)
    filled = counter.get_total_flops() - 64 * 2 * (ffn_params(FFN, WIDTH, active=True) - one)
    assert filled % (2 * one) == 0
    assert 0 <= filled <= FFN.experts * (WHOLE - 1) * 2 * one


def test_forward_is_the_sum_written_out() -> None:
    """Every token by itself: sigmoid scores, the best two with their bias, the shared expert and those two."""
    ffn = build(MODEL, generator=0).blocks[0].ffn.double()
    ffn.balance.copy_(torch.tensor([300, -200, 0, 100, -100]))
    x = torch.randn(7, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    norm = torch.linspace(0.5, 1.5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        got = ffn(x, norm)
    biased = False
    with torch.no_grad():
        for t in range(7):
            n = x[t] / (x[t].square().mean() + 1e-5).sqrt() * norm
            score = 1 / (1 + torch.exp(-(ffn.router.weight @ n)))
            ranked = (score + BALANCE_STEP * ffn.balance).argsort(descending=True)[:2].tolist()
            biased |= set(ranked) != set(score.topk(2).indices.tolist())
            expected = ffn.shared_down(F.silu(ffn.shared_gate(n)) * ffn.shared_up(n))
            for e in ranked:
                expected = expected + score[e] * (ffn.down[e] @ (F.silu(ffn.gate[e] @ n) * (ffn.up[e] @ n)))
            torch.testing.assert_close(got[t], expected, rtol=0, atol=1e-6)
    assert biased  # the bias did change a choice, and changed no weight


def test_the_balance_moves_against_the_load_in_training_alone() -> None:
    ffn = build(MODEL, generator=0).blocks[0].ffn
    x, norm = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(2)), torch.ones(WIDTH)
    chosen, _ = ffn.route(F.rms_norm(x, (WIDTH,), norm, 1e-5))
    load = torch.bincount(chosen.flatten(), minlength=5)
    with torch.no_grad():
        ffn(x, norm)
    ffn.eval()
    ffn(x, norm)
    assert ffn.balance.tolist() == [0] * 5
    ffn.train()
    ffn(x, norm)
    assert ffn.balance.tolist() == [(n < 16) - (n > 16) for n in load.tolist()]  # 40 tokens, 2 of 5: 16 each
    assert not ffn.balance.requires_grad


def test_the_balance_evens_the_load() -> None:
    """A router that prefers one expert for every token is balanced by the bias alone, with no gradient."""
    ffn = build(MODEL, generator=0).blocks[1].ffn
    generator = torch.Generator().manual_seed(3)
    tilt = torch.randn(WIDTH, generator=generator)
    ffn.router.weight.data.mul_(0.1)
    ffn.router.weight.data[0] += 0.02 * tilt

    def load() -> list[float]:
        x = torch.randn(400, WIDTH, generator=generator) + tilt
        chosen, _ = ffn.route(F.rms_norm(x, (WIDTH,), torch.ones(WIDTH), 1e-5))
        ffn(x, torch.ones(WIDTH))
        return (torch.bincount(chosen.flatten(), minlength=4) / 400).tolist()

    first = load()
    for _ in range(600):
        last = load()
    assert max(first) > 0.6
    assert max(last) < 0.4


def test_gradients_reach_every_parameter() -> None:
    model = build(MODEL, generator=0)
    model.loss(tokens(), tokens(1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_step_by_step_is_forward() -> None:
    model = build(MODEL, generator=0)
    cache = model.cache(2, TOKENS)
    assert cache.nbytes == 2 * cost(MODEL, TOKENS, 4).cache_bytes
    with torch.no_grad():
        whole = model(tokens())
    steps = torch.stack([model.step(token, cache) for token in tokens().unbind(1)], 1)
    torch.testing.assert_close(steps, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changed", [0, 17, TOKENS - 1])
def test_causality(changed: int) -> None:
    """Bit-equal before the changed token, though experts then read other numbers of rows."""
    model, x = build(MODEL, generator=0), tokens()
    other = x.clone()
    other[:, changed] = (other[:, changed] + 1) % 11
    with torch.no_grad():
        before, after = model(x), model(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.equal(before[:, changed], after[:, changed])


def test_one_seed_one_training() -> None:
    def trained(seed: int) -> list[torch.Tensor]:
        model = build(MODEL, generator=seed)
        adamw = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(4):
            adamw.zero_grad()
            model.loss(tokens(step), tokens(step + 1)).backward()
            adamw.step()
        return list(model.state_dict().values())

    first, second, other = trained(0), trained(0), trained(1)
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, other))


def test_a_saved_state_keeps_the_balance() -> None:
    model, other = build(MODEL, generator=0), build(MODEL, generator=1)
    model.loss(tokens(), tokens(1)).backward()
    other.load_state_dict(model.state_dict())
    assert other.blocks[0].ffn.balance.any()
    with torch.no_grad():
        assert torch.equal(model(tokens()), other(tokens()))


def test_bfloat16_keeps_the_balance_whole() -> None:
    model = build(MODEL, generator=0, dtype=torch.bfloat16)
    for _ in range(3):
        model.loss(tokens(), tokens(1)).backward()
    assert model.blocks[0].ffn.balance.dtype == torch.long
    assert int(model.blocks[0].ffn.balance.abs().max()) == 3


def test_dimensions_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="at most all 4 experts can be active, found active=5"):
        MoE(8, 4, 5)
    with pytest.raises(ValueError, match="experts must be a positive whole number, found 0"):
        MoE(8, 0)
