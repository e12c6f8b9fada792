// One step of a decoder of Llama's and Qwen3's form for tokens of many sequences at once: keys and
// values in blocks of memory, weights in 32, 8 or 4 bits.
//
// A token's states depend on its own sequence alone, to the bit: products are those of products.h,
// norms and attention are computed row by row, and no sum is parted between threads. Whoever calls
// sees to it that the tokens before each one are in memory or in the same step. Structures are laid
// out as in decode.py.
//
// Letters: N rows (tokens), D model width, H query heads, G key-value heads, K head width, F
// feed-forward width, V vocabulary.

#include <vector>

#include "products.h"

namespace {

constexpr long LANES = 4;  // registers of sums at once in attention's mix of values

struct Layer {
    Matrix q, k, v, o, gate, up, down;
    const float *before, *after;   // gains (D) of the norms
    const float *q_gain, *k_gain;  // (K), or null
    float* memory;  // (blocks, G, keys (K, block) and values (block, K in whole registers))
};

struct Decoder {
    long D, n_layers, H, G, K, F, block, positions;
    float eps;
    const float *cosine, *sine;  // (K/2, positions)
    const float* norm;
    Matrix embedding, head;
    const Layer* layers;
};

// What a step works in; rows of each part are whole registers, zero after the last column.
struct Room {
    long stream, heads, inner;  // floats of a row of each
    float *x, *h, *q, *k, *v, *mixed, *gate, *up, *turn;
};

long lay_out(const Decoder& d, long N, float* at, Room& room) {
    room.stream = up_to(d.D, W);
    room.heads = up_to(d.H * d.K, W);
    room.inner = up_to(d.F, 2 * SIDE > W ? 2 * SIDE : W);
    long used = 0;
    const auto take = [&](float*& part, long row) {
        part = at ? at + used : nullptr;
        used += N * row;
    };
    take(room.x, room.stream);
    take(room.h, room.stream);
    take(room.q, room.heads);
    take(room.k, room.heads);
    take(room.v, room.heads);
    take(room.mixed, room.heads);
    take(room.gate, room.inner);
    take(room.up, room.inner);
    take(room.turn, up_to(d.K, W));
    return used;
}

struct Batch {
    long N;
    const int32_t *ids, *positions;
    const int32_t *blocks, *first;  // of row i: blocks[first[i]], blocks[first[i] + 1], ...
};

// --- norms ---------------------------------------------------------------------------------

inline void norm_row(const float* x, const float* gain, float eps, long width, float* out) {
    Vec squares = Vec{};
    for (long d = 0; d < width; d += W) {
        const Vec v = load(x + d);
        squares += v * v;
    }
    const float f = 1.0f / std::sqrt(sum(squares) / width + eps);
    const long whole = width / W * W;
    for (long d = 0; d < whole; d += W) store(out + d, load(x + d) * f * load(gain + d));
    if (whole < width)
        store(out + whole, load(x + whole) * f * load_part(gain + whole, width - whole));
}

void norms(const float* x, const float* gain, const Decoder& d, long N, long row, float* out) {
#pragma omp for schedule(static)
    for (long i = 0; i < N; ++i) norm_row(x + i * row, gain, d.eps, d.D, out + i * row);
}

// --- products of the whole batch -----------------------------------------------------------

void products(const Target* targets, long n_targets, const float* x, long row, long N,
              float* buffer) {
    long jobs = 0;
    for (long t = 0; t < n_targets; ++t) jobs += up_to(targets[t].matrix->rows, SIDE) / SIDE;
#pragma omp for schedule(static)
    for (long job = 0; job < jobs; ++job) {
        const Target* to = targets;
        long place = job * SIDE;
        while (place >= up_to(to->matrix->rows, SIDE)) {
            place -= up_to(to->matrix->rows, SIDE);
            ++to;
        }
        const long left = to->matrix->rows - place;
        product(*to, x, row, N, place, left < SIDE ? left : SIDE, buffer);
    }
}

// gate = silu(gate) * up
void gated(const Layer& layer, const Room& room, long N, float* buffer) {
    const Target gate{&layer.gate, room.gate, room.inner, false};
    const Target up{&layer.up, room.up, room.inner, false};
    const long F = layer.gate.rows, width = room.inner < 2 * SIDE ? room.inner : 2 * SIDE;
#pragma omp for schedule(static)
    for (long from = 0; from < F; from += width) {
        for (const Target* to : {&gate, &up})
            for (long at = from; at < from + width && at < F; at += SIDE)
                product(*to, room.h, room.stream, N, at, F - at < SIDE ? F - at : SIDE, buffer);
        for (long i = 0; i < N; ++i)
            for (long at = from; at < from + width; at += W) {
                float* p = room.gate + i * room.inner + at;
                const Vec g = load(p);
                const Vec to = g > 0.0f ? g : -g;  // e^x stays below 1
                const Vec e = exponential(-to);
                const Vec share = (g > 0.0f ? all(1.0f) : e) / (e + 1.0f);
                store(p, g * share * load(room.up + i * room.inner + at));
            }
    }
}

// --- attention -----------------------------------------------------------------------------

// out = rotation(x * gain / rms(x)) * factor, gain or not.
inline void turned(const float* x, const float* gain, const float* turn, const Decoder& d,
                   float factor, float* out) {
    const long P = d.K / 2;
    float f = 1.0f;
    if (gain) {
        float squares = 0;
        for (long k = 0; k < d.K; ++k) squares += x[k] * x[k];
        f = 1.0f / std::sqrt(squares / d.K + d.eps);
    }
    for (long p = 0; p < P; ++p) {
        const float low = gain ? x[p] * f * gain[p] : x[p];
        const float high = gain ? x[P + p] * f * gain[P + p] : x[P + p];
        out[p] = (low * turn[p] - high * turn[P + p]) * factor;
        out[P + p] = (high * turn[p] + low * turn[P + p]) * factor;
    }
}

inline float* place_of(const Decoder& d, const Layer& layer, long block, long g) {
    const long one = d.block * (d.K + up_to(d.K, W));
    return layer.memory + (block * d.G + g) * one;
}

// Queries turned where they are; keys turned and, with the values, put into memory.
void remember(const Decoder& d, const Layer& layer, const Room& room, const Batch& batch) {
    const long heads = d.H + d.G;
    const float factor = 1.0f / std::sqrt((float)d.K);
#pragma omp for schedule(static)
    for (long job = 0; job < batch.N * heads; ++job) {
        const long i = job / heads, h = job % heads;
        const float* turn = room.turn + i * up_to(d.K, W);
        if (h < d.H) {
            float* q = room.q + i * room.heads + h * d.K;
            turned(q, layer.q_gain, turn, d, factor, q);
            continue;
        }
        const long g = h - d.H, position = batch.positions[i];
        float* key = room.k + i * room.heads + g * d.K;
        const float* value = room.v + i * room.heads + g * d.K;
        turned(key, layer.k_gain, turn, d, 1.0f, key);
        const long block = batch.blocks[batch.first[i] + position / d.block];
        float* to = place_of(d, layer, block, g);
        const long within = position % d.block;
        for (long k = 0; k < d.K; ++k) to[k * d.block + within] = key[k];
        to += d.K * d.block + within * up_to(d.K, W);
        for (long k = 0; k < up_to(d.K, W); ++k) to[k] = k < d.K ? value[k] : 0.0f;
    }
}

// Scores of one query with the keys of one block.
inline void scores_of(const float* q, const float* keys, const Decoder& d, float* out) {
    for (long s = 0; s < d.block; s += 2 * W) {
        Vec even[2] = {}, odd[2] = {};
        for (long k = 0; k + 1 < d.K; k += 2) {
            const float* at = keys + k * d.block + s;
            const Vec a = all(q[k]), b = all(q[k + 1]);
            even[0] += a * load(at);
            even[1] += a * load(at + W);
            odd[0] += b * load(at + d.block);
            odd[1] += b * load(at + d.block + W);
        }
        store(out + s, even[0] + odd[0]);
        store(out + s + W, even[1] + odd[1]);
    }
}

// Mixed values of C registers from column `c` on, over n positions of the row's blocks.
template <long C>
inline void mix(const Decoder& d, const Layer& layer, const int32_t* blocks, long g, long n,
                const float* share, long c, float factor, float* out) {
    const long row = up_to(d.K, W);
    Vec even[C] = {}, odd[C] = {};
    for (long start = 0; start < n; start += d.block) {
        const float* values = place_of(d, layer, blocks[start / d.block], g) + d.K * d.block + c;
        const long end = n - start < d.block ? n - start : d.block;
        long s = 0;
        for (; s + 1 < end; s += 2) {
            const Vec a = all(share[start + s]), b = all(share[start + s + 1]);
            for (long i = 0; i < C; ++i) {
                even[i] += a * load(values + s * row + i * W);
                odd[i] += b * load(values + (s + 1) * row + i * W);
            }
        }
        if (s < end)
            for (long i = 0; i < C; ++i)
                even[i] += all(share[start + s]) * load(values + s * row + i * W);
    }
    for (long i = 0; i < C; ++i) store(out + i * W, (even[i] + odd[i]) * factor);
}

// Mixed values of one head of row i; scores and out are the thread's own.
inline void attend(const Decoder& d, const Layer& layer, const float* q, const int32_t* blocks,
                   long g, long n, float* scores, float* out) {
    const long all_keys = up_to(n, d.block);
    for (long start = 0; start < all_keys; start += d.block)
        scores_of(q, place_of(d, layer, blocks[start / d.block], g), d, scores + start);
    for (long s = n; s < all_keys; ++s) scores[s] = -1e30f;
    Vec top = all(-1e30f), sums = Vec{};
    for (long s = 0; s < all_keys; s += W) {
        const Vec x = load(scores + s);
        top = x > top ? x : top;
    }
    const float most = largest(top);
    for (long s = 0; s < all_keys; s += W) {
        const Vec p = exponential(load(scores + s) - most);
        sums += p;
        store(scores + s, p);
    }
    const float factor = 1.0f / sum(sums);
    const long width = up_to(d.K, W);
    long c = 0;
    for (; c + LANES * W <= width; c += LANES * W)
        mix<LANES>(d, layer, blocks, g, n, scores, c, factor, out + c);
    for (; c < width; c += W) mix<1>(d, layer, blocks, g, n, scores, c, factor, out + c);
}

void attention(const Decoder& d, const Layer& layer, const Room& room, const Batch& batch,
               float* scores) {
    float* out = scores + up_to(d.positions, d.block);
    // Rows one after the other: threads share what is computed for the longest.
#pragma omp for schedule(dynamic, 1)
    for (long job = 0; job < batch.N * d.H; ++job) {
        const long i = job / d.H, h = job % d.H;
        attend(d, layer, room.q + i * room.heads + h * d.K, batch.blocks + batch.first[i],
               h / (d.H / d.G), batch.positions[i] + 1, scores, out);
        std::memcpy(room.mixed + i * room.heads + h * d.K, out, d.K * sizeof(float));
    }
}

// --- the step ------------------------------------------------------------------------------

void embed(const Decoder& d, const Room& room, const Batch& batch) {
    const Matrix& m = d.embedding;
    const long P = d.K / 2;
#pragma omp for schedule(static)
    for (long i = 0; i < batch.N; ++i) {
        float* x = room.x + i * room.stream;
        if (m.bits == 32) {
            std::memcpy(x, (const float*)m.codes + batch.ids[i] * d.D, d.D * sizeof(float));
        } else {
            const int8_t* codes = (const int8_t*)m.codes + batch.ids[i] * d.D;
            const float scale = ((const float*)m.scale)[batch.ids[i]];
            for (long k = 0; k < d.D; ++k) x[k] = codes[k] * scale;
        }
        float* turn = room.turn + i * up_to(d.K, W);
        for (long p = 0; p < P; ++p) {
            turn[p] = d.cosine[p * d.positions + batch.positions[i]];
            turn[P + p] = d.sine[p * d.positions + batch.positions[i]];
        }
    }
}

void layer_of(const Decoder& d, const Layer& layer, const Room& room, const Batch& batch,
              float* buffer, float* scores) {
    const long N = batch.N;
    norms(room.x, layer.before, d, N, room.stream, room.h);
    const Target qkv[] = {{&layer.q, room.q, room.heads, false},
                          {&layer.k, room.k, room.heads, false},
                          {&layer.v, room.v, room.heads, false}};
    products(qkv, 3, room.h, room.stream, N, buffer);
    remember(d, layer, room, batch);
    attention(d, layer, room, batch, scores);
    const Target out{&layer.o, room.x, room.stream, true};
    products(&out, 1, room.mixed, room.heads, N, buffer);
    norms(room.x, layer.after, d, N, room.stream, room.h);
    gated(layer, room, N, buffer);
    const Target down{&layer.down, room.x, room.stream, true};
    products(&down, 1, room.gate, room.inner, N, buffer);
}

long widest(const Decoder& d) {
    long most = d.D;
    for (const long width : {d.F, d.H * d.K})
        if (width > most) most = width;
    return up_to(most, W);
}

}  // namespace

