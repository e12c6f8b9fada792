// Registers of floats, and what both parts of the library do with them; for one machine's own
// instructions, so it is compiled where it runs.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__F16C__)
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr long W = 16;  // floats of one register
#else
constexpr long W = 8;
#endif

typedef float Vec __attribute__((vector_size(W * 4)));
typedef int32_t Int __attribute__((vector_size(W * 4)));

inline Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline Vec load_part(const float* p, long n) {  // n < W floats, zeros after them
    Vec v{};
    std::memcpy(&v, p, n * sizeof(float));
    return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
// The same, in a register: compilers would load it again for each use.
inline Vec kept(Vec v) {
#ifdef __AVX512F__
    __asm__("" : "+v"(v));
#elif defined(__AVX__)
    __asm__("" : "+x"(v));
#endif
    return v;
}
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
// Halves are added, then halves of that, down to one float: the same order in both forms.
inline float sum(Vec v) {
#ifdef __AVX512DQ__
    const __m512 whole = (__m512)v;
    const __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256(whole), _mm512_extractf32x8_ps(whole, 1));
    const __m128 four =
        _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
    float s[W];
    store(s, v);
    for (long half = W / 2; half > 0; half /= 2)
        for (long i = 0; i < half; ++i) s[i] += s[i + half];
    return s[0];
#endif
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

inline long up_to(long n, long whole) { return (n + whole - 1) / whole * whole; }

}  // namespace
