// State-space duality [arXiv:2405.21060] by its recurrence, with the state in registers.
//
//     s_t = a_t s_{t-1} + B_t (dt_t x_t)^T,    y_t = C_t^T s_t + D x_t        s (d_state, head_dim)
//
// A block of the state, ROWS of d_state by LANES * V of head_dim, stays in registers over a chunk of tokens. The
// backward pass runs a chunk's states forward again from the state that entered it, then the gradient backward. Every
// gradient is a sum of products as they stand, none a difference of large sums. Shapes that are no multiple of a block
// are padded with zeros in the scratch memory of a chunk.

#pragma once
#include <algorithm>
#include <vector>

#include "elementwise.hpp"

#if defined(__AVX512F__)
constexpr Index BYTES = 64;
#elif defined(__AVX__)
constexpr Index BYTES = 32;
#else
constexpr Index BYTES = 16;
#endif
constexpr Index ROWS = 8, CHUNK = 32;

template <typename T> struct Vector {
    typedef T type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
    static constexpr Index lanes = BYTES / sizeof(T);
};

inline Index padded(Index size, Index block) { return (size + block - 1) / block * block; }

struct Shape {
    Index batch, tokens, heads, head_dim, groups, d_state;
    Index width() const { return heads * head_dim + 2 * groups * d_state; }  // of a row: x, B, C
    Index chunks() const { return (tokens + CHUNK - 1) / CHUNK; }
};