extern "C" {

// Floats that a step of N rows works in; they must be zero the first time.
long isoflop_decode_room(const Decoder* decoder, long N) {
    Room room;
    return lay_out(*decoder, N, nullptr, room);
}

// Final normalised states (N, D) of N tokens, whose keys and values are put into memory. `work`
// has room for `most` rows.
void isoflop_decode(const Decoder* decoder, long N, const int32_t* ids, const int32_t* positions,
                    const int32_t* blocks, const int32_t* first, long most, float* work,
                    long threads, float* states) {
    const Decoder& d = *decoder;
    const Batch batch{N, ids, positions, blocks, first};
    Room room;
    lay_out(d, most, work, room);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> buffer(product_room(widest(d)));
        std::vector<float> scores(up_to(d.positions, d.block) + up_to(d.K, W));
        embed(d, room, batch);
        for (long i = 0; i < d.n_layers; ++i)
            layer_of(d, d.layers[i], room, batch, buffer.data(), scores.data());
        norms(room.x, d.norm, d, N, room.stream, room.h);
#pragma omp for schedule(static)
        for (long i = 0; i < N; ++i)
            std::memcpy(states + i * d.D, room.h + i * room.stream, d.D * sizeof(float));
    }
}

// Logits (N, V) of N final states (N, D).
void isoflop_decode_logits(const Decoder* decoder, const float* states, long N, long threads,
                           float* logits) {
    const Decoder& d = *decoder;
    const long row = up_to(d.D, W);
    std::vector<float> padded(N * row);
    for (long i = 0; i < N; ++i)
        std::memcpy(padded.data() + i * row, states + i * d.D, d.D * sizeof(float));
    const Target to{&d.head, logits, d.head.rows, false};
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> buffer(product_room(row));
        products(&to, 1, padded.data(), row, N, buffer.data());
    }
}
}
