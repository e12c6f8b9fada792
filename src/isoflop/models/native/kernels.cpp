// The passes of a training step that plain torch spreads over many small ones, in float32.
//
// Every function takes contiguous arrays and writes only where its last arguments point; none
// allocates what outlives it, and none keeps a state. The order of every sum is fixed by the
// shapes alone, so the results do not depend on the number of threads. Formulas stand in
// calls.py, which calls these; matrix products stay with torch, but for attention's, which are
// so small that they live in a core's cache.
//
// Letters: B batch, T time, H query heads, G key-value heads, K head width, V vocabulary,
// F feed-forward width, D model width, N rows.

#include "tiles.h"

namespace {

constexpr long QUERIES = 16;  // of one block of attention
constexpr long AHEAD = 16;    // rows fetched into the cache before their turn

// --- heads: norm and rotation ----------------------------------------------------------------

// out = rotation(x * gain / rms(x)) * factor.
inline void normed_and_turned(const float* x, const float* gain, const float* cosine,
                              const float* sine, float eps, float factor, long width, float* out) {
    const float f = inverse_root_mean_square(x, eps, width) * factor;
    const long half = width / 2;
    for (long k = 0; k < half; k += W) {
        const Vec c = load(cosine + k), s = load(sine + k);
        const Vec low = load(x + k) * load(gain + k) * f;
        const Vec high = load(x + half + k) * load(gain + half + k) * f;
        store(out + k, low * c - high * s);
        store(out + half + k, high * c + low * s);
    }
}

// The gradient of x, and that of gain added to d_gain, from that of the result.
inline void normed_and_turned_backward(const float* x, const float* gain, const float* cosine,
                                       const float* sine, float eps, float factor, long width,
                                       const float* d_out, float* d_x, float* d_gain) {
    const float scale = inverse_root_mean_square(x, eps, width);
    const long half = width / 2;
    Vec along = Vec{};
    for (long k = 0; k < half; k += W) {
        const Vec c = load(cosine + k), s = load(sine + k);
        const Vec out_low = load(d_out + k) * factor, out_high = load(d_out + half + k) * factor;
        const Vec low = out_low * c + out_high * s, high = out_high * c - out_low * s;
        const Vec unit_low = load(x + k) * scale, unit_high = load(x + half + k) * scale;
        store(d_gain + k, load(d_gain + k) + low * unit_low);
        store(d_gain + half + k, load(d_gain + half + k) + high * unit_high);
        const Vec d_low = low * load(gain + k), d_high = high * load(gain + half + k);
        store(d_x + k, d_low);
        store(d_x + half + k, d_high);
        along += d_low * unit_low + d_high * unit_high;
    }
    const float mean = sum(along) / width;
    for (long k = 0; k < width; k += W)
        store(d_x + k, (load(d_x + k) - load(x + k) * (scale * mean)) * scale);
}

// --- attention -------------------------------------------------------------------------------

struct Shape {
    long B, T, H, G, K;
    long padded;       // T in whole blocks and one more, so that columns spread over the cache
    long row() const { return (H + 2 * G) * K; }
};

// Rows (T x K, `row` apart) as columns (K x padded), a block at a time, to stay in the cache.
void columns(const Shape& s, const float* rows, long row, float* to) {
    for (long start = 0; start < s.T; start += W) {
        const long n = s.T - start < W ? s.T - start : W;
        for (long k = 0; k < s.K; ++k)
            for (long t = 0; t < n; ++t) to[k * s.padded + start + t] = rows[(start + t) * row + k];
    }
}

// Keys, normed and turned (T x K), of one row of the batch and one group.
void keys_of(const Shape& s, const float* qkv, const float* k_gain, const float* cosine,
             const float* sine, float eps, long b, long g, float* keys) {
    for (long t = 0; t < s.T; ++t) {
        const float* key = qkv + (b * s.T + t) * s.row() + (s.H + g) * s.K;
        fetch(key + AHEAD * s.row(), s.K);
        fetch(key + s.G * s.K + AHEAD * s.row(), s.K);  // the value of the same token
        normed_and_turned(key, k_gain, cosine + t * s.K / 2, sine + t * s.K / 2, eps, 1.0f, s.K,
                          keys + t * s.K);
    }
}

// Which keys a block of queries sees: from the first document's beginning, in whole registers.
struct Span {
    long low, high;
};
inline Span seen(const Shape& s, const int32_t* first, long start) {
    const long last = (start + QUERIES < s.T ? start + QUERIES : s.T) - 1;
    return {first[start] / W * W, up_to(last + 1, W)};
}

inline void hide(float* scores, long low, long high, long first, long query) {
    for (long i = low; i < first; ++i) scores[i] = -1e30f;
    for (long i = query + 1; i < high; ++i) scores[i] = -1e30f;
}

}  // namespace

