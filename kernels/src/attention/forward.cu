// The forward pass of attention: softmax on the way, in tiles of 64 queries.
//
//     a[t, h, u] = softmax over u <= t of scale * q[t, h] . k[u, h]
//     y[t, h] = sum_u a[t, h, u] * v[u, h]
//
// Dao, arXiv:2307.08691, section 3.1. A warp has 16 queries; a row's scores never leave it. What is
// kept is the log-sum-exp of each (token, head), and its largest score, of which
// `largest_of_columns` makes QK-Clip's.
//
// Launch: 128 threads; a block for each tile of queries (x), head (y) and sequence (z); shared
// memory for 64 queries, a tile of keys, one of values, and 64 rows of shares.

// What a thread knows of the softmax of its two rows, eight apart.
struct Softmax {
    float largest[2], sum[2];
};

// Makes shares of scores, rounded into `shares`, and scales `y` down to the new largest scores.
DEVICE void take_scores(float (&s)[OTHER / 8][4], float scale, u64 first_key, u64 query,
                        Softmax& rows, float (&y)[VALUE_DEPTH / 8][4], Number* shares) {
    u32 lane = lane_of_warp();
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        float largest = rows.largest[half];
#pragma unroll
        for (u32 tile = 0; tile < OTHER / 8; ++tile) {
#pragma unroll
            for (u32 i = 2 * half; i < 2 * half + 2; ++i) {
                u64 key = first_key + 8 * tile + lane % 4 * 2 + i % 2;
                s[tile][i] = key <= query + 8 * half ? s[tile][i] * scale : -infinity();
                largest = s[tile][i] > largest ? s[tile][i] : largest;
            }
        }
        largest = largest_of_lanes(largest, 4);
        float keep = exponential_of_score(rows.largest[half] - largest), sum = 0.0f;
        Number* row = shares + (lane / 4 + 8 * half) * SCORE_STRIDE + lane % 4 * 2;
#pragma unroll
        for (u32 tile = 0; tile < OTHER / 8; ++tile) {
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                float share = exponential_of_score(s[tile][2 * half + i] - largest);
                sum += share;
                row[8 * tile + i] = nearest<Number>(share);
            }
        }
#pragma unroll
        for (u32 tile = 0; tile < VALUE_DEPTH / 8; ++tile) {
            y[tile][2 * half] *= keep;
            y[tile][2 * half + 1] *= keep;
        }
        rows.sum[half] = rows.sum[half] * keep + sum;
        rows.largest[half] = largest;
    }
    __syncwarp();
}

// Writes a thread's part of the output and the statistics of its rows.
DEVICE void put_rows(const Softmax& rows, const float (&y)[VALUE_DEPTH / 8][4], u64 start,
                     u64 query, u64 sequence, u64 heads, u64 head, Number* out, float* log_sums,
                     float* largest) {
    u32 lane = lane_of_warp();
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        float sum = sum_of_lanes(rows.sum[half], 4);
        u64 at = (start + query + 8 * half) * heads + head;
        if (query + 8 * half >= sequence) continue;
        float inverse = 1.0f / sum;
        if (lane % 4 == 0) {
            log_sums[at] = rows.largest[half] + logf(sum);
            largest[at] = rows.largest[half];
        }
#pragma unroll
        for (u32 tile = 0; tile < VALUE_DEPTH / 8; ++tile) {
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                u32 c = 8 * tile + lane % 4 * 2 + i;
                float value = y[tile][2 * half + i] * inverse;
                if (c < VALUE) out[at * VALUE + c] = nearest<Number>(value);
            }
        }
    }
}

KERNEL(128, attention_forward, const Number* q, const Number* kv, const Number* k_rope,
       const float2* turns, u64 sequence, u64 heads, float scale, Number* y, float* log_sums,
       float* largest) {
    SHARED_BYTES(shared);
    Number *queries = (Number*)shared, *keys = queries + OWN * KEY_STRIDE;
    Number *values = keys + OTHER * KEY_STRIDE, *shares = values + OTHER * VALUE_STRIDE;
    // Later tiles have more keys, so they begin first.
    u64 first = (u64)(gridDim.x - 1 - blockIdx.x) * OWN, head = blockIdx.y;
    u64 start = blockIdx.z * sequence;
    Head x = head_of(q, q, kv, k_rope, turns, sequence, heads, head, start);
    clear_padding<OWN, KEY, KEY_DEPTH, KEY_STRIDE>(queries);
    clear_padding<OTHER, KEY, KEY_DEPTH, KEY_STRIDE>(keys);
    clear_padding<OTHER, VALUE, VALUE_DEPTH, VALUE_STRIDE>(values);
    load_and_turn_queries<OWN>(x, first, queries);

    u32 own = threadIdx.x / WARP * 16;
    u64 query = first + own + lane_of_warp() / 4;
    u64 end = first + OWN < sequence ? first + OWN : sequence;
    Softmax rows = {{-infinity(), -infinity()}, {0.0f, 0.0f}};
    float sum[VALUE_DEPTH / 8][4] = {};
    shares += own * SCORE_STRIDE;
    for (u64 key = 0; key < end; key += OTHER) {
        load_keys<OTHER>(x, key, keys);
        load_values<OTHER>(x, key, values);
        __syncthreads();
        float s[OTHER / 8][4] = {};
        multiply<KEY_DEPTH, OTHER / 8, true>(queries + own * KEY_STRIDE, KEY_STRIDE, keys,
                                             KEY_STRIDE, s);
        take_scores(s, scale, key, query, rows, sum, shares);
        multiply<OTHER, VALUE_DEPTH / 8, false>(shares, SCORE_STRIDE, values, VALUE_STRIDE, sum);
        __syncthreads();
    }
    put_rows(rows, sum, start, query, sequence, heads, head, y, log_sums, largest);
}
