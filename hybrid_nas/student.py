"""Student's t and Fisher's F without scipy, whose import would take half of the second that a command may take."""

from __future__ import annotations

import math
from functools import lru_cache

CONFIDENCE = 0.95


def two_sided_p(t: float, df: float) -> float:
    """Probability of |T| >= |t|: the regularized incomplete beta function I_x(df/2, 1/2) at x = df / (df + t^2)."""
    if t == 0:
        return 1.0
    return _beta(df / 2, 0.5, df / (df + t * t), t * t / (df + t * t))


def f_p(f: float, top: float, bottom: float) -> float:
    """Probability of F >= f with `top` and `bottom` degrees of freedom."""
    if f <= 0:
        return 1.0
    return _beta(bottom / 2, top / 2, bottom / (bottom + top * f), top * f / (bottom + top * f))


def f_quantile(top: float, bottom: float, confidence: float = CONFIDENCE) -> float:
    """F is below it with probability `confidence`."""
    low, high = 0.0, 1.0
    while f_p(high, top, bottom) > 1 - confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if f_p(middle, top, bottom) > 1 - confidence else (low, middle)
    return (low + high) / 2


def _beta(a: float, b: float, x: float, y: float) -> float:
    """The regularized incomplete beta function I_x(a, b); `y` is 1 - x, given apart to be exact for small values."""
    scale = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y))
    if x < (a + 1) / (a + b + 2):
        return scale * _fraction(a, b, x) / a
    return 1 - scale * _fraction(b, a, y) / b


@lru_cache(maxsize=4096)
def student(df: float, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile: |T| is below it with probability `confidence`."""
    low, high = 0.0, 1.0
    while two_sided_p(high, df) > 1 - confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if two_sided_p(middle, df) > 1 - confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _fraction(a: float, b: float, x: float) -> float:
    """Continued fraction of the incomplete beta function [Abramowitz and Stegun 26.5.8], evaluated after Lentz."""
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
