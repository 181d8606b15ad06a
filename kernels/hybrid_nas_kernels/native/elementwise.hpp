// Passes over tokens that are not matrix products: RMSNorm, gate, SwiGLU, short convolution. Rows may lie further
// apart than they are wide (a stride), so that the parts of a projection are read and written where they are.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

using Index = int64_t;

// Less work than this is done by one thread: waking others takes longer.
constexpr Index GRAIN = 16384;

template <typename T> struct Format;
template <> struct Format<float> {
    using Int = int32_t;
    static constexpr int mantissa = 23, bias = 127, degree = 7;
    static constexpr float round = 12582912.0f, low = -87.0f, high = 88.0f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <> struct Format<double> {
    using Int = int64_t;
    static constexpr int mantissa = 52, bias = 1023, degree = 13;
    static constexpr double round = 6755399441055744.0, low = -708.0, high = 709.0;
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
};

// exp without branches, so that loops over it become vector code. exp(x) = 2^k exp(r), |r| <= ln(2) / 2; the series of
// exp(r) is exact to the format. NaN stays NaN; beyond the format's range the result is its nearest end.
template <typename T> inline T exponential(T x) {
    using F = Format<T>;
    using Int = typename F::Int;
    x = x < F::low ? F::low : x;
    x = x > F::high ? F::high : x;
    const T shifted = x * T(1.4426950408889634) + F::round, whole = shifted - F::round;
    const T r = (x - whole * F::ln2_high) - whole * F::ln2_low;
    Int k, origin;
    const T round = F::round;
    std::memcpy(&k, &shifted, sizeof k);
    std::memcpy(&origin, &round, sizeof origin);
    constexpr double inverse_factorial[14] = {1.0,          1.0,          1.0 / 2,       1.0 / 6,        1.0 / 24,
                                              1.0 / 120,    1.0 / 720,    1.0 / 5040,    1.0 / 40320,    1.0 / 362880,
                                              1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    T sum = T(inverse_factorial[F::degree]);
#pragma GCC unroll 16
    for (int i = F::degree - 1; i >= 0; i--) sum = sum * r + T(inverse_factorial[i]);
    const Int power = (k - origin + F::bias) << F::mantissa;
    T scale;
    std::memcpy(&scale, &power, sizeof scale);
    return sum * scale;
}

template <typename T> inline T sigmoid(T x) { return 1 / (1 + exponential(-x)); }

// n = x / rms(x), and inverse = 1 / rms(x).
template <typename T>
void norm(const T* x, T* n, T* inverse, Index rows, Index width, double eps, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > GRAIN) schedule(static)
    for (Index i = 0; i < rows; i++) {
        const T* from = x + i * width;
        T* to = n + i * width;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (Index c = 0; c < width; c++) sum += from[c] * from[c];
        const T scale = 1 / std::sqrt(sum / T(width) + T(eps));
        inverse[i] = scale;
#pragma omp simd
        for (Index c = 0; c < width; c++) to[c] = from[c] * scale;
    }
}

// The gradient of x from that of n; dn is overwritten with it.
template <typename T>
void norm_backward(T* dn, const T* n, const T* inverse, Index rows, Index width, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > GRAIN) schedule(static)
    for (Index i = 0; i < rows; i++) {
        T* d = dn + i * width;
        const T* v = n + i * width;
        T along = 0;
#pragma omp simd reduction(+ : along)
        for (Index c = 0; c < width; c++) along += d[c] * v[c];
        along /= T(width);
        const T scale = inverse[i];
#pragma omp simd
        for (Index c = 0; c < width; c++) d[c] = (d[c] - v[c] * along) * scale;
    }
}

// n = y silu(z) / its rms over each group of channels.
template <typename T>
void gated_norm(const T* y, const T* z, Index stride, T* n, T* inverse, Index rows, Index groups, Index width,
                double eps, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * groups * width > GRAIN) schedule(static)
    for (Index i = 0; i < rows * groups; i++) {
        const T *from = y + i * width, *gate = z + i / groups * stride + i % groups * width;
        T* to = n + i * width;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (Index c = 0; c < width; c++) {
            const T value = from[c] * gate[c] * sigmoid(gate[c]);
            to[c] = value;
            sum += value * value;
        }
        const T scale = 1 / std::sqrt(sum / T(width) + T(eps));
        inverse[i] = scale;
#pragma omp simd
        for (Index c = 0; c < width; c++) to[c] *= scale;
    }
}

// dn is overwritten with the gradient of y; dz has the stride of z.
template <typename T>
void gated_norm_backward(T* dn, const T* n, const T* inverse, const T* y, const T* z, T* dz, Index stride, Index rows,
                         Index groups, Index width, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * groups * width > GRAIN) schedule(static)
    for (Index i = 0; i < rows * groups; i++) {
        const Index at = i / groups * stride + i % groups * width;
        const T *v = n + i * width, *from = y + i * width, *gate = z + at;
        T *d = dn + i * width, *dgate = dz + at;
        T along = 0;
#pragma omp simd reduction(+ : along)
        for (Index c = 0; c < width; c++) along += d[c] * v[c];
        along /= T(width);
        const T scale = inverse[i];
#pragma omp simd
        for (Index c = 0; c < width; c++) {
            const T s = sigmoid(gate[c]), silu = gate[c] * s, dvalue = (d[c] - v[c] * along) * scale;
            dgate[c] = dvalue * from[c] * (s + silu * (1 - s));
            d[c] = dvalue * silu;
        }
    }
}