extern "C" {

// 1 where these kernels were built for registers of 16 floats, for messages.
long isoflop_register_floats() { return W; }

// mixed (B, T, H*K) and log_sum (B, H, T) from qkv (B, T, (H + 2G)*K); first (B, T) is each
// token's earliest visible key.
void isoflop_attention(const float* qkv, const float* q_gain, const float* k_gain,
                       const float* cosine, const float* sine, const int32_t* first, float eps,
                       long B, long T, long H, long G, long K, float* mixed, float* log_sum) {
    const Shape s{B, T, H, G, K, up_to(T, QUERIES) + QUERIES};
    const float factor = 1.0f / std::sqrt((float)K);
#pragma omp parallel
    {
        std::vector<float> key_columns(K * s.padded), key_rows(s.padded * K);
        std::vector<float> values(s.padded * K);
        std::vector<float> queries(QUERIES * K), scores(QUERIES * s.padded), out(QUERIES * K);
#pragma omp for schedule(dynamic, 1)
        for (long job = 0; job < B * G; ++job) {
            const long b = job / G, g = job % G;
            const int32_t* from = first + b * T;
            const float* value_rows = qkv + b * T * s.row() + (H + G + g) * K;
            keys_of(s, qkv, k_gain, cosine, sine, eps, b, g, key_rows.data());
            columns(s, key_rows.data(), K, key_columns.data());
            for (long t = 0; t < T; ++t)
                std::memcpy(values.data() + t * K, value_rows + t * s.row(), K * sizeof(float));
            for (long h = g * (H / G); h < (g + 1) * (H / G); ++h)
                for (long start = 0; start < T; start += QUERIES) {
                    const long n = T - start < QUERIES ? T - start : QUERIES;
                    for (long i = 0; i < n; ++i) {
                        const float* q = qkv + (b * T + start + i) * s.row() + h * K;
                        fetch(q + AHEAD * s.row(), K);
                        normed_and_turned(q, q_gain, cosine + (start + i) * K / 2,
                                          sine + (start + i) * K / 2, eps, factor, K,
                                          queries.data() + i * K);
                    }
                    const Span keys = seen(s, from, start);
                    multiply(queries.data(), K, 1, key_columns.data() + keys.low, s.padded,
                             scores.data() + keys.low, s.padded, QUERIES, keys.high - keys.low, K,
                             false);
                    float total[QUERIES];
                    for (long i = 0; i < n; ++i) {
                        float* row = scores.data() + i * s.padded;
                        hide(row, keys.low, keys.high, from[start + i], start + i);
                        Vec top = all(-1e30f), sums = Vec{};
                        for (long j = keys.low; j < keys.high; j += W) {
                            const Vec x = load(row + j);
                            top = x > top ? x : top;
                        }
                        const float most = largest(top);
                        for (long j = keys.low; j < keys.high; j += W) {
                            const Vec p = exponential(load(row + j) - most);
                            sums += p;
                            store(row + j, p);
                        }
                        total[i] = sum(sums);
                        log_sum[(b * H + h) * T + start + i] = most + std::log(total[i]);
                    }
                    for (long i = n; i < QUERIES; ++i)
                        std::memset(scores.data() + i * s.padded + keys.low, 0,
                                    (keys.high - keys.low) * sizeof(float));
                    multiply(scores.data() + keys.low, s.padded, 1, values.data() + keys.low * K, K,
                             out.data(), K, QUERIES, K, keys.high - keys.low, false);
                    for (long i = 0; i < n; ++i) {
                        float* to = mixed + ((b * T + start + i) * H + h) * K;
                        const float f = 1.0f / total[i];
                        for (long k = 0; k < K; k += W) store(to + k, load(out.data() + i * K + k) * f);
                    }
                }
        }
    }
}

// heads (B, H, T, K) = rotation(x * gain / rms(x)) of x (B, T, H*K); the angles of T positions.
void isoflop_turned_heads(const float* x, const float* gain, const float* cosine,
                          const float* sine, float eps, long B, long T, long H, long K,
                          float* heads) {
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; ++b)
        for (long t = 0; t < T; ++t)
            for (long h = 0; h < H; ++h)
                normed_and_turned(x + ((b * T + t) * H + h) * K, gain, cosine + t * K / 2,
                                  sine + t * K / 2, eps, 1.0f, K,
                                  heads + ((b * H + h) * T + t) * K);
}

