import math

import pytest
import torch
from hybrid_nas_kernels.fuse_heads import IMPLEMENTATIONS, fuse_heads
from hybrid_nas_kernels.fuse_heads.reference import fuse_halves

D_SSM, VALUES, WIDTH = 6, 4, 5


def drawn(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def written_out(y, z, attended, norms, scales, fusion, weights, groups, eps):
    """One token at a time in Python's own arithmetic."""
    out = []
    for t in range(len(y)):
        mamba = [float(a) * float(b) / (1 + math.exp(-float(b))) for a, b in zip(y[t], z[t], strict=True)]
        attention = [float(a) for a in attended[t]]
        if norms:
            size = len(mamba) // groups
            roots = [
                math.sqrt(sum(m * m for m in mamba[g * size : g * size + size]) / size + eps) for g in range(groups)
            ]
            mamba = [m / roots[i // size] * float(norms[0][i]) for i, m in enumerate(mamba)]
            root = math.sqrt(sum(a * a for a in attention) / len(attention) + eps)
            attention = [a / root * float(norms[1][i]) for i, a in enumerate(attention)]
        for half, scale in ((mamba, scales[0]), (attention, scales[1])):
            if scale is not None:
                row = scale[t] if scale.ndim == 2 else scale
                half[:] = [h * float(row[i if len(row) > 1 else 0]) for i, h in enumerate(half)]
        if len(weights) == 2:
            mamba, attention = (
                [sum(float(w) * h for w, h in zip(row, half, strict=True)) for row in weight]
                for weight, half in zip(weights, (mamba, attention), strict=True)
            )
        if fusion == "concat":
            fused = mamba + attention
        else:
            fused = [m + (a if fusion == "add" else -a) for m, a in zip(mamba, attention, strict=True)]
        if len(weights) == 1:
            fused = [sum(float(w) * f for w, f in zip(row, fused, strict=True)) for row in weights[0]]
        out.append(fused)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS if name != "triton"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("scale", ["none", "vector", "diff", "gate"])
@pytest.mark.parametrize(("fusion", "outputs"), [("add", 2), ("difference", 2), ("difference", 1), ("concat", 1)])
def test_the_definition(implementation, norm, scale, fusion, outputs, assert_close):
    values = D_SSM if outputs == 1 and fusion != "concat" else VALUES
    y, z, attended = drawn(3, D_SSM), drawn(3, D_SSM).flip(0), drawn(3, values)
    scales = {
        "none": (None, None),
        "vector": (drawn(D_SSM), drawn(values)),
        "diff": (None, drawn(1)),
        "gate": (drawn(3, 1), drawn(1, 3).T),
    }[scale]
    if outputs == 2:
        weights = drawn(WIDTH, D_SSM), drawn(WIDTH, values)
    else:
        weights = (drawn(WIDTH, D_SSM + values if fusion == "concat" else D_SSM),)
    norms = (drawn(D_SSM), drawn(values)) if norm else None
    options = {"norms": norms, "scales": scales, "fusion": fusion, "weights": weights, "groups": 2, "eps": 1e-5}
    got = fuse_heads(y, z, attended, **options, implementation=implementation)
    assert_close(got, written_out(y, z, attended, norms, scales, fusion, weights, 2, 1e-5))


@pytest.mark.parametrize("scale", ["none", "vector", "diff", "gate"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("outputs", [1, 2])
def test_gains_and_scales_of_float32_beside_halves_and_weights_of_bfloat16(scale, norm, outputs):
    """As a training on a GPU has them."""
    halves = drawn(3, D_SSM).bfloat16(), drawn(3, D_SSM).flip(0).bfloat16()
    scales = {
        "none": (None, None),
        "vector": (drawn(D_SSM).float(), drawn(D_SSM).flip(0).float()),
        "diff": (None, drawn(1).float()),
        "gate": (drawn(3, 1).bfloat16(), drawn(1, 3).T.bfloat16()),
    }[scale]
    norms = (drawn(D_SSM).float(), drawn(D_SSM).flip(0).float()) if norm else None
    weights = (drawn(WIDTH, D_SSM).bfloat16(), drawn(D_SSM, WIDTH).T.bfloat16())[:outputs]
    got = fuse_halves(halves, (2, 1), norms, scales, "add", weights, 1e-5)
    assert got.dtype == torch.bfloat16

    def exact(values):
        return None if values is None else tuple(None if v is None else v.double() for v in values)

    expected = fuse_halves(exact(halves), (2, 1), exact(norms), exact(scales), "add", exact(weights), 1e-5)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=0.03 * float(expected.abs().max()))


def test_what_cannot_stand_together():
    y = drawn(3, D_SSM)
    with pytest.raises(ValueError, match="found 'concat' with 2"):
        fuse_heads(y, y, y, norms=None, fusion="concat", weights=(drawn(5, 6), drawn(5, 6)), eps=1e-5)
