"""The whole Mamba-2 mixer: its native way and its operations one by one, against the references in float64."""

import pytest
import torch
from hybrid_nas_kernels.mamba2 import choose, mamba2

EPS = 1e-5


def inputs(tokens, heads=4, head_dim=6, groups=1, d_state=5, kernel=4, width=10, batch=2, strong=1.0):
    g = torch.Generator().manual_seed(0)

    def normal(*shape, scale=1.0):
        return scale * torch.randn(shape, dtype=torch.float64, generator=g)

    d_ssm, channels = heads * head_dim, heads * head_dim + 2 * groups * d_state
    return {
        "x": normal(batch, tokens, width),
        "norm": 1 + normal(width, scale=0.2),
        "in_proj": normal(d_ssm + channels + heads, width, scale=width**-0.5),
        "conv_weight": normal(channels, kernel, scale=0.5),
        "conv_bias": normal(channels, scale=0.5),
        "dt_bias": normal(heads) - 2,
        "A_log": strong * torch.rand(heads, dtype=torch.float64, generator=g),
        "D": normal(heads),
        "gate_norm": 1 + normal(d_ssm, scale=0.2),
        "out_proj": normal(width, d_ssm, scale=d_ssm**-0.5),
    }


def run(values, dtype, groups, implementation):
    leaves = {name: value.to(dtype).requires_grad_() for name, value in values.items()}
    y = mamba2(**leaves, groups=groups, eps=EPS, implementation=implementation)
    weight = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = torch.autograd.grad((y * weight).sum(), list(leaves.values()))
    return [y.detach(), *gradients]


SHAPES = {  # blocks of the state are 8 by 8 to 32: below, at and beyond each
    "one token": {"tokens": 1},
    "fewer tokens than taps": {"tokens": 3, "groups": 2},
    "a chunk": {"tokens": 32, "head_dim": 16, "d_state": 16},
    "a chunk and a token": {"tokens": 33, "head_dim": 16, "d_state": 8},
    "the proxy's": {"tokens": 70, "head_dim": 32, "d_state": 16, "heads": 2},
    "wide heads": {"tokens": 40, "head_dim": 36, "d_state": 9, "heads": 1},
    "a group a head": {"tokens": 65, "groups": 4},
    "one tap": {"tokens": 37, "kernel": 1},
    "more channels than a block": {"tokens": 35, "heads": 6, "head_dim": 12, "groups": 2, "batch": 3},
}


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("implementation", "dtype"),
    # in float32 the operations of "separate" have tests of their own
    [("separate", torch.float64), ("native", torch.float64), ("native", torch.float32)],
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_output_and_all_gradients_equal_the_float64_reference(implementation, dtype, shape, assert_close):
    values, groups = inputs(**shape), shape.get("groups", 1)
    expected = run(values, torch.float64, groups, "reference")
    for actual, reference in zip(run(values, dtype, groups, implementation), expected, strict=True):
        assert_close(actual, reference)


def test_gradcheck():
    values = [
        v.requires_grad_() for v in inputs(5, heads=2, head_dim=2, groups=2, d_state=2, width=3, batch=1).values()
    ]

    def function(*values):
        return mamba2(*values, groups=2, eps=EPS, implementation="native")

    assert torch.autograd.gradcheck(function, values)


def test_decays_far_beyond_the_range_of_exp(assert_close):
    """A of -e^7: the log decay of one token is beyond -100."""
    values = inputs(40)
    values["A_log"] += 7.0
    expected = run(values, torch.float64, 1, "reference")
    got = run(values, torch.float32, 1, "native")
    assert all(torch.isfinite(value).all() for value in got)
    assert_close(got[0], expected[0])


def test_numbers_beyond_exp_and_not_numbers_pass_the_gate():
    """A gate of -1e4 closes, one of 1e4 opens, and NaN stays NaN, so that a divergence shows."""
    values = {name: v.float() for name, v in inputs(8).items()}
    for scale in (1e4, -1e4):
        pushed = values | {"in_proj": scale * values["in_proj"]}
        y = mamba2(**pushed, groups=1, eps=EPS, implementation="native")
        expected = mamba2(**pushed, groups=1, eps=EPS, implementation="reference")
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    values["x"][0, 3, 2] = torch.nan
    y = mamba2(**values, groups=1, eps=EPS, implementation="native")
    assert y[0, 3:].isnan().all()
    assert not y[0, :3].isnan().any()
    assert not y[1].isnan().any()


def test_one_seed_one_result_and_threads_change_rounding_at_most(assert_close):
    values = inputs(120, heads=4, head_dim=12, groups=2, batch=5)  # enough work to be shared among threads
    before = torch.get_num_threads()
    results = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(values, torch.float64, 2, "native"))
    torch.set_num_threads(before)
    first, again, *shared = results
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in shared:
        for a, b in zip(other, first, strict=True):
            assert_close(a, b)


def test_float64_is_for_checking_and_runs_the_operations_one_by_one():
    assert choose(torch.device("cpu"), torch.float64)[0] == "separate"
    assert choose(torch.device("meta"))[0] == "separate"