// d_qkv like qkv, and d_gain (B*G, 2, K): every job's part of the gains' gradients.
void isoflop_attention_backward(const float* d_mixed, const float* qkv, const float* mixed,
                                const float* log_sum, const float* q_gain, const float* k_gain,
                                const float* cosine, const float* sine, const int32_t* first,
                                float eps, long B, long T, long H, long G, long K, float* d_qkv,
                                float* d_gain) {
    const Shape s{B, T, H, G, K, up_to(T, QUERIES) + QUERIES};
    const float factor = 1.0f / std::sqrt((float)K);
#pragma omp parallel
    {
        std::vector<float> key_columns(K * s.padded), key_rows(s.padded * K);
        std::vector<float> value_columns(K * s.padded), d_keys(s.padded * K), d_values(s.padded * K);
        std::vector<float> queries(QUERIES * K), d_queries(QUERIES * K), d_out(QUERIES * K);
        std::vector<float> shares(QUERIES * s.padded), d_shares(QUERIES * s.padded);
#pragma omp for schedule(dynamic, 1)
        for (long job = 0; job < B * G; ++job) {
            const long b = job / G, g = job % G;
            const int32_t* from = first + b * T;
            float* d_q_gain = d_gain + job * 2 * K;
            float* d_k_gain = d_q_gain + K;
            std::memset(d_q_gain, 0, 2 * K * sizeof(float));
            std::memset(d_keys.data(), 0, d_keys.size() * sizeof(float));
            std::memset(d_values.data(), 0, d_values.size() * sizeof(float));
            const float* value_rows = qkv + b * T * s.row() + (H + G + g) * K;
            keys_of(s, qkv, k_gain, cosine, sine, eps, b, g, key_rows.data());
            columns(s, key_rows.data(), K, key_columns.data());
            columns(s, value_rows, s.row(), value_columns.data());
            for (long h = g * (H / G); h < (g + 1) * (H / G); ++h)
                for (long start = 0; start < T; start += QUERIES) {
                    const long n = T - start < QUERIES ? T - start : QUERIES;
                    float delta[QUERIES];
                    for (long i = 0; i < QUERIES; ++i) {
                        float* d = d_out.data() + i * K;
                        float* q = queries.data() + i * K;
                        if (i >= n) {
                            std::memset(d, 0, K * sizeof(float));
                            std::memset(q, 0, K * sizeof(float));
                            continue;
                        }
                        const long t = start + i, at = ((b * T + t) * H + h) * K;
                        const float* raw = qkv + (b * T + t) * s.row() + h * K;
                        fetch(raw + AHEAD * s.row(), K);
                        fetch(d_mixed + at + AHEAD * H * K, K);
                        fetch(mixed + at + AHEAD * H * K, K);
                        fetch(d_qkv + (raw - qkv), K);
                        std::memcpy(d, d_mixed + at, K * sizeof(float));
                        Vec along = Vec{};
                        for (long k = 0; k < K; k += W) along += load(d + k) * load(mixed + at + k);
                        delta[i] = sum(along);
                        normed_and_turned(raw, q_gain, cosine + t * K / 2, sine + t * K / 2, eps,
                                          factor, K, q);
                    }
                    const Span keys = seen(s, from, start);
                    const long width = keys.high - keys.low;
                    float* p0 = shares.data() + keys.low;
                    float* d0 = d_shares.data() + keys.low;
                    multiply(queries.data(), K, 1, key_columns.data() + keys.low, s.padded, p0,
                             s.padded, QUERIES, width, K, false);
                    multiply(d_out.data(), K, 1, value_columns.data() + keys.low, s.padded, d0,
                             s.padded, QUERIES, width, K, false);
                    for (long i = 0; i < QUERIES; ++i) {
                        float* p = shares.data() + i * s.padded;
                        float* d = d_shares.data() + i * s.padded;
                        if (i >= n) {
                            std::memset(p + keys.low, 0, width * sizeof(float));
                            std::memset(d + keys.low, 0, width * sizeof(float));
                            continue;
                        }
                        hide(p, keys.low, keys.high, from[start + i], start + i);
                        const float log = log_sum[(b * H + h) * T + start + i];
                        for (long j = keys.low; j < keys.high; j += W) {
                            const Vec share = exponential(load(p + j) - log);
                            store(p + j, share);
                            store(d + j, share * (load(d + j) - delta[i]));
                        }
                    }
                    multiply(d0, s.padded, 1, key_rows.data() + keys.low * K, K, d_queries.data(),
                             K, QUERIES, K, width, false);
                    // Sums over queries: rows of the result are keys.
                    multiply(d0, 1, s.padded, queries.data(), K, d_keys.data() + keys.low * K, K,
                             width, K, QUERIES, true);
                    multiply(p0, 1, s.padded, d_out.data(), K, d_values.data() + keys.low * K, K,
                             width, K, QUERIES, true);
                    for (long i = 0; i < n; ++i) {
                        const long t = start + i, at = (b * T + t) * s.row() + h * K;
                        normed_and_turned_backward(qkv + at, q_gain, cosine + t * K / 2,
                                                   sine + t * K / 2, eps, factor, K,
                                                   d_queries.data() + i * K, d_qkv + at, d_q_gain);
                    }
                }
            for (long t = 0; t < T; ++t) {
                const long at = (b * T + t) * s.row() + (H + g) * K;
                normed_and_turned_backward(qkv + at, k_gain, cosine + t * K / 2, sine + t * K / 2,
                                           eps, 1.0f, K, d_keys.data() + t * K, d_qkv + at,
                                           d_k_gain);
                std::memcpy(d_qkv + at + G * K, d_values.data() + t * K, K * sizeof(float));
            }
        }
    }
}

