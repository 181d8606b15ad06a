import math

import pytest
import torch
from torch.nn import functional as F

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.cost import cost
from hybrid_nas.design import Design, Ratio
from hybrid_nas.model import build
from hybrid_nas.scale import PROXY

ATTENTION = Attention(heads=4, kv_heads=2, head_dim=8)
WINDOW = Attention(heads=4, kv_heads=1, head_dim=8, window=6, sinks=2)
MAMBA = Mamba2(d_ssm=64, head_dim=16, d_state=8)
FFN = SwiGLU(48)
HYBRID = Architecture(
    32, 50, (Block(MAMBA, FFN), Block(ATTENTION, FFN), Block(WINDOW, None), Block(None, FFN), Block(MAMBA, None))
)


def tokens_of(architecture, batch=2, tokens=40):
    return torch.randint(architecture.vocab, (batch, tokens), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("ratio", ["1:0", "1:1", "1:5", "0:1"])
def test_parameters_and_cache_are_those_of_cost_at_the_proxy_scale(ratio):
    architecture = Design(ratio=Ratio.parse(ratio)).at(PROXY)
    model = build(architecture, generator=0)
    assert sum(p.numel() for p in model.parameters()) == cost(architecture, 1).params
    assert model.cache(3, 100).nbytes == 3 * cost(architecture, 100, 4).cache_bytes
    assert model.cache(3, 100, torch.bfloat16).nbytes == 3 * cost(architecture, 100, 2).cache_bytes


def test_decoding_is_forward():
    model, tokens = build(HYBRID, generator=0), tokens_of(HYBRID)
    with torch.no_grad():
        whole = model(tokens)
    cache = model.cache(2, 40)
    steps = torch.stack([model.step(tokens[:, t], cache) for t in range(40)], 1)
    assert whole.shape == (2, 40, 50)
    torch.testing.assert_close(steps, whole, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="the cache holds 40 tokens and is full"):
        model.step(tokens[:, 0], cache)


def test_a_bfloat16_cache_changes_the_logits_little():
    model, tokens = build(HYBRID, generator=0), tokens_of(HYBRID)
    cache = model.cache(2, 40, torch.bfloat16)
    steps = torch.stack([model.step(tokens[:, t], cache) for t in range(40)], 1)
    with torch.no_grad():
        difference = (steps - model(tokens)).abs().max()
    assert 0 < difference < 0.1


def test_loss_is_torchs_cross_entropy_with_its_gradients():
    model, tokens = build(HYBRID, generator=0), tokens_of(HYBRID)
    targets = tokens.roll(-1, 1)
    loss = model.loss(tokens, targets)
    expected = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    parameters = list(model.parameters())
    for got, want in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))
    assert abs(loss.item() - math.log(50)) < 0.7  # the first logits are of unit size, so nearly uniform


def test_the_tied_embedding_collects_both_gradients():
    model, tokens = build(HYBRID, generator=0), tokens_of(HYBRID)
    x = F.embedding(tokens, model.embedding)
    for block in model.blocks:
        x = block(x)
    separate = model.embedding.detach().clone().requires_grad_()
    logits = F.linear(F.rms_norm(x, (32,), model.norm.weight, 1e-5), separate)
    F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    of_input, of_output = model.embedding.grad.clone(), separate.grad
    model.zero_grad()
    model.loss(tokens, tokens).backward()
    torch.testing.assert_close(model.embedding.grad, of_input + of_output, rtol=0, atol=1e-6)


def test_one_seed_one_model_and_the_global_generator_untouched():
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = build(HYBRID, generator=3)
    again = build(HYBRID, generator=torch.Generator().manual_seed(3))
    other = build(HYBRID, generator=4)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(first.embedding, other.embedding)


@pytest.mark.parametrize(("init", "low", "high"), [("paper", 0.01, 2.0), ("original", 1.0, 16.0)])
def test_initial_decays_and_time_steps(init, low, high):
    many = Architecture(32, 8, (Block(Mamba2(d_ssm=512, head_dim=1, d_state=2), None),) * 4)
    model = build(many, generator=0, mamba_init=init)
    A = torch.cat([block.mixer.A_log.exp() for block in model.blocks]).detach().double()
    dt = torch.cat([F.softplus(block.mixer.dt_bias) for block in model.blocks]).detach().double()
    assert low * 0.999 <= A.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < A.max() <= high * 1.001
    assert A.mean() == pytest.approx((low + high) / 2, rel=0.05)
    assert dt.min() >= 0.000999
    assert dt.max() <= 0.1001
    assert dt.log().mean() == pytest.approx(math.log(0.01), abs=0.1)  # log-uniform between 0.001 and 0.1


def test_unknown_initialisation_is_an_error():
    with pytest.raises(ValueError, match='must be "paper" or "original"'):
        build(HYBRID, generator=0, mamba_init="jamba")


def test_implementations_name_every_operation_that_runs():
    from hybrid_nas_kernels import dispatch

    model, tokens = build(HYBRID, generator=0), tokens_of(HYBRID)
    dispatch.CHOSEN.clear()
    model.loss(tokens, tokens)
    assert {name: next(iter(chosen)) for name, chosen in dispatch.CHOSEN.items()} == model.implementations()
    assert "ssd" not in build(Architecture(32, 8, (Block(ATTENTION, FFN),)), generator=0).implementations()


def test_a_short_training_learns_a_copy():
    """The sequence repeats after 16 tokens: only a model that looks back can name the second half."""
    architecture = Architecture(32, 16, (Block(MAMBA, FFN), Block(ATTENTION, FFN)))
    model = build(architecture, generator=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        half = torch.randint(16, (16, 16), generator=generator)
        tokens = torch.cat((half, half), 1)
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        second = model.loss(tokens[:, :-1], tokens[:, 1:]) * 2 - math.log(16)
    assert second < 0.7 * math.log(16)
