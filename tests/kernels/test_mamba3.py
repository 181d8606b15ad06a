import math

import pytest
import torch
from hybrid_nas_kernels.mamba3 import IMPLEMENTATIONS, choose, mamba3, mamba3_reference, mamba3_step
from hybrid_nas_kernels.ssd import ssd_reference

ON_CPU = ["chunked"]
IN_FLOAT32 = ("dt", "log_decay", "B_bias", "C_bias", "D")  # as the mixer hands them over, its matrices in bfloat16
PER_TOKEN = ("x", "dt", "log_decay", "trap", "B", "C", "angle")


def inputs(tokens, heads=4, head_dim=5, groups=2, d_state=8, pairs=2, batch=2, seed=0, decay=1.0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=g)

    return {
        "x": normal(batch, tokens, heads, head_dim),
        "dt": torch.rand(batch, tokens, heads, dtype=torch.float64, generator=g),
        "log_decay": -decay * torch.rand(batch, tokens, heads, dtype=torch.float64, generator=g),
        "trap": normal(batch, tokens, heads),
        "B": normal(batch, tokens, groups, d_state),
        "C": normal(batch, tokens, groups, d_state),
        "B_bias": normal(heads, d_state),
        "C_bias": normal(heads, d_state),
        "angle": normal(batch, tokens, pairs),
        "D": normal(heads),
    }


def run(function, values, dtype, **options):
    """The output and the gradients of a random weighting of it, in the order of the inputs."""
    wide = torch.promote_types(dtype, torch.float32)
    leaves = {n: v.to(wide if n in IN_FLOAT32 else dtype).requires_grad_() for n, v in values.items()}
    y = function(**leaves, **options)
    weight = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)
    return y.detach(), torch.autograd.grad((y * weight).sum(), list(leaves.values()), allow_unused=True)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("implementation", ON_CPU)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("tokens", "groups", "pairs"), [(1, 1, 4), (3, 2, 2), (32, 4, 1), (37, 1, 2), (96, 2, 4)])
def test_output_and_all_gradients_equal_the_float64_recurrence(
    implementation, dtype, tokens, groups, pairs, assert_close
):
    values = inputs(tokens, groups=groups, pairs=pairs)
    y, gradients = run(mamba3_reference, values, torch.float64)
    got_y, got = run(mamba3, values, dtype, implementation=implementation)
    assert_close(got_y, y)
    for name, gradient, expected in zip(values, got, gradients, strict=True):
        if tokens == 1 and name in ("log_decay", "angle"):  # nothing before to forget, nothing to turn against
            assert float(expected.abs().max()) < 1e-12
            assert gradient is None or float(gradient.abs().max()) < 1e-5
        else:
            assert_close(gradient, expected)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_gradcheck(implementation):
    values = inputs(4, heads=2, head_dim=2, d_state=4, pairs=1, batch=1)
    leaves = [value.requires_grad_() for value in values.values()]
    assert torch.autograd.gradcheck(lambda *v: mamba3(*v, implementation=implementation), leaves)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_decays_far_beyond_the_range_of_exp(implementation, assert_close):
    values = inputs(48, decay=200.0)
    y, gradients = run(mamba3_reference, values, torch.float64)
    got_y, got = run(mamba3, values, torch.float32, implementation=implementation)
    assert_close(got_y, y)
    for gradient, expected in zip(got, gradients, strict=True):
        assert_close(gradient, expected)


def test_without_turning_and_without_the_late_half_it_is_the_scan_of_mamba2(assert_close):
    """m = 1 and no angle leave Mamba-2's recurrence, with A the same for all tokens of a head."""
    values = inputs(20)
    A = -torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values |= {"trap": torch.full_like(values["trap"], 1e3), "angle": torch.zeros_like(values["angle"])}
    values |= {"log_decay": values["dt"] * A}
    B, C = (
        values[name].repeat_interleave(2, dim=2) + values[f"{name}_bias"] for name in ("B", "C")
    )  # a group a head, so that the biases can be added before
    expected, _ = ssd_reference(values["x"], values["dt"], A, B, C, values["D"])
    assert_close(mamba3_reference(**values), expected)