template <typename T, int V> struct Scan {
    using Vec = typename Vector<T>::type;
    static constexpr Index L = Vector<T>::lanes, P = L * V;

    const Shape s;
    const Index N, D;  // d_state and head_dim in whole blocks
    std::vector<T> xs, ys, Bs, Cs;

    explicit Scan(const Shape& shape)
        : s(shape), N(padded(shape.d_state, ROWS)), D(padded(shape.head_dim, P)), xs(CHUNK * D), ys(CHUNK * D),
          Bs(CHUNK * N), Cs(CHUNK * N) {}

    static Vec load(const T* at) { return *reinterpret_cast<const Vec*>(at); }
    static void store(T* at, Vec value) { *reinterpret_cast<Vec*>(at) = value; }

    void read_BC(const T* row, Index group, Index Q) {
        const T *B = row + s.heads * s.head_dim + group * s.d_state, *C = B + s.groups * s.d_state;
        for (Index t = 0; t < Q; t++)
            for (Index n = 0; n < s.d_state; n++) {
                Bs[t * N + n] = B[t * s.width() + n];
                Cs[t * N + n] = C[t * s.width() + n];
            }
    }

    void read_x(const T* row, const T* dt, Index head, Index Q) {
        const T* x = row + head * s.head_dim;
        for (Index t = 0; t < Q; t++) {
            const T step = dt[t * s.heads + head];
            for (Index p = 0; p < s.head_dim; p++) xs[t * D + p] = x[t * s.width() + p] * step;
        }
    }

    // One block over a chunk: state (N, D) at (n, p) is carried on, and C^T s is added to ys.
    void forward_block(T* state, const T* decay, Index n, Index p, Index Q) {
        Vec block[ROWS][V];
        for (Index i = 0; i < ROWS; i++)
            for (int v = 0; v < V; v++) block[i][v] = load(state + (n + i) * D + p + v * L);
        for (Index t = 0; t < Q; t++) {
            const T a = decay[t * s.heads], *B = Bs.data() + t * N + n, *C = Cs.data() + t * N + n;
            Vec x[V], even[V], odd[V];
            for (int v = 0; v < V; v++) {
                x[v] = load(xs.data() + t * D + p + v * L);
                even[v] = load(ys.data() + t * D + p + v * L);
                odd[v] = Vec{};
            }
#pragma GCC unroll 8
            for (Index i = 0; i < ROWS; i++)
#pragma GCC unroll 2
                for (int v = 0; v < V; v++) {
                    block[i][v] = block[i][v] * a + x[v] * B[i];
                    (i % 2 ? odd : even)[v] += block[i][v] * C[i];
                }
            for (int v = 0; v < V; v++) store(ys.data() + t * D + p + v * L, even[v] + odd[v]);
        }
        for (Index i = 0; i < ROWS; i++)
            for (int v = 0; v < V; v++) store(state + (n + i) * D + p + v * L, block[i][v]);
    }

    // All heads of a group of one sequence. entering (heads, chunks, N, D): the state before each chunk.
    void forward(const T* rows, const T* dt, const T* decay, const T* skip, T* y, T* entering, Index group) {
        const Index share = s.heads / s.groups, chunks = s.chunks(), size = N * D;
        for (Index chunk = 0; chunk < chunks; chunk++) {
            const Index first = chunk * CHUNK, Q = std::min(CHUNK, s.tokens - first);
            const T* row = rows + first * s.width();
            read_BC(row, group, Q);
            for (Index head = group * share; head < (group + 1) * share; head++) {
                T* state = entering + (head * chunks + chunk) * size;
                std::vector<T>& on = carried;
                if (chunk == 0) std::fill(state, state + size, T(0));
                on.assign(state, state + size);
                read_x(row, dt + first * s.heads, head, Q);
                std::fill(ys.begin(), ys.end(), T(0));
                for (Index n = 0; n < N; n += ROWS)
                    for (Index p = 0; p < D; p += P)
                        forward_block(on.data(), decay + first * s.heads + head, n, p, Q);
                if (chunk + 1 < chunks) std::copy(on.begin(), on.end(), state + size);
                for (Index t = 0; t < Q; t++) {
                    const T* x = row + t * s.width() + head * s.head_dim;
                    T* to = y + ((first + t) * s.heads + head) * s.head_dim;
                    for (Index i = 0; i < s.head_dim; i++) to[i] = ys[t * D + i] + skip[head] * x[i];
                }
            }
        }
    }

    std::vector<T> carried, dys, dxs, dB, dC, dlog, states;

    // One block over a chunk, backward. dstate (N, D) is the gradient of the state after the chunk, then of that before
    // it. dxs, dB, dC and dlog are added to; the last three hold a vector each, whose lanes are still to be summed.
    void backward_block(const T* entering, T* dstate, const T* decay, Index n, Index p, Index Q) {
        // Copies, because a store through a vector could change a member and each would be read again.
        const Index N = this->N, D = this->D, heads = s.heads;
        const T *const x_rows = xs.data() + p, *const dy_rows = dys.data() + p;
        const T *const B_rows = Bs.data() + n, *const C_rows = Cs.data() + n;
        T *const dx_rows = dxs.data() + p, *const log_rows = dlog.data();
        T *const into_B_rows = dB.data() + n * L, *const into_C_rows = dC.data() + n * L;
        Vec block[ROWS][V];
        T* kept = states.data();
        for (Index i = 0; i < ROWS; i++)
            for (int v = 0; v < V; v++) {
                block[i][v] = load(entering + (n + i) * D + p + v * L);
                store(kept + (i * V + v) * L, block[i][v]);
            }
        for (Index t = 0; t < Q; t++) {
            const T a = decay[t * heads], *B = B_rows + t * N;
            Vec x[V];
            for (int v = 0; v < V; v++) x[v] = load(x_rows + t * D + v * L);
            kept += ROWS * P;
#pragma GCC unroll 8
            for (Index i = 0; i < ROWS; i++)
#pragma GCC unroll 2
                for (int v = 0; v < V; v++) {
                    block[i][v] = block[i][v] * a + x[v] * B[i];
                    store(kept + (i * V + v) * L, block[i][v]);
                }
        }
        for (Index i = 0; i < ROWS; i++)
            for (int v = 0; v < V; v++) block[i][v] = load(dstate + (n + i) * D + p + v * L);
        for (Index t = Q - 1; t >= 0; t--) {
            const T a = decay[t * heads], *B = B_rows + t * N, *C = C_rows + t * N;
            const T *after = kept, *before = kept - ROWS * P;
            T *dBt = into_B_rows + t * N * L, *dCt = into_C_rows + t * N * L;
            Vec x[V], dy[V], dx[V], through[2] = {};
            for (int v = 0; v < V; v++) {
                x[v] = load(x_rows + t * D + v * L);
                dy[v] = load(dy_rows + t * D + v * L);
                dx[v] = load(dx_rows + t * D + v * L);
            }
#pragma GCC unroll 8
            for (Index i = 0; i < ROWS; i++) {
                Vec into_B = load(dBt + i * L), into_C = load(dCt + i * L);
#pragma GCC unroll 2
                for (int v = 0; v < V; v++) {
                    Vec d = block[i][v] + dy[v] * C[i];
                    into_C += dy[v] * load(after + (i * V + v) * L);
                    into_B += d * x[v];
                    dx[v] += d * B[i];
                    d *= a;
                    through[i % 2] += d * load(before + (i * V + v) * L);
                    block[i][v] = d;
                }
                store(dBt + i * L, into_B);
                store(dCt + i * L, into_C);
            }
            for (int v = 0; v < V; v++) store(dx_rows + t * D + v * L, dx[v]);
            store(log_rows + t * L, load(log_rows + t * L) + through[0] + through[1]);
            kept -= ROWS * P;
        }
        for (Index i = 0; i < ROWS; i++)
            for (int v = 0; v < V; v++) store(dstate + (n + i) * D + p + v * L, block[i][v]);
    }

    static T total(const T* at) {
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (Index i = 0; i < L; i++) sum += at[i];
        return sum;
    }

    // Of one sequence and group: drows like rows, ddt (its direct part) and dlog_decay (tokens, heads), and dskip
    // (heads).
    void backward(const T* rows, const T* dt, const T* decay, const T* skip, const T* dy, const T* entering, T* drows,
                  T* ddt, T* dlog_decay, T* dskip, Index group) {
        const Index share = s.heads / s.groups, chunks = s.chunks(), size = N * D;
        std::vector<T> dstates(share * size, T(0));
        dys.assign(CHUNK * D, T(0));
        dB.resize(CHUNK * N * L);
        dC.resize(CHUNK * N * L);
        states.resize((CHUNK + 1) * ROWS * P);
        for (Index head = group * share; head < (group + 1) * share; head++) dskip[head] = 0;
        for (Index chunk = chunks - 1; chunk >= 0; chunk--) {
            const Index first = chunk * CHUNK, Q = std::min(CHUNK, s.tokens - first);
            const T* row = rows + first * s.width();
            T* drow = drows + first * s.width();
            read_BC(row, group, Q);
            std::fill(dB.begin(), dB.end(), T(0));
            std::fill(dC.begin(), dC.end(), T(0));
            for (Index head = group * share; head < (group + 1) * share; head++) {
                read_x(row, dt + first * s.heads, head, Q);
                for (Index t = 0; t < Q; t++) {
                    const T* d = dy + ((first + t) * s.heads + head) * s.head_dim;
                    std::copy(d, d + s.head_dim, dys.data() + t * D);
                }
                dxs.assign(CHUNK * D, T(0));
                dlog.assign(CHUNK * L, T(0));
                for (Index n = 0; n < N; n += ROWS)
                    for (Index p = 0; p < D; p += P)
                        backward_block(entering + (head * chunks + chunk) * size,
                                       dstates.data() + (head - group * share) * size,
                                       decay + first * s.heads + head, n, p, Q);
                for (Index t = 0; t < Q; t++) {
                    const Index at = (first + t) * s.heads + head;
                    const T *x = row + t * s.width() + head * s.head_dim, *dx = dxs.data() + t * D;
                    const T* d = dys.data() + t * D;
                    T *to = drow + t * s.width() + head * s.head_dim, step = dt[at], direct = 0, through = 0;
#pragma omp simd reduction(+ : direct, through)
                    for (Index i = 0; i < s.head_dim; i++) {
                        to[i] = dx[i] * step + skip[head] * d[i];
                        direct += dx[i] * x[i];
                        through += d[i] * x[i];
                    }
                    ddt[at] = direct;
                    dskip[head] += through;
                    dlog_decay[at] = total(dlog.data() + t * L);
                }
            }
            for (Index t = 0; t < Q; t++) {
                T* to = drow + t * s.width() + s.heads * s.head_dim + group * s.d_state;
                for (Index n = 0; n < s.d_state; n++) {
                    to[n] = total(dB.data() + (t * N + n) * L);
                    to[n + s.groups * s.d_state] = total(dC.data() + (t * N + n) * L);
                }
            }
        }
    }
};

