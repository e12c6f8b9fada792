// Registers of floats, and products of tiles that live in a core's cache; shared by the sources here.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr long W = 16, M = 8;  // floats of one register; rows of one tile of a product
#else
constexpr long W = 8, M = 4;
#endif
constexpr long QUERIES = 16;  // of one block of attention
constexpr long AHEAD = 16;    // rows fetched into the cache before their turn

typedef float Vec __attribute__((vector_size(W * 4)));
typedef int32_t Int __attribute__((vector_size(W * 4)));

inline Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline Vec all(float x) { return x - Vec{}; }  // not 0 + x, which would turn -0 into 0
inline Int as_int(Vec v) {
    Int i;
    std::memcpy(&i, &v, sizeof i);
    return i;
}
inline Vec as_vec(Int i) {
    Vec v;
    std::memcpy(&v, &i, sizeof v);
    return v;
}
inline float sum(Vec v) {
    float s[W];
    store(s, v);
    for (long half = W / 2; half > 0; half /= 2)
        for (long i = 0; i < half; ++i) s[i] += s[i + half];
    return s[0];
}
inline float largest(Vec v) {
    float s[W];
    store(s, v);
    for (long half = W / 2; half > 0; half /= 2)
        for (long i = 0; i < half; ++i) s[i] = s[i] > s[i + half] ? s[i] : s[i + half];
    return s[0];
}

// e^x to a relative 2e-7 for x <= 0 and any x below 88; exactly 0 below -87.
inline Vec exponential(Vec x) {
    const Vec magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const Vec least = all(-87.0f);
    const Int alive = x > least;
    x = x > least ? x : least;
    const Vec shifted = x * 1.44269504f + magic;
    const Vec n = shifted - magic;
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Int power = (as_int(shifted) - as_int(magic)) << 23;
    return as_vec((as_int(p) + power) & alive);
}

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

inline long up_to(long n, long whole) { return (n + whole - 1) / whole * whole; }

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