// h = silu(g) u, row by row.
template <typename T> void gate(const T* g, const T* u, T* h, Index rows, Index width, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > GRAIN) schedule(static)
    for (Index i = 0; i < rows; i++) {
        const T *from = g + i * width, *up = u + i * width;
        T* to = h + i * width;
#pragma omp simd
        for (Index c = 0; c < width; c++) to[c] = from[c] * sigmoid(from[c]) * up[c];
    }
}

// From the gradient of h: those of g and u, and h again. dh is overwritten with the gradient of u.
template <typename T>
void gate_backward(T* dh, const T* g, const T* u, T* dg, T* h, Index rows, Index width, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows * width > GRAIN) schedule(static)
    for (Index i = 0; i < rows; i++) {
        const T *from = g + i * width, *up = u + i * width;
        T *to = h + i * width, *d = dh + i * width, *dfrom = dg + i * width;
#pragma omp simd
        for (Index c = 0; c < width; c++) {
            const T s = sigmoid(from[c]), silu = from[c] * s, dvalue = d[c];
            to[c] = silu * up[c];
            dfrom[c] = dvalue * up[c] * (s + silu * (1 - s));
            d[c] = dvalue * silu;
        }
    }
}

constexpr Index CHANNELS = 64;  // a block of channels, whose rows of all tokens fit a cache

// bias + sum_k weight[k] x[t - K + 1 + k] of one token and a block of channels; weight (K, channels).
template <typename T>
inline void taps(const T* x, Index stride, Index t, const T* weight, const T* bias, Index K, Index channels, Index width,
                 T* to) {
    for (Index c = 0; c < width; c++) to[c] = bias[c];
    for (Index k = t < K - 1 ? K - 1 - t : 0; k < K; k++) {
        const T *from = x + (t - K + 1 + k) * stride, *w = weight + k * channels;
#pragma omp simd
        for (Index c = 0; c < width; c++) to[c] += w[c] * from[c];
    }
}

// y (batch, tokens, channels) = silu(the causal convolution of x), x with a stride.
template <typename T>
void conv(const T* x, Index stride, const T* weight, const T* bias, T* y, Index batch, Index tokens, Index channels,
          Index K, int threads) {
    const Index blocks = (channels + CHANNELS - 1) / CHANNELS;
#pragma omp parallel for num_threads(threads) if (threads > 1 && batch * tokens * channels > GRAIN) schedule(static)
    for (Index i = 0; i < batch * blocks; i++) {
        const Index b = i / blocks, first = i % blocks * CHANNELS;
        const Index width = channels - first < CHANNELS ? channels - first : CHANNELS;
        for (Index t = 0; t < tokens; t++) {
            T before[CHANNELS], *to = y + (b * tokens + t) * channels + first;
            taps(x + b * tokens * stride + first, stride, t, weight + first, bias + first, K, channels, width, before);
#pragma omp simd
            for (Index c = 0; c < width; c++) to[c] = before[c] * sigmoid(before[c]);
        }
    }
}

// dx with the stride of x; dweight (batch, K, channels) and dbias (batch, channels), still to be summed over sequences.
template <typename T>
void conv_backward(const T* dy, const T* x, T* dx, Index stride, const T* weight, const T* bias, T* dweight, T* dbias,
                   Index batch, Index tokens, Index channels, Index K, int threads) {
    const Index blocks = (channels + CHANNELS - 1) / CHANNELS;
#pragma omp parallel num_threads(threads) if (threads > 1 && batch * tokens * channels > GRAIN)
    {
        std::vector<T> kept(tokens * CHANNELS), sums(K * CHANNELS);
#pragma omp for schedule(static)
        for (Index i = 0; i < batch * blocks; i++) {
            const Index b = i / blocks, first = i % blocks * CHANNELS;
            const Index width = channels - first < CHANNELS ? channels - first : CHANNELS;
            const T *from = x + b * tokens * stride + first, *w = weight + first;
            T* to = dx + b * tokens * stride + first;
            T before[CHANNELS], *sum = dbias + b * channels + first;
            for (Index c = 0; c < width; c++) sum[c] = 0;
            std::fill(sums.begin(), sums.end(), T(0));
            for (Index t = 0; t < tokens; t++) {
                const T* d = dy + (b * tokens + t) * channels + first;
                T* dbefore = kept.data() + t * CHANNELS;
                taps(from, stride, t, w, bias + first, K, channels, width, before);
#pragma omp simd
                for (Index c = 0; c < width; c++) {
                    const T s = sigmoid(before[c]);
                    dbefore[c] = d[c] * (s + before[c] * s * (1 - s));
                    sum[c] += dbefore[c];
                }
                for (Index k = t < K - 1 ? K - 1 - t : 0; k < K; k++) {
                    const T* read = from + (t - K + 1 + k) * stride;
                    T* total = sums.data() + k * CHANNELS;
#pragma omp simd
                    for (Index c = 0; c < width; c++) total[c] += dbefore[c] * read[c];
                }
            }
            for (Index t = 0; t < tokens; t++) {
                T* out = to + t * stride;
                for (Index c = 0; c < width; c++) before[c] = 0;
                for (Index k = K - 1; k >= 0 && t + K - 1 - k < tokens; k--) {
                    const T *d = kept.data() + (t + K - 1 - k) * CHANNELS, *tap = w + k * channels;
#pragma omp simd
                    for (Index c = 0; c < width; c++) before[c] += tap[c] * d[c];
                }
                for (Index c = 0; c < width; c++) out[c] = before[c];
            }
            for (Index k = 0; k < K; k++)
                for (Index c = 0; c < width; c++)
                    dweight[(b * K + k) * channels + first + c] = sums[k * CHANNELS + c];
        }
    }
}