// rows (batch, tokens, width of x, B, C); dt and decay (batch, tokens, heads); skip (heads).
template <typename T, int V>
void scan(const T* rows, const T* dt, const T* decay, const T* skip, T* y, T* entering, const Shape& s, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1 && s.batch * s.tokens * s.width() > GRAIN)
    {
        Scan<T, V> run(s);
        const Index states = s.heads * s.chunks() * run.N * run.D;
#pragma omp for schedule(static)
        for (Index i = 0; i < s.batch * s.groups; i++) {
            const Index b = i / s.groups, from = b * s.tokens;
            run.forward(rows + from * s.width(), dt + from * s.heads, decay + from * s.heads, skip,
                        y + from * s.heads * s.head_dim, entering + b * states, i % s.groups);
        }
    }
}

template <typename T, int V>
void scan_backward(const T* rows, const T* dt, const T* decay, const T* skip, const T* dy, const T* entering, T* drows,
                   T* ddt, T* dlog, T* dskip, const Shape& s, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1 && s.batch * s.tokens * s.width() > GRAIN)
    {
        Scan<T, V> run(s);
        const Index states = s.heads * s.chunks() * run.N * run.D;
#pragma omp for schedule(static)
        for (Index i = 0; i < s.batch * s.groups; i++) {
            const Index b = i / s.groups, from = b * s.tokens;
            run.backward(rows + from * s.width(), dt + from * s.heads, decay + from * s.heads, skip,
                         dy + from * s.heads * s.head_dim, entering + b * states, drows + from * s.width(),
                         ddt + from * s.heads, dlog + from * s.heads, dskip + b * s.heads, i % s.groups);
        }
    }
}
