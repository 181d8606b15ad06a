// The gradient of a weight, dy (tokens, n) transposed times x (tokens, k): both are read along their rows as they lie,
// where a library's product would first copy one of them across.

#pragma once
#include "scan.hpp"

constexpr Index TALL = 6, WIDE = 4, DEPTH = 128;  // TALL x WIDE vectors of the result in registers; tokens in a cache

// Adds to `out` at (R rows, V vectors) the sum over tokens.
template <typename T, int R, int V>
inline void add_block(const T* dy, const T* x, T* out, Index tokens, Index n, Index k) {
    using Vec = typename Vector<T>::type;
    constexpr Index L = Vector<T>::lanes;
    Vec sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = *reinterpret_cast<const Vec*>(out + r * k + v * L);
    for (Index t = 0; t < tokens; t++) {
        Vec row[V];
        for (int v = 0; v < V; v++) row[v] = *reinterpret_cast<const Vec*>(x + t * k + v * L);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sum[r][v] += row[v] * dy[t * n + r];
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) *reinterpret_cast<Vec*>(out + r * k + v * L) = sum[r][v];
}

template <typename T, int R>
inline void add_rows(const T* dy, const T* x, T* out, Index tokens, Index n, Index k) {
    constexpr Index L = Vector<T>::lanes;
    Index c = 0;
    for (; c + WIDE * L <= k; c += WIDE * L) add_block<T, R, WIDE>(dy, x + c, out + c, tokens, n, k);
    for (; c + L <= k; c += L) add_block<T, R, 1>(dy, x + c, out + c, tokens, n, k);
    for (; c < k; c++)
        for (int r = 0; r < R; r++)
            for (Index t = 0; t < tokens; t++) out[r * k + c] += dy[t * n + r] * x[t * k + c];
}

// out (n, k).
template <typename T>
void weight_gradient(const T* dy, const T* x, T* out, Index tokens, Index n, Index k, int threads) {
    const Index blocks = (n + TALL - 1) / TALL;
#pragma omp parallel num_threads(threads) if (threads > 1 && tokens * n * k > 16 * GRAIN)
    {
#pragma omp for schedule(static)
        for (Index i = 0; i < n * k; i++) out[i] = 0;
        for (Index t = 0; t < tokens; t += DEPTH) {
            const Index count = std::min(DEPTH, tokens - t);
#pragma omp for schedule(static)
            for (Index block = 0; block < blocks; block++) {
                const Index r = block * TALL;
                if (r + TALL <= n)
                    add_rows<T, TALL>(dy + t * n + r, x + t * k, out + r * k, count, n, k);
                else
                    for (Index i = r; i < n; i++) add_rows<T, 1>(dy + t * n + i, x + t * k, out + i * k, count, n, k);
            }
        }
    }
}
