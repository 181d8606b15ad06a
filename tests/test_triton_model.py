"""A whole model on the Triton ways, in Triton's interpreter, against the same model on the CPU's own ways."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where Triton's kernels are defined: before their import
pytest.importorskip("triton", reason="triton is not installed")

from hybrid_nas_kernels import (
    attention,
    causal_conv1d,
    cross_entropy,
    dispatch,
    fuse_heads,
    gated_norm_linear,
    linear_step,
    mamba2,
    norm_linear,
    rope,
    ssd,
    swiglu,
)

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.model import build

HALVES = (Attention(heads=2, kv_heads=1, head_dim=8, value_dim=16), Mamba2(d_ssm=32, head_dim=16, d_state=8))
MODEL = Architecture(
    16,
    64,
    (
        Block(Mamba2(d_ssm=32, head_dim=8, d_state=8, groups=2), SwiGLU(24)),
        Block(Attention(heads=4, kv_heads=2, head_dim=4), None),
        Block(ParallelHybrid(*HALVES), SwiGLU(24)),
    ),
)


@pytest.fixture
def on_triton(monkeypatch):
    """As on a CUDA device, where every operation takes its Triton way."""
    monkeypatch.setattr(dispatch, "CHOSEN", {})
    for module in (
        causal_conv1d,
        cross_entropy,
        fuse_heads,
        gated_norm_linear,
        linear_step,
        norm_linear,
        rope,
        ssd,
        swiglu,
    ):
        monkeypatch.setattr(module, "choose", lambda *_: ("triton", "asked for by the test"))
    monkeypatch.setattr(mamba2, "choose", lambda *_: ("separate", "asked for by the test"))
    monkeypatch.setattr(cross_entropy, "triton_or", lambda *_: ("triton", "asked for by the test"))
    for module in (attention, causal_conv1d, norm_linear, ssd, swiglu):
        monkeypatch.setattr(module, "runs_triton", lambda value: True)


def losses_and_gradients(tokens):
    model = build(MODEL, generator=0)
    weights = torch.linspace(0, 1, tokens[:, 1:].numel()).view(tokens[:, 1:].shape)
    total, losses = model.losses(tokens[:, :-1], tokens[:, 1:], weights)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return losses, dict(zip(names, torch.autograd.grad(total, parameters), strict=True))


def decoded(tokens):
    model = build(MODEL, generator=0)
    cache = model.cache(len(tokens), tokens.shape[1])
    return torch.stack([model.step(tokens[:, t], cache) for t in range(tokens.shape[1])], 1)


TOKENS = torch.randint(64, (2, 22), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected():
    with torch.no_grad():
        logits = decoded(TOKENS[:, :6])
    return *losses_and_gradients(TOKENS), logits


@pytest.mark.usefixtures("expected", "on_triton")
def test_training_and_decoding_are_those_of_the_cpu(expected):
    losses, gradients, logits = expected
    got_losses, got = losses_and_gradients(TOKENS)
    ran = {operation for operation, how in dispatch.CHOSEN.items() if set(how) == {"triton"}}
    assert ran == {"causal_conv1d", "fuse_heads", "gated_norm_linear", "linear_cross_entropy", "rope", "ssd"}
    torch.testing.assert_close(got_losses, losses, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max())
        assert float((got[name] - gradient).abs().max()) <= 1e-4 * scale, name
    torch.testing.assert_close(decoded(TOKENS[:, :6]), logits, rtol=1e-4, atol=1e-4)
