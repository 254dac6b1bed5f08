// The gradient of attention: every tile of probabilities is made again from its log-sum-exps.
//
//     p = exp(scale q k^T - log_sum)      dp = dy v^T        along = sum_u p dp
//     ds = p (dp - along)                 dv = p^T dy
//     dq = scale ds k                     dk = scale ds^T q
//
// Two passes without atomics: a block of `queries` has 64 queries and goes through their keys; a
// block of `keys` has 64 keys and goes through their queries. A block has eight warps: four times
// 16 rows, and of each product half of the columns.
//
// `along` is also the sum of dy y over columns (rows.cuh). Where y was not kept, a sweep of its own
// sums it from p and dp as on the CPU.
//
// Launch of all three: 256 threads; a block for each tile of rows (x), head (y) and sequence (z);
// shared memory for what `Shared` points to.

// Columns of scores, of keys and of values that a warp works on, in eights.
const u32 SCORE_TILES = OTHER / 16;
const u32 KEY_TILES = KEY_DEPTH / 16;
const u32 VALUE_TILES = VALUE_DEPTH / 16;

struct Shared {
    Number *own_keys, *own_values, *keys, *values, *p, *ds;
    float *first, *second;
};

DEVICE Shared parts_of(u8* shared) {
    Shared at;
    at.own_keys = (Number*)shared;
    at.own_values = at.own_keys + OWN * KEY_STRIDE;
    at.keys = at.own_values + OWN * VALUE_STRIDE;
    at.values = at.keys + OTHER * KEY_STRIDE;
    at.p = at.values + OTHER * VALUE_STRIDE;
    at.ds = at.p + OWN * SCORE_STRIDE;
    at.first = (float*)(at.ds + OWN * SCORE_STRIDE);
    at.second = at.first + OWN;
    return at;
}

DEVICE void clear_paddings(const Shared& at) {
    clear_padding<OWN, KEY, KEY_DEPTH, KEY_STRIDE>(at.own_keys);
    clear_padding<OTHER, KEY, KEY_DEPTH, KEY_STRIDE>(at.keys);
    clear_padding<OWN, VALUE, VALUE_DEPTH, VALUE_STRIDE>(at.own_values);
    clear_padding<OTHER, VALUE, VALUE_DEPTH, VALUE_STRIDE>(at.values);
}

// Which rows and which half of the columns a warp has.
DEVICE u32 own_row() {
    return threadIdx.x / WARP % 4 * 16;
}

DEVICE u32 own_half() {
    return threadIdx.x / WARP / 4;
}

// Products of the block's own rows with those of the other tile: scores, and dp.
DEVICE void multiply_rows(const Shared& at, float (&s)[SCORE_TILES][4],
                          float (&dp)[SCORE_TILES][4]) {
    u32 row = own_row(), column = own_half() * (OTHER / 2);
    multiply<KEY_DEPTH, SCORE_TILES, true>(at.own_keys + row * KEY_STRIDE, KEY_STRIDE,
                                           at.keys + column * KEY_STRIDE, KEY_STRIDE, s);
    multiply<VALUE_DEPTH, SCORE_TILES, true>(at.own_values + row * VALUE_STRIDE, VALUE_STRIDE,
                                             at.values + column * VALUE_STRIDE, VALUE_STRIDE, dp);
}

// Row within the own tile, and column within the other, of element i of a thread's tile.
DEVICE u32 row_of(u32 i) {
    return own_row() + lane_of_warp() / 4 + i / 2 * 8;
}

DEVICE u32 column_of(u32 tile, u32 i) {
    return own_half() * (OTHER / 2) + 8 * tile + lane_of_warp() % 4 * 2 + i % 2;
}

// The probability of a pair, zero for one that is not causal or not there.
DEVICE float share_of(float s, float scale, u64 key, u64 query, u64 sequence, float log_sum) {
    bool is_seen = key <= query && query < sequence;
    return is_seen ? exponential_of_score(s * scale - log_sum) : 0.0f;
}

// A block's tiles of queries and dy, which stay, and their log-sum-exps.
DEVICE void load_own_queries(const Head& x, const Shared& at, const Number* dy,
                             const float* log_sums, u64 heads, u64 first) {
    clear_paddings(at);
    load_queries<OWN>(x, first, at.own_keys);
    load_rows<OWN, VALUE, VALUE_STRIDE>(dy, heads * VALUE, first, x.sequence, at.own_values);
    for (u32 row = threadIdx.x; row < OWN; row += blockDim.x) {
        at.first[row] = first + row < x.sequence ? log_sums[(first + row) * heads] : 0.0f;
    }
}

