// The functions that Python calls, each in float32 (name ending in 32) and float64 (64). Pointers are to tensors
// without gaps unless a stride says otherwise; no function keeps one.

#include "elementwise.hpp"
#include "product.hpp"
#include "scan.hpp"

// Elements of the states that `scan` keeps.
template <typename T> Index kept_states(const Shape& s) {
    const Index block = Vector<T>::lanes * (s.head_dim > Vector<T>::lanes ? 2 : 1);
    return s.batch * s.heads * s.chunks() * padded(s.d_state, ROWS) * padded(s.head_dim, block);
}

#define EXPORT(T, SUFFIX)                                                                                              \
    extern "C" void norm##SUFFIX(const T* x, T* n, T* inverse, Index rows, Index width, double eps, int threads) {     \
        norm<T>(x, n, inverse, rows, width, eps, threads);                                                             \
    }                                                                                                                  \
    extern "C" void norm_backward##SUFFIX(T* dn, const T* n, const T* inverse, Index rows, Index width, int threads) { \
        norm_backward<T>(dn, n, inverse, rows, width, threads);                                                        \
    }                                                                                                                  \
    extern "C" void gated_norm##SUFFIX(const T* y, const T* z, Index stride, T* n, T* inverse, Index rows,             \
                                       Index groups, Index width, double eps, int threads) {                           \
        gated_norm<T>(y, z, stride, n, inverse, rows, groups, width, eps, threads);                                    \
    }                                                                                                                  \
    extern "C" void gated_norm_backward##SUFFIX(T* dn, const T* n, const T* inverse, const T* y, const T* z, T* dz,    \
                                                Index stride, Index rows, Index groups, Index width, int threads) {    \
        gated_norm_backward<T>(dn, n, inverse, y, z, dz, stride, rows, groups, width, threads);                        \
    }                                                                                                                  \
    extern "C" void gate##SUFFIX(const T* g, const T* u, T* h, Index rows, Index width, int threads) {                 \
        gate<T>(g, u, h, rows, width, threads);                                                                        \
    }                                                                                                                  \
    extern "C" void gate_backward##SUFFIX(T* dh, const T* g, const T* u, T* dg, T* h, Index rows, Index width,         \
                                          int threads) {                                                               \
        gate_backward<T>(dh, g, u, dg, h, rows, width, threads);                                                       \
    }                                                                                                                  \
    extern "C" void conv##SUFFIX(const T* x, Index stride, const T* weight, const T* bias, T* y, Index batch,          \
                                 Index tokens, Index channels, Index K, int threads) {                                 \
        conv<T>(x, stride, weight, bias, y, batch, tokens, channels, K, threads);                                      \
    }                                                                                                                  \
    extern "C" void conv_backward##SUFFIX(const T* dy, const T* x, T* dx, Index stride, const T* weight,               \
                                          const T* bias, T* dweight, T* dbias, Index batch, Index tokens,              \
                                          Index channels, Index K, int threads) {                                      \
        conv_backward<T>(dy, x, dx, stride, weight, bias, dweight, dbias, batch, tokens, channels, K, threads);        \
    }                                                                                                                  \
    extern "C" void weight_gradient##SUFFIX(const T* dy, const T* x, T* out, Index tokens, Index n, Index k,           \
                                            int threads) {                                                             \
        weight_gradient<T>(dy, x, out, tokens, n, k, threads);                                                         \
    }                                                                                                                  \
    extern "C" Index kept_states##SUFFIX(Index batch, Index tokens, Index heads, Index head_dim, Index groups,         \
                                         Index d_state) {                                                              \
        return kept_states<T>({batch, tokens, heads, head_dim, groups, d_state});                                      \
    }                                                                                                                  \
    extern "C" void scan##SUFFIX(const T* rows, const T* dt, const T* decay, const T* skip, T* y, T* entering,         \
                                 Index batch, Index tokens, Index heads, Index head_dim, Index groups, Index d_state,  \
                                 int threads) {                                                                        \
        const Shape s{batch, tokens, heads, head_dim, groups, d_state};                                                \
        if (head_dim > Vector<T>::lanes)                                                                               \
            scan<T, 2>(rows, dt, decay, skip, y, entering, s, threads);                                                \
        else                                                                                                           \
            scan<T, 1>(rows, dt, decay, skip, y, entering, s, threads);                                                \
    }                                                                                                                  \
    extern "C" void scan_backward##SUFFIX(const T* rows, const T* dt, const T* decay, const T* skip, const T* dy,      \
                                          const T* entering, T* drows, T* ddt, T* dlog, T* dskip, Index batch,         \
                                          Index tokens, Index heads, Index head_dim, Index groups, Index d_state,      \
                                          int threads) {                                                               \
        const Shape s{batch, tokens, heads, head_dim, groups, d_state};                                                \
        if (head_dim > Vector<T>::lanes)                                                                               \
            scan_backward<T, 2>(rows, dt, decay, skip, dy, entering, drows, ddt, dlog, dskip, s, threads);             \
        else                                                                                                           \
            scan_backward<T, 1>(rows, dt, decay, skip, dy, entering, drows, ddt, dlog, dskip, s, threads);             \
    }

EXPORT(float, 32)
EXPORT(double, 64)
