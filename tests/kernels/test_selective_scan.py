import sys
import types

import pytest
import torch
from hybrid_nas_kernels.selective_scan import (
    IMPLEMENTATIONS,
    choose,
    selective_scan,
    selective_scan_reference,
    selective_scan_step,
)
from hybrid_nas_kernels.ssd import ssd_reference

ON_CPU = ["unrolled"]
IN_FLOAT32 = ("dt", "A", "D", "initial_state")  # as the mixer hands them over when its matrices are bfloat16


def inputs(tokens, channels=6, d_state=5, batch=2, seed=0, dt_scale=1.0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=g)

    return {
        "x": normal(batch, tokens, channels),
        "dt": dt_scale * torch.rand(batch, tokens, channels, dtype=torch.float64, generator=g),
        "A": -8 * torch.rand(channels, d_state, dtype=torch.float64, generator=g),
        "B": normal(batch, tokens, d_state),
        "C": normal(batch, tokens, d_state),
        "D": normal(channels),
        "initial_state": normal(batch, channels, d_state),
    }


def run(function, values, dtype, weigh_state=True, **options):
    """Outputs and the gradients of a random weighting of them, in the order of the inputs."""
    wide = torch.promote_types(dtype, torch.float32)
    given = {name: value for name, value in values.items() if value is not None}
    leaves = {n: v.to(wide if n in IN_FLOAT32 else dtype).requires_grad_() for n, v in given.items()}
    y, final = function(**{"initial_state": None, **leaves}, **options)
    g = torch.Generator().manual_seed(1)
    total = (y * torch.randn(y.shape, dtype=torch.float64, generator=g).to(y)).sum()
    if weigh_state:
        total = total + (final * torch.randn(final.shape, dtype=torch.float64, generator=g).to(final)).sum()
    return y.detach(), final.detach(), torch.autograd.grad(total, list(leaves.values()))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("implementation", ON_CPU)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tokens", [1, 2, 37])
@pytest.mark.parametrize("with_state", [True, False])
def test_outputs_and_all_gradients_equal_the_float64_recurrence(
    implementation, dtype, tokens, with_state, assert_close
):
    values = inputs(tokens) if with_state else inputs(tokens) | {"initial_state": None}
    y, state, gradients = run(selective_scan_reference, values, torch.float64, with_state)
    got_y, got_state, got = run(selective_scan, values, dtype, with_state, implementation=implementation)
    assert_close(got_y, y)
    assert_close(got_state, state)
    for gradient, expected in zip(got, gradients, strict=True):
        assert_close(gradient, expected)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_gradcheck(implementation):
    values = [v.requires_grad_() for v in inputs(4, channels=2, d_state=2, batch=1).values()]

    def function(x, dt, A, B, C, D, state):
        return selective_scan(x, dt, A, B, C, D, initial_state=state, implementation=implementation)

    assert torch.autograd.gradcheck(function, values)


def test_with_equal_decays_it_is_the_scan_of_mamba2(assert_close):
    """One decay for a whole head, and a time step shared by its channels, is exactly Mamba-2's recurrence."""
    values = inputs(20, channels=6)
    dt, A = values["dt"][..., :1], values["A"][:1, :1]
    values |= {"dt": dt.expand(2, 20, 6), "A": A.expand(6, 5)}
    y, state = selective_scan_reference(**values)
    expected, final = ssd_reference(
        values["x"][:, :, None],
        dt,
        A[0],
        values["B"][:, :, None],
        values["C"][:, :, None],
        None,
        initial_state=values["initial_state"][:, None],
    )
    assert_close(y, (expected[:, :, 0] + values["D"] * values["x"]))
    assert_close(state, final[:, 0])


def test_steps_are_the_recurrence(assert_close):
    values = inputs(9)
    whole, final = selective_scan_reference(**values)
    state = values["initial_state"].clone()
    x, dt, A, B, C, D = (values[name] for name in ("x", "dt", "A", "B", "C", "D"))
    steps = [selective_scan_step(x[:, t], dt[:, t], A, B[:, t], C[:, t], D, state) for t in range(9)]
    assert_close(torch.stack(steps, 1), whole)
    assert_close(state, final)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_bfloat16_in_and_out(implementation, assert_close):
    values = {name: value.bfloat16().double() for name, value in inputs(33).items()}
    y, _ = selective_scan_reference(**values)
    got, state = selective_scan(**{k: v.bfloat16() for k, v in values.items()}, implementation=implementation)
    assert (got.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert_close(got, y)


@pytest.mark.filterwarnings("ignore")
def test_the_recurrence_is_mamba_ssms(monkeypatch):
    """Against the loop that mamba-ssm itself tests its kernel with. Its package imports the CUDA extension, which is
    not needed for the loop and does not exist without a GPU."""
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    interface = pytest.importorskip("mamba_ssm.ops.selective_scan_interface")
    values = {name: value.float() for name, value in inputs(20).items()} | {"initial_state": None}
    y, state = selective_scan_reference(**values)
    x, dt, B, C = (values[name].transpose(1, 2) for name in ("x", "dt", "B", "C"))
    expected, final = interface.selective_scan_ref(x, dt, values["A"], B, C, values["D"], return_last_state=True)
    torch.testing.assert_close(y, expected.transpose(1, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore")  # of mamba-ssm's own imports
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "channels", "d_state"), [(1, 64, 16), (100, 64, 16), (257, 40, 5), (64, 64, 64)])
def test_mamba_ssm_on_a_gpu(dtype, tokens, channels, d_state, assert_close):
    """Outputs, state and all gradients against the float64 recurrence."""
    pytest.importorskip("mamba_ssm")
    values = {n: v.to(dtype).double() for n, v in inputs(tokens, channels, d_state).items()} | {"initial_state": None}
    y, state, gradients = run(selective_scan_reference, values, torch.float64, False)
    on_gpu = {name: None if value is None else value.cuda() for name, value in values.items()}
    got_y, got_state, got = run(selective_scan, on_gpu, dtype, False, implementation="mamba_ssm")
    assert_close(got_y.cpu(), y)
    assert_close(got_state.cpu().to(dtype), state)
    for gradient, expected in zip(got, gradients, strict=True):
        assert_close(gradient.cpu().to(dtype), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore")
def test_mamba_ssm_begins_at_a_zero_state():
    pytest.importorskip("mamba_ssm")
    on_gpu = {name: value.float().cuda() for name, value in inputs(4).items()}
    with pytest.raises(ValueError, match="begins at a zero state"):
        selective_scan(**on_gpu, implementation="mamba_ssm")


def test_what_runs_where(monkeypatch):
    cuda = torch.device("cuda")
    assert choose(torch.device("cpu"))[0] == "unrolled"
    monkeypatch.setattr("hybrid_nas_kernels.selective_scan.why_not", lambda name: None)
    assert choose(cuda)[0] == "mamba_ssm"
    assert choose(cuda, torch.float64)[0] == choose(cuda, from_zero=False)[0] == "unrolled"
    monkeypatch.setattr("hybrid_nas_kernels.selective_scan.why_not", lambda name: f"{name} is not installed")
    assert choose(cuda) == ("unrolled", "torch alone, one operation a token: mamba_ssm is not installed")
    assert set(ON_CPU) < set(IMPLEMENTATIONS)
    with pytest.raises(ValueError, match="at least 1 token"):
        selective_scan(**{k: v[:, :0] if k in ("x", "dt", "B", "C") else v for k, v in inputs(4).items()})
