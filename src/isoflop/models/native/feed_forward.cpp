// A feed-forward layer with its norm, a block of rows at a time: what lies between the matrix
// products never leaves a core's cache. Of the forward pass only gate and up are kept.
//
// As in kernels.cpp and narrow_products.cpp, the order of every sum is fixed by the shapes alone.
//
// Letters: N rows, D model width, F feed-forward width, S parts.

#include "tiles.h"

namespace {

constexpr long C = 2 * W;   // columns of one tile
constexpr long BLOCK = 64;  // rows

// weight (rows x columns) transposed, in panels of C rows that are read as they lie.
inline void pack(const float* weight, long rows, long columns, float* packed) {
#pragma omp for schedule(static)
    for (long r = 0; r < rows; r += C)
        for (long c = 0; c < columns; ++c)
            for (long j = 0; j < C; ++j)
                packed[r * columns + c * C + j] = weight[(r + j) * columns + c];
}

// out (n x rows) (+)= x (n x columns) of the packed weight.
inline void times_packed(const float* x, const float* packed, long n, long rows, long columns,
                         float* out, bool add) {
    for (long r = 0; r < rows; r += C)
        multiply(x, columns, 1, packed + r * columns, C, out + r, rows, n, C, columns, add);
}

}  // namespace

extern "C" {

// out (N, D) = x + (silu(gate) * up) down^T with gate, up (N, F) = h gate_weight^T, h up_weight^T
// and h = x * scale, scale (N) = 1 / rms(x). Weights: gate and up (F, D), down (D, F), packed into
// room for 3 F D numbers. N whole tiles of rows, D and F of columns.
void isoflop_feed_forward(const float* x, const float* gate_weight, const float* up_weight,
                          const float* down_weight, float eps, long N, long D, long F,
                          float* packed, float* scale, float* gate, float* up, float* out) {
    float *packed_up = packed + F * D, *packed_down = packed + 2 * F * D;
#pragma omp parallel
    {
        pack(gate_weight, F, D, packed);
        pack(up_weight, F, D, packed_up);
        pack(down_weight, D, F, packed_down);
        std::vector<float> h(BLOCK * D), room(2 * BLOCK * F);
        float* g = room.data();
        float* u = g + BLOCK * F;
#pragma omp for schedule(static)
        for (long start = 0; start < N; start += BLOCK) {
            const long n = N - start < BLOCK ? N - start : BLOCK;
            const float* rows = x + start * D;
            for (long i = 0; i < n; ++i) {
                const float f = inverse_root_mean_square(rows + i * D, eps, D);
                for (long d = 0; d < D; d += W)
                    store(h.data() + i * D + d, load(rows + i * D + d) * f);
                scale[start + i] = f;
            }
            times_packed(h.data(), packed, n, F, D, g, false);
            times_packed(h.data(), packed_up, n, F, D, u, false);
            for (long i = 0; i < n * F; i += W) {
                const Vec a = load(g + i), b = load(u + i);
                store(gate + start * F + i, a);
                store(up + start * F + i, b);
                store(g + i, a * logistic(a) * b);
            }
            std::memcpy(out + start * D, rows, n * D * sizeof(float));
            times_packed(g, packed_down, n, D, F, out + start * D, true);
        }
    }
}

// From d_out (N, D): d_x (N, D), and d_weights (3, F, D): of gate, of up, and of down as (D, F);
// parts (S, 3, F, D).
void isoflop_feed_forward_backward(const float* d_out, const float* x, const float* scale,
                                   const float* gate, const float* up, const float* gate_weight,
                                   const float* up_weight, const float* down_weight, long N, long D,
                                   long F, long S, float* parts, float* d_x, float* d_weights) {
    const long numbers = 3 * F * D;
#pragma omp parallel
    {
        std::vector<float> h(BLOCK * D), d_h(BLOCK * D);
        std::vector<float> inner(BLOCK * F), d_gate(BLOCK * F), d_up(BLOCK * F);
#pragma omp for schedule(dynamic, 1)
        for (long s = 0; s < S; ++s) {
            float* part = parts + s * numbers;
            std::memset(part, 0, numbers * sizeof(float));
            const long last = begin_of(s + 1, S, N);
            for (long start = begin_of(s, S, N); start < last; start += BLOCK) {
                const long n = last - start < BLOCK ? last - start : BLOCK;
                const float* d = d_out + start * D;
                for (long i = 0; i < n; ++i)
                    for (long j = 0; j < D; j += W)
                        store(h.data() + i * D + j, load(x + (start + i) * D + j) * scale[start + i]);
                multiply(d, D, 1, down_weight, F, d_gate.data(), F, n, F, D, false);
                for (long i = 0; i < n * F; i += W) {
                    const Vec g = load(gate + start * F + i), u = load(up + start * F + i);
                    const Vec share = logistic(g), through = load(d_gate.data() + i);
                    const Vec silu = g * share;
                    store(inner.data() + i, silu * u);
                    store(d_up.data() + i, through * silu);
                    store(d_gate.data() + i, through * u * share * (g * (1.0f - share) + 1.0f));
                }
                multiply(d_gate.data(), 1, F, h.data(), D, part, D, F, D, n, true);
                multiply(d_up.data(), 1, F, h.data(), D, part + F * D, D, F, D, n, true);
                multiply(d, 1, D, inner.data(), F, part + 2 * F * D, F, D, F, n, true);
                multiply(d_gate.data(), F, 1, gate_weight, D, d_h.data(), D, n, D, F, false);
                multiply(d_up.data(), F, 1, up_weight, D, d_h.data(), D, n, D, F, true);
                for (long i = 0; i < n; ++i) {
                    const float *to = d_h.data() + i * D, *unit = h.data() + i * D;
                    Vec along = Vec{};
                    for (long j = 0; j < D; j += W) along += load(to + j) * load(unit + j);
                    const float mean = sum(along) / D, f = scale[start + i];
                    for (long j = 0; j < D; j += W)
                        store(d_x + (start + i) * D + j,
                              (load(to + j) - load(unit + j) * mean) * f + load(d + i * D + j));
                }
            }
        }
        add_up(parts, S, numbers, d_weights);
    }
}
}
