// Tiles of products that live in a core's cache, and sums over rows; shared by what training calls.

#pragma once

#include <vector>

#include "registers.h"

namespace {

#ifdef __AVX512F__
constexpr long M = 8;  // rows of one tile of a product
#else
constexpr long M = 4;
#endif

// 1 / (1 + e^-g), with e^x of a negative x alone.
inline Vec logistic(Vec g) {
    const Vec e = exponential(g > 0.0f ? -g : g);  // both branches keep e^x below 1
    return (g > 0.0f ? all(1.0f) : e) / (e + 1.0f);
}

inline float inverse_root_mean_square(const float* x, float eps, long width) {
    Vec squares = Vec{};
    for (long k = 0; k < width; k += W) {
        const Vec v = load(x + k);
        squares += v * v;
    }
    return 1.0f / std::sqrt(sum(squares) / width + eps);
}

// --- small products ------------------------------------------------------------------------

// C (rows x NV registers) (+)= A B; A is read by strides, B and C along their rows.
template <long ROWS, long NV>
inline void tile(const float* a, long a_row, long a_col, const float* b, long ldb, float* c,
                 long ldc, long depth, bool add) {
    Vec s[ROWS][NV];
    for (long m = 0; m < ROWS; ++m)
        for (long n = 0; n < NV; ++n) s[m][n] = add ? load(c + m * ldc + n * W) : Vec{};
    for (long p = 0; p < depth; ++p) {
        Vec along[NV];
        for (long n = 0; n < NV; ++n) along[n] = load(b + p * ldb + n * W);
        for (long m = 0; m < ROWS; ++m) {
            const Vec x = all(a[m * a_row + p * a_col]);
            for (long n = 0; n < NV; ++n) s[m][n] += x * along[n];
        }
    }
    for (long m = 0; m < ROWS; ++m)
        for (long n = 0; n < NV; ++n) store(c + m * ldc + n * W, s[m][n]);
}

// C (rows x width) (+)= A (rows x depth) B (depth x width); rows and width whole registers' worth.
inline void multiply(const float* a, long a_row, long a_col, const float* b, long ldb, float* c,
                     long ldc, long rows, long width, long depth, bool add) {
    long n = 0;
    for (; n + 2 * W <= width; n += 2 * W)
        for (long m = 0; m < rows; m += M)
            tile<M, 2>(a + m * a_row, a_row, a_col, b + n, ldb, c + m * ldc + n, ldc, depth, add);
    for (; n < width; n += W)
        for (long m = 0; m < rows; m += M)
            tile<M, 1>(a + m * a_row, a_row, a_col, b + n, ldb, c + m * ldc + n, ldc, depth, add);
}

// Rows of heads lie far apart: without this every one of them is waited for.
inline void fetch(const float* p, long n) {
    for (long i = 0; i < n; i += 16) __builtin_prefetch(p + i);
}

// --- sums over rows -------------------------------------------------------------------------

constexpr long ROWS = 64;  // of one pass over a weight's gradient: they stay in the first cache

// to = parts (S x n) added in order.
inline void add_up(const float* parts, long S, long n, float* to) {
#pragma omp for schedule(static)
    for (long i = 0; i < n; i += W) {
        Vec total = load(parts + i);
        for (long s = 1; s < S; ++s) total += load(parts + s * n + i);
        store(to + i, total);
    }
}

// Where part s of N rows begins; parts begin at whole multiples of ROWS.
inline long begin_of(long s, long S, long N) {
    const long at = up_to((N + S - 1) / S, ROWS) * s;
    return at < N ? at : N;
}

}  // namespace