def test_the_state_is_complex():
    """A pair of the state, turned and decayed, is one complex number under z_t = exp(-(a + i w) dt) z_{t-1} + input."""
    values = inputs(12, heads=1, head_dim=1, groups=1, d_state=2, pairs=1, batch=1)
    values |= {"trap": torch.full_like(values["trap"], 1e3), "D": torch.zeros(1, dtype=torch.float64)}
    key, query = (values[n][0, :, 0] + values[f"{n}_bias"][0] for n in ("B", "C"))
    rate = math.pi * torch.tanh(values["angle"][0, :, 0])
    z, outputs = torch.zeros((), dtype=torch.complex128), []
    for t in range(12):
        dt, log = values["dt"][0, t, 0], values["log_decay"][0, t, 0]
        z = torch.exp(torch.complex(log, -rate[t] * dt)) * z  # the query turns by +w, so the state turns by -w
        z = z + dt * values["x"][0, t, 0, 0] * torch.complex(key[t, 0], key[t, 1])
        outputs.append((z * torch.complex(query[t, 0], -query[t, 1])).real)
    torch.testing.assert_close(mamba3_reference(**values)[0, :, 0, 0], torch.stack(outputs))


def test_steps_are_the_recurrence(assert_close):
    values = inputs(9)
    whole = mamba3_reference(**values)
    kept = [torch.zeros(2, 4, *shape, dtype=torch.float64) for shape in ((2,), (5, 8), (8,), (5,))]
    steps = []
    for t in range(9):
        token = {name: value[:, t] if name in PER_TOKEN else value for name, value in values.items()}
        steps.append(mamba3_step(**token, phase=kept[0], state=kept[1], key=kept[2], value=kept[3]))
    assert_close(torch.stack(steps, 1), whole)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_bfloat16_in_and_out(implementation, assert_close):
    values = {name: value.bfloat16().double() for name, value in inputs(33).items()}
    y = mamba3_reference(**values)
    got = mamba3(**{k: v.bfloat16() for k, v in values.items()}, implementation=implementation)
    assert got.dtype == torch.bfloat16
    assert_close(got, y)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore")  # of mamba-ssm's own imports
@pytest.mark.parametrize(("tokens", "groups"), [(1, 1), (100, 1), (256, 1), (128, 2)])
def test_mamba_ssm_on_a_gpu(tokens, groups):
    """The output and all gradients in bfloat16 against the float64 recurrence. Each size of heads is tuned apart.

    mamba-ssm rounds queries and keys to bfloat16 after it has turned them. The gradients of `angle` and `dt` are sums
    over all later tokens, in which large terms cancel: that rounding alone, of values and gradients, put into the
    float64 recurrence makes them wrong by 2e-2 at 100 tokens and 3e-2 at 256, root mean square over root mean square,
    and everything else by 3e-3. So the limits are 6e-2 for these two and 1e-2 for the rest, and, beside, 5e-2 of the
    largest value for every single one. A term left out or of the wrong sign is beyond them.
    """
    pytest.importorskip("mamba_ssm")
    head_dim = d_state = 64
    values = inputs(tokens, 4, head_dim, groups, d_state, pairs=d_state // 4)
    values = {name: value.bfloat16().double() for name, value in values.items()}
    y, gradients = run(mamba3_reference, values, torch.float64)
    got_y, got = run(
        mamba3, {name: value.cuda() for name, value in values.items()}, torch.bfloat16, implementation="mamba_ssm"
    )
    for name, value, expected in zip(("y", *values), (got_y, *got), (y, *gradients), strict=True):
        if tokens == 1 and name in ("log_decay", "angle"):  # nothing before to forget, nothing to turn against
            assert float(value.abs().max()) < 1e-2
            continue
        wrong, limit = value.double().cpu() - expected, 6e-2 if name in ("angle", "dt") else 1e-2
        share = float(wrong.square().mean().sqrt() / expected.square().mean().sqrt())
        assert share <= limit, f"{name}: {share:.1e} of its root mean square"
        largest = float(wrong.abs().max() / expected.abs().max())
        assert largest <= 5e-2, f"{name}: {largest:.1e} of the largest value"


def test_what_runs_where():
    assert choose(torch.device("cpu"))[0] == "chunked"
    assert choose(torch.device("cuda"))[0] == "chunked"
    assert set(ON_CPU) < set(IMPLEMENTATIONS)
    with pytest.raises(ValueError, match="at least 1 token"):
        mamba3(**{k: v[:, :0] if k in PER_TOKEN else v for k, v in inputs(4).items()})
    with pytest.raises(ValueError, match="heads must be a multiple of groups, found 4 and 3"):
        mamba3(**inputs(4, groups=3))
