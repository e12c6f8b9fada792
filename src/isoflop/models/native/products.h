// Products of few rows with a matrix of weights in 32, 8 or 4 bits, whose every result is the same
// bits whatever rows and columns are computed beside it.
//
// A result is the sum along one row of activations and one row of weights: W partial sums, each
// over every W-th column in order, then halves added to halves. Rows and weights are taken several
// at a time so that a weight that is read is used often; that changes which results are computed
// together, and not the order of any sum. Packed weights are unpacked in registers, or, for many
// rows, first into a buffer in the cache: the same numbers either way.

#pragma once

#include "nibbles.h"
#include "registers.h"

namespace {

constexpr long SIDE = 8;  // rows of weights that are read side by side

// The layout of models/packed_weights.py.
struct Matrix {
    const void* codes;   // (rows, columns): float32, int8, or two of 4 bits in a byte
    const void* scale;   // 8 bits: (rows) float32; 4 bits: (rows, columns / group) float16
    const void* offset;  // 4 bits: shaped as the scale
    long rows, columns, bits, group;
};

// --- reading weights -----------------------------------------------------------------------

// W signed bytes; compilers find no instruction for this by themselves.
inline Vec floats(const int8_t* p) {
#ifdef __AVX512F__
    return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
    return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
    Vec v;
    for (long i = 0; i < W; ++i) v[i] = p[i];
    return v;
#endif
}

// Each of these reads W weights of one row from column k on, or n < W of them.
struct Floats {
    const float* at;
    long apart;
    Vec read(long row, long k) const { return load(at + row * apart + k); }
    Vec read_part(long row, long k, long n) const { return load_part(at + row * apart + k, n); }
};

struct Bytes {  // their scale comes after the sum
    const int8_t* at;
    long apart;
    Vec read(long row, long k) const { return floats(at + row * apart + k); }
    Vec read_part(long row, long k, long n) const {
        int8_t part[W] = {};
        std::memcpy(part, at + row * apart + k, n);
        return floats(part);
    }
};

// --- sums ----------------------------------------------------------------------------------

// R rows of x with O rows of weights.
template <long R, long O, class Weights>
inline void sums(Weights& weights, long first, const float* x, long row, long columns,
                 float (*out)[SIDE]) {
    Vec s[R][O] = {};
    const long whole = columns / W * W;
    for (long k = 0; k < whole; k += W) {
        Vec w[O];
        for (long o = 0; o < O; ++o) w[o] = weights.read(first + o, k);
        for (long r = 0; r < R; ++r) {
            const Vec v = kept(load(x + r * row + k));
            for (long o = 0; o < O; ++o) s[r][o] += v * w[o];
        }
    }
    if (whole < columns) {
        Vec w[O];
        for (long o = 0; o < O; ++o)
            w[o] = weights.read_part(first + o, whole, columns - whole);
        for (long r = 0; r < R; ++r) {
            const Vec v = load(x + r * row + whole);
            for (long o = 0; o < O; ++o) s[r][o] += v * w[o];
        }
    }
    for (long r = 0; r < R; ++r)
        for (long o = 0; o < O; ++o) out[r][first + o] = sum(s[r][o]);
}

template <long R, long O, class Weights>
inline void sums_of(Weights& weights, long n, const float* x, long row, long columns,
                    float (*out)[SIDE]) {
    long o = 0;
    for (; o + O <= n; o += O) sums<R, O>(weights, o, x, row, columns, out);
    for (; o < n; ++o) sums<R, 1>(weights, o, x, row, columns, out);
}

// --- products ------------------------------------------------------------------------------

constexpr long MOST = 4;     // rows of activations at once
constexpr long NEAR = 4096;  // floats of them that leave room for weights in the nearest cache

// Where results go: y (rows, `row` apart), set or added to.
struct Target {
    const Matrix* matrix;
    float* y;
    long row;
    bool add;
};

inline void put(const Target& to, const float (*out)[SIDE], long first, long rows, long from,
                long n) {
    const float* scale = to.matrix->bits == 8 ? (const float*)to.matrix->scale + from : nullptr;
    for (long r = 0; r < rows; ++r) {
        float* y = to.y + (first + r) * to.row + from;
        for (long o = 0; o < n; ++o) {
            const float value = scale ? out[r][o] * scale[o] : out[r][o];
            y[o] = to.add ? y[o] + value : value;
        }
    }
}

// Memory is read fastest in its order: weights that come from there are taken row by row where the
// activations leave room in the nearest cache, or else are fetched in order first. Those that are
// in the cache are taken side by side, for then the loads of activations are what limits.
inline void float_rows(const Target& to, Floats weights, const float* x, long row, long rows,
                       long from, long n, bool cached) {
    const long columns = to.matrix->columns;
    const bool in_order = !cached && (rows == 1 || rows * columns < NEAR);
    if (!cached && !in_order)
        for (long i = 0; i < n * columns; i += 16) __builtin_prefetch(weights.at + i);
    for (long first = 0; first < rows; first += MOST) {
        float out[MOST][SIDE];
        const float* at = x + first * row;
        const long count = rows - first < MOST ? rows - first : MOST;
        switch (in_order ? -count : count) {
            case -1: sums_of<1, 1>(weights, n, at, row, columns, out); break;
            case -2: sums_of<2, 1>(weights, n, at, row, columns, out); break;
            case -3: sums_of<3, 1>(weights, n, at, row, columns, out); break;
            case -4: sums_of<4, 1>(weights, n, at, row, columns, out); break;
            case 1: sums_of<1, 8>(weights, n, at, row, columns, out); break;
            case 2: sums_of<2, W == 16 ? 8 : 4>(weights, n, at, row, columns, out); break;
            case 3: sums_of<3, W == 16 ? 4 : 2>(weights, n, at, row, columns, out); break;
            default: sums_of<4, W == 16 ? 4 : 2>(weights, n, at, row, columns, out);
        }
        put(to, out, first, count, from, n);
    }
}

inline void byte_rows(const Target& to, Bytes weights, const float* x, long row, long rows,
                      long from, long n, float* buffer) {
    const long columns = to.matrix->columns, apart = up_to(columns, W), whole = columns / W * W;
    if (rows == 1) {
        float out[MOST][SIDE];
        sums_of<1, 1>(weights, n, x, row, columns, out);
        put(to, out, 0, 1, from, n);
        return;
    }
    for (long o = 0; o < n; ++o) {
        float* at = buffer + o * apart;
        for (long k = 0; k < whole; k += W) store(at + k, weights.read(o, k));
        if (whole < columns) store(at + whole, weights.read_part(o, whole, columns - whole));
    }
    float_rows(to, Floats{buffer, apart}, x, row, rows, from, n, true);
}

inline void ahead(const void* p, long n) {
    for (long i = 0; i < n; i += 64) __builtin_prefetch((const char*)p + i, 0, 2);
}

inline void nibble_rows(const Target& to, const float* x, long row, long rows, long from, long n,
                        float* buffer) {
    const Matrix& m = *to.matrix;
    const long groups = m.columns / m.group;
    float *scale = buffer + SIDE * m.columns, *offset = scale + SIDE * groups;
    const uint16_t* scales = (const uint16_t*)m.scale + from * groups;
    const uint16_t* offsets = (const uint16_t*)m.offset + from * groups;
    const uint8_t* codes = (const uint8_t*)m.codes + from * m.columns / 2;
    // The next rows, in memory's order, while these are worked on side by side.
    ahead(scales + n * groups, n * groups * sizeof *scales);
    ahead(offsets + n * groups, n * groups * sizeof *offsets);
    widen(scales, n * groups, scale);
    widen(offsets, n * groups, offset);
    const Nibbles weights{codes, codes + n * m.columns / 2, scale, offset, m.columns, m.group};
    if (rows == 1) {
        float out[MOST][SIDE];
        sums_of_rows(weights, n, x, out[0]);
        put(to, out, 0, 1, from, n);
        return;
    }
    for (long o = 0; o < n; ++o) unpack(weights, o, buffer + o * m.columns);
    float_rows(to, Floats{buffer, m.columns}, x, row, rows, from, n, true);
}

// Floats that `product` works in, for rows of activations of so many floats: unpacked weights, and
// the scales and offsets of groups, which are of 16 columns at least.
inline long product_room(long row) { return SIDE * (row + row / 8); }

// Results from .. from + n, n at most SIDE, of all rows of x (`row` apart, zeros after the last
// column up to whole registers).
inline void product(const Target& to, const float* x, long row, long rows, long from, long n,
                    float* buffer) {
    const Matrix& m = *to.matrix;
    if (m.bits == 32) {
        const Floats weights{(const float*)m.codes + from * m.columns, m.columns};
        float_rows(to, weights, x, row, rows, from, n, false);
    } else if (m.bits == 8) {
        const Bytes weights{(const int8_t*)m.codes + from * m.columns, m.columns};
        byte_rows(to, weights, x, row, rows, from, n, buffer);
    } else {
        nibble_rows(to, x, row, rows, from, n, buffer);
    }
}

}  // namespace