// Writes along [t, h], summed over the keys.
KERNEL(256, attention_sum_along, const Number* q, const Number* kv, const Number* k_rope,
       const float2* turns, u64 sequence, u64 heads, float scale, const float* log_sums,
       const Number* dy, const Number* q_turned, float* along) {
    SHARED_BYTES(shared);
    Shared at = parts_of(shared);
    u64 first = (u64)(gridDim.x - 1 - blockIdx.x) * OWN, head = blockIdx.y;
    u64 start = blockIdx.z * sequence, end = first + OWN < sequence ? first + OWN : sequence;
    Head x = head_of(q, q_turned, kv, k_rope, turns, sequence, heads, head, start);
    u64 own = start * heads + head;
    load_own_queries(x, at, dy + own * VALUE, log_sums + own, heads, first);
    float sum[2] = {};
    for (u64 key = 0; key < end; key += OTHER) {
        load_keys<OTHER>(x, key, at.keys);
        load_values<OTHER>(x, key, at.values);
        __syncthreads();
        float s[SCORE_TILES][4] = {}, dp[SCORE_TILES][4] = {};
        multiply_rows(at, s, dp);
#pragma unroll
        for (u32 tile = 0; tile < SCORE_TILES; ++tile) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                u32 row = row_of(i);
                float p = share_of(s[tile][i], scale, key + column_of(tile, i), first + row,
                                   x.sequence, at.first[row]);
                sum[i / 2] = fmaf(p, dp[tile][i], sum[i / 2]);
            }
        }
        __syncthreads();
    }
    sum[0] = sum_of_lanes(sum[0], 4), sum[1] = sum_of_lanes(sum[1], 4);
    bool is_writer = lane_of_warp() % 4 == 0;
    for (u32 half = 0; half < 2; ++half) {
        // The second half of the columns is added to the first, in that order.
        for (u32 i = 0; i < 2 && is_writer && own_half() == half; ++i) {
            at.second[row_of(2 * i)] = half == 0 ? sum[i] : at.second[row_of(2 * i)] + sum[i];
        }
        __syncthreads();
    }
    for (u32 row = threadIdx.x; row < OWN && first + row < sequence; row += blockDim.x) {
        along[own + (first + row) * heads] = at.second[row];
    }
}

// Writes dq of a thread's rows and columns, turned back.
DEVICE void put_queries(const float (&dq)[KEY_TILES][4], const Head& x, float scale, u64 first,
                        Number* out) {
#pragma unroll
    for (u32 tile = 0; tile < KEY_TILES; ++tile) {
        u32 c = own_half() * (KEY_DEPTH / 2) + 8 * tile + lane_of_warp() % 4 * 2;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            u64 query = first + row_of(2 * half);
            if (query >= x.sequence || c >= KEY) continue;
            float a = dq[tile][2 * half] * scale, b = dq[tile][2 * half + 1] * scale;
            float2 turn = make_float2(1.0f, 0.0f);
            if (c >= NOPE) turn = x.turns[query * (ROPE / 2) + (c - NOPE) / 2];
            out[query * x.q_apart + c] = nearest<Number>(a * turn.x + b * turn.y);
            out[query * x.q_apart + c + 1] = nearest<Number>(b * turn.x - a * turn.y);
        }
    }
}

// Writes dq [t, h, nope+rope], whose rotary part is that of q, turned, until then.
KERNEL(256, attention_backward_queries, const Number* q, const Number* kv, const Number* k_rope,
       const float2* turns, u64 sequence, u64 heads, float scale, const float* log_sums,
       const float* along, const Number* dy, Number* dq) {
    SHARED_BYTES(shared);
    Shared at = parts_of(shared);
    u64 first = (u64)(gridDim.x - 1 - blockIdx.x) * OWN, head = blockIdx.y;
    u64 start = blockIdx.z * sequence, end = first + OWN < sequence ? first + OWN : sequence;
    Head x = head_of(q, dq, kv, k_rope, turns, sequence, heads, head, start);
    u64 own = start * heads + head;
    load_own_queries(x, at, dy + own * VALUE, log_sums + own, heads, first);
    for (u32 row = threadIdx.x; row < OWN; row += blockDim.x) {
        at.second[row] = first + row < sequence ? along[own + (first + row) * heads] : 0.0f;
    }
    float sum[KEY_TILES][4] = {};
    for (u64 key = 0; key < end; key += OTHER) {
        load_keys<OTHER>(x, key, at.keys);
        load_values<OTHER>(x, key, at.values);
        __syncthreads();
        float s[SCORE_TILES][4] = {}, dp[SCORE_TILES][4] = {};
        multiply_rows(at, s, dp);
#pragma unroll
        for (u32 tile = 0; tile < SCORE_TILES; ++tile) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                u32 row = row_of(i), column = column_of(tile, i);
                float p = share_of(s[tile][i], scale, key + column, first + row, sequence,
                                   at.first[row]);
                float ds = p * (dp[tile][i] - at.second[row]);
                at.ds[row * SCORE_STRIDE + column] = nearest<Number>(ds);
            }
        }
        __syncthreads();
        multiply<OTHER, KEY_TILES, false>(at.ds + own_row() * SCORE_STRIDE, SCORE_STRIDE,
                                          at.keys + own_half() * (KEY_DEPTH / 2), KEY_STRIDE, sum);
        __syncthreads();
    }
    put_queries(sum, x, scale, first, dq + (start * heads + head) * KEY);
}