// unit (N, D) = x over its root mean square, scale (N) its inverse.
void isoflop_norm(const float* x, float eps, long N, long D, float* unit, float* scale) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < N; ++i) {
        const float* row = x + i * D;
        const float f = inverse_root_mean_square(row, eps, D);
        for (long d = 0; d < D; d += W) store(unit + i * D + d, load(row + d) * f);
        scale[i] = f;
    }
}

// d_x (N, D) = scale * (d_unit - unit * mean(d_unit * unit)) + d_sum, which may be absent.
void isoflop_norm_backward(const float* d_unit, const float* unit, const float* scale,
                           const float* d_sum, long N, long D, float* d_x) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < N; ++i) {
        const float *d = d_unit + i * D, *u = unit + i * D;
        const float* rest = d_sum ? d_sum + i * D : nullptr;
        Vec along = Vec{};
        for (long j = 0; j < D; j += W) along += load(d + j) * load(u + j);
        const float mean = sum(along) / D, f = scale[i];
        for (long j = 0; j < D; j += W) {
            const Vec through = (load(d + j) - load(u + j) * mean) * f;
            store(d_x + i * D + j, rest ? through + load(rest + j) : through);
        }
    }
}

// inner = silu(gate) * up, n numbers.
void isoflop_swiglu(const float* gate, const float* up, long n, float* inner) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i += W) {
        const Vec g = load(gate + i);
        store(inner + i, g * logistic(g) * load(up + i));
    }
}

// Gradients of gate and up; d_gate may lie where d_inner does.
void isoflop_swiglu_backward(const float* d_inner, const float* gate, const float* up, long n,
                             float* d_gate, float* d_up) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i += W) {
        const Vec g = load(gate + i), d = load(d_inner + i), share = logistic(g);
        store(d_up + i, d * g * share);
        store(d_gate + i, d * load(up + i) * share * (g * (1.0f - share) + 1.0f));
    }
}

// Logits (N, V) become softmax - one at the label, or zeros where the label is `ignored`;
// loss (N) = -log softmax at the label.
void isoflop_cross_entropy(float* logits, const int64_t* label, int64_t ignored, long N, long V,
                           float* loss) {
    const long whole = V / W * W;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < N; ++i) {
        float* row = logits + i * V;
        if (label[i] == ignored) {
            std::memset(row, 0, V * sizeof(float));
            loss[i] = 0;
            continue;
        }
        const float at = row[label[i]];
        Vec top = all(row[0]);
        for (long j = 0; j < whole; j += W) {
            const Vec x = load(row + j);
            top = x > top ? x : top;
        }
        float most = largest(top);
        for (long j = whole; j < V; ++j) most = row[j] > most ? row[j] : most;
        Vec sums = Vec{};
        for (long j = 0; j < whole; j += W) {
            const Vec p = exponential(load(row + j) - most);
            sums += p;
            store(row + j, p);
        }
        float total = sum(sums);
        for (long j = whole; j < V; ++j) total += row[j] = std::exp(row[j] - most);
        const float f = 1.0f / total;
        for (long j = 0; j < whole; j += W) store(row + j, load(row + j) * f);
        for (long j = whole; j < V; ++j) row[j] *= f;
        row[label[i]] -= 1.0f;
        loss[i] = most + std::log(total) - at;
    }
}
}
