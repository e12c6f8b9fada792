// Matrix products with narrow weights, in float32, and the output layer with its loss.
//
// A weight of some ten thousand numbers stays in a core's cache while all rows pass by; torch's
// libraries are made for larger ones. As in kernels.cpp, the order of every sum is fixed by the
// shapes alone: rows are dealt into parts, never by the number of threads, each part sums on its
// own, and the parts are added in order.
//
// Letters: N rows, D width of a row, F width of a result, V vocabulary, S parts.

#include "tiles.h"

namespace {

constexpr long C = 2 * W;      // columns of one tile
constexpr long WORDS = 64;     // of the vocabulary, likewise

}  // namespace

extern "C" {

// out (N, F) = x (N, D) weight^T (+ addend), with the weight's element (f, d) at
// weight[f * f_step + d * d_step]. N, D whole tiles of rows, F of columns; packed (F * D) is
// room for the weight in the order in which it is read.
void isoflop_product(const float* x, const float* weight, long f_step, long d_step,
                     const float* addend, long N, long D, long F, float* packed, float* out) {
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long f = 0; f < F; f += C)
            for (long d = 0; d < D; ++d)
                for (long j = 0; j < C; ++j)
                    packed[f * D + d * C + j] = weight[(f + j) * f_step + d * d_step];
#pragma omp for schedule(static)
        for (long start = 0; start < N; start += M * 4) {
            const long end = start + M * 4 < N ? start + M * 4 : N;
            if (addend)
                std::memcpy(out + start * F, addend + start * F,
                            (end - start) * F * sizeof(float));
            for (long f = 0; f < F; f += C)
                for (long i = start; i < end; i += M)
                    tile<M, 2>(x + i * D, D, 1, packed + f * D, C, out + i * F + f, F, D,
                               addend != nullptr);
        }
    }
}

// d_weight (F, D) = d_out (N, F)^T x (N, D); parts (S, F, D).
void isoflop_weight_gradient(const float* d_out, const float* x, long N, long D, long F, long S,
                             float* parts, float* d_weight) {
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1)
        for (long s = 0; s < S; ++s) {
            float* part = parts + s * F * D;
            const long first = begin_of(s, S, N), last = begin_of(s + 1, S, N);
            if (first == last) std::memset(part, 0, F * D * sizeof(float));
            for (long start = first; start < last; start += ROWS) {
                const long depth = start + ROWS < last ? ROWS : last - start;
                for (long f = 0; f < F; f += M)
                    for (long d = 0; d < D; d += C)
                        tile<M, 2>(d_out + start * F + f, 1, F, x + start * D + d, D,
                                   part + f * D + d, D, depth, start > first);
            }
        }
        add_up(parts, S, F * D, d_weight);
    }
}

// Of logits x (N, D) weight (V, D)^T: loss (N) = -log softmax at the label, 0 where it is
// `ignored`; and where d_x (N, D) is wanted, the gradients of the losses' sum, with parts (S, V, D).
//
// A block of C rows keeps its logits, vocabulary by rows, in the core's own cache: they are made,
// turned into shares and multiplied back before the next block comes.
void isoflop_output_loss(const float* x, const float* weight, const int64_t* label,
                         int64_t ignored, long N, long D, long V, long S, float* loss, float* parts,
                         float* d_x, float* d_weight) {
#pragma omp parallel
    {
        std::vector<float> share(V * C), rows(C * D), columns(D * C), d_columns(D * C);
        float most[C], total[C];
#pragma omp for schedule(dynamic, 1)
        for (long s = 0; s < S; ++s) {
            float* part = d_x ? parts + s * V * D : nullptr;
            if (d_x) std::memset(part, 0, V * D * sizeof(float));
            const long last = begin_of(s + 1, S, N);
            for (long start = begin_of(s, S, N); start < last; start += C) {
                const long n = last - start < C ? last - start : C;
                std::memcpy(rows.data(), x + start * D, n * D * sizeof(float));
                std::memset(rows.data() + n * D, 0, (C - n) * D * sizeof(float));
                for (long i = 0; i < C; ++i)
                    for (long d = 0; d < D; ++d) columns[d * C + i] = rows[i * D + d];
                Vec top_low = all(-INFINITY), top_high = all(-INFINITY);
                for (long v = 0; v < V; v += M) {
                    float* to = share.data() + v * C;
                    tile<M, 2>(weight + v * D, D, 1, columns.data(), C, to, C, D, false);
                    for (long m = 0; m < M; ++m) {
                        const Vec low = load(to + m * C), high = load(to + m * C + W);
                        top_low = low > top_low ? low : top_low;
                        top_high = high > top_high ? high : top_high;
                    }
                }
                store(most, top_low);
                store(most + W, top_high);
                const int64_t* at = label + start;
                for (long i = 0; i < n; ++i)
                    loss[start + i] = at[i] == ignored ? 0.0f : most[i] - share[at[i] * C + i];
                Vec sum_low = Vec{}, sum_high = Vec{};
                for (long v = 0; v < V; ++v) {
                    float* to = share.data() + v * C;
                    const Vec low = exponential(load(to) - top_low);
                    const Vec high = exponential(load(to + W) - top_high);
                    sum_low += low;
                    sum_high += high;
                    store(to, low);
                    store(to + W, high);
                }
                store(total, sum_low);
                store(total + W, sum_high);
                for (long i = 0; i < n; ++i)
                    if (at[i] != ignored) loss[start + i] += std::log(total[i]);
                if (!d_x) continue;
                // d loss / d logits = share - one at the label, in the rows that count.
                float factor[C];
                for (long i = 0; i < C; ++i) {
                    const bool counts = i < n && at[i] != ignored;
                    if (counts) share[at[i] * C + i] -= total[i];
                    factor[i] = counts ? 1.0f / total[i] : 0.0f;
                }
                std::memset(d_columns.data(), 0, D * C * sizeof(float));
                for (long v = 0; v < V; v += WORDS) {
                    const long words = V - v < WORDS ? V - v : WORDS;
                    float* here = share.data() + v * C;
                    for (long m = 0; m < words; ++m)
                        for (long i = 0; i < C; i += W)
                            store(here + m * C + i, load(here + m * C + i) * load(factor + i));
                    for (long d = 0; d < D; d += M)
                        tile<M, 2>(weight + v * D + d, 1, D, here, C, d_columns.data() + d * C, C,
                                   words, true);
                    for (long m = 0; m < words; m += M)
                        for (long d = 0; d < D; d += C)
                            tile<M, 2>(here + m * C, C, 1, rows.data() + d, D,
                                       part + (v + m) * D + d, D, C, true);
                }
                for (long i = 0; i < n; ++i)
                    for (long d = 0; d < D; ++d) d_x[(start + i) * D + d] = d_columns[d * C + i];
            }
        }
        if (d_x) add_up(parts, S, V * D, d_weight);
    }
}
}