// Writes dk and dv of a thread's rows and columns; the rotary part still turned, in F32.
DEVICE void put_keys(const float (&dk)[KEY_TILES][4], const float (&dv)[VALUE_TILES][4],
                     const Head& x, u64 heads, float scale, u64 first, Number* dkv,
                     float* dk_rope) {
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        u64 key = first + row_of(i);
        if (key >= x.sequence) continue;
#pragma unroll
        for (u32 tile = 0; tile < KEY_TILES; ++tile) {
            u32 c = own_half() * (KEY_DEPTH / 2) + 8 * tile + lane_of_warp() % 4 * 2 + i % 2;
            float value = dk[tile][i] * scale;
            if (c < NOPE) dkv[key * x.kv_apart + c] = nearest<Number>(value);
            if (c >= NOPE && c < KEY) dk_rope[key * heads * ROPE + c - NOPE] = value;
        }
#pragma unroll
        for (u32 tile = 0; tile < VALUE_TILES; ++tile) {
            u32 c = own_half() * (VALUE_DEPTH / 2) + 8 * tile + lane_of_warp() % 4 * 2 + i % 2;
            if (c < VALUE) dkv[key * x.kv_apart + NOPE + c] = nearest<Number>(dv[tile][i]);
        }
    }
}

// Writes dkv [t, h, nope+value], and dk_rope [t, h, rope] in F32, still turned, a head each.
KERNEL(256, attention_backward_keys, const Number* q, const Number* kv, const Number* k_rope,
       const float2* turns, u64 sequence, u64 heads, float scale, const float* log_sums,
       const float* along, const Number* dy, const Number* q_turned, Number* dkv,
       float* dk_rope) {
    SHARED_BYTES(shared);
    Shared at = parts_of(shared);
    u64 first = (u64)blockIdx.x * OWN, head = blockIdx.y, start = blockIdx.z * sequence;
    Head x = head_of(q, q_turned, kv, k_rope, turns, sequence, heads, head, start);
    dy += (start * heads + head) * VALUE;
    clear_paddings(at);
    load_keys<OWN>(x, first, at.own_keys);
    load_values<OWN>(x, first, at.own_values);
    float dk[KEY_TILES][4] = {}, dv[VALUE_TILES][4] = {};
    for (u64 query = first; query < sequence; query += OTHER) {
        load_queries<OTHER>(x, query, at.keys);
        load_rows<OTHER, VALUE, VALUE_STRIDE>(dy, heads * VALUE, query, sequence, at.values);
        for (u32 column = threadIdx.x; column < OTHER; column += blockDim.x) {
            bool is_there = query + column < sequence;
            u64 from = (start + query + column) * heads + head;
            at.first[column] = is_there ? log_sums[from] : 0.0f;
            at.second[column] = is_there ? along[from] : 0.0f;
        }
        __syncthreads();
        float s[SCORE_TILES][4] = {}, dp[SCORE_TILES][4] = {};
        multiply_rows(at, s, dp);
#pragma unroll
        for (u32 tile = 0; tile < SCORE_TILES; ++tile) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                u32 row = row_of(i), column = column_of(tile, i);
                float p = share_of(s[tile][i], scale, first + row, query + column, sequence,
                                   at.first[column]);
                float ds = p * (dp[tile][i] - at.second[column]);
                at.p[row * SCORE_STRIDE + column] = nearest<Number>(p);
                at.ds[row * SCORE_STRIDE + column] = nearest<Number>(ds);
            }
        }
        __syncthreads();
        multiply<OTHER, VALUE_TILES, false>(at.p + own_row() * SCORE_STRIDE, SCORE_STRIDE,
                                            at.values + own_half() * (VALUE_DEPTH / 2),
                                            VALUE_STRIDE, dv);
        multiply<OTHER, KEY_TILES, false>(at.ds + own_row() * SCORE_STRIDE, SCORE_STRIDE,
                                          at.keys + own_half() * (KEY_DEPTH / 2), KEY_STRIDE, dk);
        __syncthreads();
    }
    put_keys(dk, dv, x, heads, scale, first, dkv + start * x.kv_apart + head * (NOPE + VALUE),
             dk_rope + (start * heads + head) * ROPE);
}
