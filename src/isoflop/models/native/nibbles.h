// Weights of 4 bits: reading them by groups, for sums with one row of activations and for unpacking.
//
// The layout is that of models/packed_weights.py: byte j of a group of G columns holds column j in
// its low half and column j + G/2 in its high half, so that whole registers of neighbouring columns
// come out of one reading. Scales and offsets are widened before, a few rows at a time: halves are
// slow to read one by one.

#pragma once

#include "registers.h"

namespace {

inline float wide(uint16_t half) {
#ifdef __F16C__
    return _cvtsh_ss(half);
#else
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    uint32_t bits = (rest << 13) + 0x38000000;  // another bias of the exponent
    if (rest >= 0x7c00) bits += 0x38000000;     // infinite, or no number
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (rest < 0x0400) value = rest * 5.9604644775390625e-8f;  // 2^-24
    std::memcpy(&bits, &value, sizeof bits);
    bits |= sign;
    std::memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

inline void widen(const uint16_t* halves, long n, float* to) {
    long i = 0;
#ifdef __AVX512F__
    for (; i + W <= n; i += W)
        store(to + i, (Vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(halves + i))));
#elif defined(__F16C__)
    for (; i + W <= n; i += W)
        store(to + i, (Vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(halves + i))));
#endif
    for (; i < n; ++i) to[i] = wide(halves[i]);
}

// A register of bytes, each in the place of a float.
inline Int bytes(const uint8_t* p) {
#ifdef __AVX512F__
    return (Int)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
#elif defined(__AVX2__)
    return (Int)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
#else
    Int v;
    for (long i = 0; i < W; ++i) v[i] = p[i];
    return v;
#endif
}

// What the codes of one group stand for.
struct Meaning {
#ifdef __AVX512F__
    Vec value;  // of every code
    Meaning(Vec code, float scale, float offset) : value(code * scale + offset) {}
    // Heeds the last four bits of each place.
    Vec of(Int codes) const { return (Vec)_mm512_permutexvar_ps((__m512i)codes, (__m512)value); }
#else
    float scale, offset;
    Meaning(Vec, float scale, float offset) : scale(scale), offset(offset) {}
    Vec of(Int codes) const { return __builtin_convertvector(codes & 15, Vec) * scale + offset; }
#endif
    Meaning() {}
};

inline Vec counted() {
    Vec code;
    for (long i = 0; i < W; ++i) code[i] = i;
    return kept(code);
}

struct Nibbles {  // columns are whole groups, and halves of these whole registers
    const uint8_t *at, *next;  // and those that are wanted after them
    const float *scale, *offset;  // (rows, groups), of the first row on
    long columns, group;
};

// Sums of O rows of weights from `first` on with one row of activations; a group has 2 * PER
// registers.
template <long O, long PER>
inline void sums_of_groups(const Nibbles& weights, long first, const float* x, float* out) {
    Vec s[O] = {};
    const Vec code = counted();
    const long groups = weights.columns / weights.group, half = PER * W;
    const uint8_t* next = weights.next + first * groups * half;
    for (long g = 0; g < groups; ++g, x += 2 * half) {
        // In memory's order, while these are worked on side by side.
        for (long i = 0; i < O * half; i += 64) __builtin_prefetch(next + g * O * half + i, 0, 2);
        Meaning meaning[O];
        Int codes[O][PER];
        for (long o = 0; o < O; ++o) {
            const long place = (first + o) * groups + g;
            meaning[o] = Meaning(code, weights.scale[place], weights.offset[place]);
            for (long i = 0; i < PER; ++i) codes[o][i] = bytes(weights.at + place * half + i * W);
        }
        for (long i = 0; i < PER; ++i) {
            const Vec v = kept(load(x + i * W));
            for (long o = 0; o < O; ++o) s[o] += v * meaning[o].of(codes[o][i]);
        }
        for (long i = 0; i < PER; ++i) {
            const Vec v = kept(load(x + half + i * W));
            for (long o = 0; o < O; ++o) s[o] += v * meaning[o].of(codes[o][i] >> 4);
        }
    }
    for (long o = 0; o < O; ++o) out[o] = sum(s[o]);
}

template <long PER>
inline void sums_of_rows(const Nibbles& weights, long n, const float* x, float* out) {
    constexpr long O = PER < 4 ? 8 / PER : 2;  // what registers hold
    long o = 0;
    for (; o + O <= n; o += O) sums_of_groups<O, PER>(weights, o, x, out + o);
    for (; o < n; ++o) sums_of_groups<1, PER>(weights, o, x, out + o);
}

// Groups are of 32, 64 or 128 columns.
inline void sums_of_rows(const Nibbles& weights, long n, const float* x, float* out) {
    switch (weights.group) {
        case 32: return sums_of_rows<16 / W>(weights, n, x, out);
        case 64: return sums_of_rows<32 / W>(weights, n, x, out);
        default: return sums_of_rows<64 / W>(weights, n, x, out);
    }
}

// One row of weights in floats.
inline void unpack(const Nibbles& weights, long row, float* to) {
    const long groups = weights.columns / weights.group, half = weights.group / 2;
    for (long g = 0; g < groups; ++g, to += 2 * half) {
        const long place = row * groups + g;
        const Meaning meaning(counted(), weights.scale[place], weights.offset[place]);
        for (long i = 0; i < half; i += W) {
            const Int codes = bytes(weights.at + place * half + i);
            store(to + i, meaning.of(codes));
            store(to + half + i, meaning.of(codes >> 4));
        }
    }
}

}  // namespace
