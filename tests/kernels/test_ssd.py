import pytest
import torch
from hybrid_nas_kernels.ssd import IMPLEMENTATIONS, ssd, ssd_reference, ssd_step
from scan_values import NAMES, scan_values

ELSEWHERE = ("reference", "triton", "mamba_ssm")  # test_triton_scan.py and test_published.py have the last
FAST = [name for name in IMPLEMENTATIONS if name not in ELSEWHERE]


def run(function, values, dtype, weigh_state=True, **options):
    """Outputs and the gradients of a random weighting of them, in the order of NAMES."""
    leaves = {name: v.to(dtype).requires_grad_() for name, v in values.items() if v is not None}
    state = leaves.pop("initial_state", None)
    y, final = function(**leaves, initial_state=state, **options)
    g = torch.Generator().manual_seed(1)
    weight_y = torch.randn(y.shape, dtype=torch.float64, generator=g).to(y.dtype)
    weight_state = torch.randn(final.shape, dtype=torch.float64, generator=g).to(final.dtype)
    total = (y * weight_y).sum()
    if weigh_state:
        total = total + (final * weight_state).sum()
    if state is not None:
        leaves["initial_state"] = state
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return y.detach(), final.detach(), dict(zip(leaves, gradients, strict=True))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("tokens", "groups", "chunk"), [(1, 1, None), (3, 2, None), (16, 1, 16), (37, 1, 16), (65, 2, None), (96, 4, 32)]
)
def test_outputs_and_all_gradients_equal_the_float64_recurrence(
    implementation, dtype, tokens, groups, chunk, assert_close
):
    values = scan_values(tokens, groups=groups)
    y, state, gradients = run(ssd_reference, values, torch.float64)
    got_y, got_state, got = run(ssd, values, dtype, implementation=implementation, chunk=chunk)
    assert_close(got_y, y)
    assert_close(got_state, state)
    assert set(got) == set(NAMES)
    for name in NAMES:
        assert_close(got[name], gradients[name])


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("heads", [1, 3])
def test_without_skip_initial_state_or_use_of_the_final_one(implementation, heads, assert_close):
    values = scan_values(41, heads=heads) | {"D": None, "initial_state": None}
    y, state, gradients = run(ssd_reference, values, torch.float64, weigh_state=False)
    got_y, got_state, got = run(ssd, values, torch.float32, weigh_state=False, implementation=implementation)
    assert_close(got_y, y)
    assert_close(got_state, state)
    for name in got:
        assert_close(got[name], gradients[name])


@pytest.mark.parametrize("implementation", FAST)
def test_gradcheck(implementation):
    values = [v.requires_grad_() for v in scan_values(5, heads=2, head_dim=2, groups=2, d_state=2, batch=1).values()]

    def function(x, dt, A, B, C, D, state):
        return ssd(x, dt, A, B, C, D, initial_state=state, chunk=2, implementation=implementation)

    assert torch.autograd.gradcheck(function, values)


@pytest.mark.parametrize("implementation", FAST)
def test_decays_far_beyond_the_range_of_exp(implementation, assert_close):
    """A chunk's log decay is beyond -1000 here: its inverse overflows even in float64."""
    values = scan_values(48, dt_scale=15.0)
    y, state, gradients = run(ssd_reference, values, torch.float64)
    got_y, got_state, got = run(ssd, values, torch.float32, implementation=implementation)
    assert_close(got_y, y)
    assert_close(got_state, state)
    for name in ("x", "B", "C", "D", "initial_state"):
        assert_close(got[name], gradients[name])
    assert all(torch.isfinite(g).all() for g in got.values())


@pytest.mark.parametrize("implementation", FAST)
def test_two_halves_with_the_state_between_are_the_whole(implementation, assert_close):
    values = scan_values(50)
    whole, _ = ssd_reference(**values)
    state, parts = values.pop("initial_state"), []
    for part in (slice(0, 21), slice(21, 50)):
        pieces = {k: v[:, part] if k in ("x", "dt", "B", "C") else v for k, v in values.items()}
        y, state = ssd(**pieces, initial_state=state, implementation=implementation)
        parts.append(y)
    assert_close(torch.cat(parts, 1), whole)


def test_steps_are_the_recurrence(assert_close):
    values = scan_values(9, groups=2)
    whole, final = ssd_reference(**values)
    state = values["initial_state"].clone()
    steps = [
        ssd_step(
            values["x"][:, t], values["dt"][:, t], values["A"], values["B"][:, t], values["C"][:, t], values["D"], state
        )
        for t in range(9)
    ]
    assert_close(torch.stack(steps, 1), whole)
    assert_close(state, final)


@pytest.mark.parametrize("implementation", FAST)
def test_bfloat16_in_and_out(implementation, assert_close):
    values = {k: v.bfloat16().double() for k, v in scan_values(33).items()}
    y, _ = ssd_reference(**values)
    got, state = ssd(**{k: v.bfloat16() for k, v in values.items()}, implementation=implementation)
    assert got.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert_close(got, y)


def test_errors_say_what_must_hold():
    values = scan_values(4, heads=4, groups=3)
    with pytest.raises(ValueError, match="heads must be a multiple of groups, found 4 and 3"):
        ssd(**values)
    with pytest.raises(ValueError, match="at least 1 token"):
        ssd(**{k: v[:, :0] if k in ("x", "dt", "B", "C") else v for k, v in scan_values(4).items()})
