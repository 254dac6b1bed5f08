// The gradient of attention by products of warpgroups; formulas and passes in backward.cu.
//
// A block has 128 rows of its own, 64 of each warpgroup, and goes through the others in tiles of
// 64. Products are such that its own rows are those of scores, which stay in registers: p and ds
// are the left factors of dq, and turned, with keys for rows, those of dv and dk.
//
// Launch of all three: 256 threads; a block for each tile of rows (x), head (y) and sequence (z);
// shared memory for the own tile of keys and values, or of queries and dy, and for three tiles of
// the others.

const u32 OTHER = 64;
const u32 OWN_KEYS = size_of_tile(OWN, KEY_DEPTH);
const u32 OWN_VALUES = size_of_tile(OWN, VALUE_DEPTH);
const u32 KEYS = size_of_tile(OTHER, KEY_DEPTH);
const u32 STAGE = KEYS + size_of_tile(OTHER, VALUE_DEPTH);

typedef float Scores[OTHER / 8][4];
typedef u32 Shares[OTHER / 16][4];
typedef float KeySums[KEY_DEPTH / 8][4];
typedef float ValueSums[VALUE_DEPTH / 8][4];

// Where a block's tiles are: its own, and a stage of the others.
struct Shared {
    Number *own_keys, *own_values, *stages;
};

DEVICE Shared parts_of(u8* shared) {
    Shared at;
    at.own_keys = (Number*)shared;
    at.own_values = at.own_keys + OWN_KEYS;
    at.stages = at.own_values + OWN_VALUES;
    return at;
}

// Begins the products of the own rows with those of a stage, a group each: scores, and dp.
DEVICE void multiply_rows(const Shared& at, const Number* stage, Scores& s, Scores& dp) {
    open_products();
    multiply_by_rows<KEY_DEPTH, OTHER>(own_rows(at.own_keys), stage, s);
    multiply_by_rows<VALUE_DEPTH, OTHER>(own_rows(at.own_values), stage + KEYS, dp);
}

// Hides pairs whose key is after the query; the tile's rows begin `offset` behind the own ones.
template <bool IS_OWN_QUERY> DEVICE void hide_later_keys(Scores& s, u32 offset) {
#pragma unroll
    for (u32 tile = 0; tile < OTHER / 8; ++tile) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 own = own_row() + i / 2 * 8, other = offset + own_column(tile, i);
            if (IS_OWN_QUERY ? other > own : own > other) s[tile][i] = -infinity();
        }
    }
}

template <u32 ROWS>
DEVICE void load_dy(const Number* dy, u64 heads, u64 first, u64 sequence, Number* tile) {
    load_columns<ROWS, 0, VALUE_DEPTH, VALUE>(dy, heads * VALUE, first, sequence, tile);
}

// A block of queries: where it is, how far its keys go, and of each of a thread's two queries,
// eight apart, by what exponents are lowered.
struct Queries {
    Head x;
    Shared at;
    u64 first, start;
    u32 tiles;
    float factor, lower[2];
};

// Begins to bring a tile of keys and values, if it is there, into its stage.
DEVICE void ask_for_keys(const Queries& own, u32 tile) {
    Number* stage = own.at.stages + tile % 3 * STAGE;
    if (tile < own.tiles) {
        load_keys<OTHER>(own.x, (u64)tile * OTHER, stage);
        load_values<OTHER>(own.x, (u64)tile * OTHER, stage + KEYS);
    }
    end_group_of_copies();
}

// Brings the block's queries and dy, and asks for the first tile of keys.
DEVICE void begin_queries(Queries& own, const Number* dy, u64 heads, const float* log_sums) {
    load_queries<OWN>(own.x, own.first, own.at.own_keys);
    load_dy<OWN>(dy, heads, own.first, own.x.sequence, own.at.own_values);
    ask_for_keys(own, 0);
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        u64 query = own.first + own_row() + 8 * half;
        own.lower[half] = query < own.x.sequence ? log_sums[query * heads] * LOG2_E : 0.0f;
    }
}

// Waits for the scores of a tile, after which LATER groups are under way, and makes shares of them.
template <u32 LATER> DEVICE void take_shares(const Queries& own, u32 tile, Scores& s) {
    wait_for_products<LATER>();
    keep_in_place(s);
    if (tile * OTHER >= own.first) hide_later_keys<true>(s, tile * OTHER - (u32)own.first);
#pragma unroll
    for (u32 i = 0; i < OTHER / 2; ++i) {
        float& p = s[i / 4][i % 4];
        p = power_of_two(fmaf(p, own.factor, -own.lower[i % 4 / 2]));
    }
    hold_waits_back_for(s);
}

// Makes ds of p and dp, of which all products are done.
DEVICE void take_differences(const Scores& p, const float (&along)[2], Scores& dp) {
    keep_in_place(dp);
#pragma unroll
    for (u32 i = 0; i < OTHER / 2; ++i) {
        float& ds = dp[i / 4][i % 4];
        ds = p[i / 4][i % 4] * (ds - along[i % 4 / 2]);
    }
}

DEVICE Queries own_queries(u8* shared, const Number* q, const Number* q_turned, const Number* kv,
                           const Number* k_rope, const float2* turns, u64 sequence, u64 heads,
                           float scale) {
    Queries own;
    own.start = blockIdx.z * sequence;
    own.x = head_of(q, q_turned, kv, k_rope, turns, sequence, heads, blockIdx.y, own.start);
    own.at = parts_of(shared);
    // Later tiles have more keys, so they begin first.
    own.first = (u64)(gridDim.x - 1 - blockIdx.x) * OWN;
    u64 end = own.first + OWN < sequence ? own.first + OWN : sequence;
    own.tiles = (u32)((end + OTHER - 1) / OTHER);
    own.factor = scale * LOG2_E;
    return own;
}

// Writes along [t, h], summed over the keys.
KERNEL(256, attention_sum_along, const Number* q, const Number* kv, const Number* k_rope,
       const float2* turns, u64 sequence, u64 heads, float scale, const float* log_sums,
       const Number* dy, const Number* q_turned, float* along) {
    SHARED_BYTES(shared);
    Queries own = own_queries(shared, q, q_turned, kv, k_rope, turns, sequence, heads, scale);
    u64 at = own.start * heads + blockIdx.y;
    Scores s, dp;
    begin_queries(own, dy + at * VALUE, heads, log_sums + at);
    float sum[2] = {};
#pragma unroll 1
    for (u32 tile = 0; tile < own.tiles; ++tile) {
        meet_with_tiles();
        multiply_rows(own.at, own.at.stages + tile % 3 * STAGE, s, dp);
        ask_for_keys(own, tile + 1);
        take_shares<1>(own, tile, s);
        wait_for_products<0>();
        keep_in_place(dp);
#pragma unroll
        for (u32 i = 0; i < OTHER / 2; ++i) {
            sum[i % 4 / 2] = fmaf(s[i / 4][i % 4], dp[i / 4][i % 4], sum[i % 4 / 2]);
        }
    }
    wait_for_copies<0>();
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        float all = sum_of_lanes(sum[half], 4);
        u64 query = own.first + own_row() + 8 * half;
        if (query < sequence && lane_of_warp() % 4 == 0) along[at + query * heads] = all;
    }
}

// Writes dq of a thread's rows, turned back.
DEVICE void put_queries(const KeySums& dq, const Queries& own, float scale, Number* out) {
    const u32 TILES = KEY_DEPTH / 8;
    // All angles are asked for before any of them is waited for.
    float2 turns[2][TILES];
#pragma unroll
    for (u32 i = 0; i < 2 * TILES; ++i) {
        u64 query = own.first + own_row() + i / TILES * 8;
        u32 c = own_column(i % TILES, 0);
        bool is_turned = c >= NOPE && c < KEY && query < own.x.sequence;
        const float2* turn = own.x.turns + query * (ROPE / 2) + (c - NOPE) / 2;
        turns[i / TILES][i % TILES] = is_turned ? *turn : make_float2(1.0f, 0.0f);
    }
#pragma unroll
    for (u32 i = 0; i < 2 * TILES; ++i) {
        u32 half = i / TILES, tile = i % TILES;
        u64 query = own.first + own_row() + 8 * half;
        float2 turn = turns[half][tile];
        float a = dq[tile][2 * half] * scale, b = dq[tile][2 * half + 1] * scale;
        float low = a * turn.x + b * turn.y, high = b * turn.x - a * turn.y;
        Number* row = out + query * own.x.q_apart;
        if (query < own.x.sequence) put_pair<KEY, true>(low, high, own_column(tile, 0), row);
    }
}

// Writes dq [t, h, nope+rope], whose rotary part is that of q, turned, until then.
KERNEL(256, attention_backward_queries, const Number* q, const Number* kv, const Number* k_rope,
       const float2* turns, u64 sequence, u64 heads, float scale, const float* log_sums,
       const float* along, const Number* dy, Number* dq) {
    SHARED_BYTES(shared);
    Queries own = own_queries(shared, q, dq, kv, k_rope, turns, sequence, heads, scale);
    u64 at = own.start * heads + blockIdx.y;
    begin_queries(own, dy + at * VALUE, heads, log_sums + at);
    float less[2];
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        u64 query = own.first + own_row() + 8 * half;
        less[half] = query < sequence ? along[at + query * heads] : 0.0f;
    }
    Scores s, dp;
    Shares shares;
    KeySums sums = {};
    meet_with_tiles();
    multiply_rows(own.at, own.at.stages, s, dp);
    ask_for_keys(own, 1);
    take_shares<1>(own, 0, s);
    wait_for_products<0>();
    take_differences(s, less, dp);
    round_to_factor(dp, shares);
#pragma unroll 1
    for (u32 tile = 1; tile < own.tiles; ++tile) {
        meet_with_tiles();
        multiply_rows(own.at, own.at.stages + tile % 3 * STAGE, s, dp);
        multiply_by_columns<OTHER>(shares, own.at.stages + (tile - 1) % 3 * STAGE, sums);
        ask_for_keys(own, tile + 1);
        take_shares<2>(own, tile, s);
        wait_for_products<1>();
        take_differences(s, less, dp);
        hold_waits_back_for(dp);
        wait_for_products<0>();
        keep_in_place(sums);
        keep_in_place(shares);
        round_to_factor(dp, shares);
    }
    wait_for_copies<0>();
    open_products();
    multiply_by_columns<OTHER>(shares, own.at.stages + (own.tiles - 1) % 3 * STAGE, sums);
    wait_for_products<0>();
    keep_in_place(sums);
    put_queries(sums, own, scale, dq + at * KEY);
}

// A block of keys: where it is, and how many tiles of queries see it.
struct Keys {
    Head x;
    Shared at;
    const Number* dy;
    u64 first, start, heads;
    u32 tiles;
};

// Begins to bring a tile of queries and dy, if it is there, into its stage.
DEVICE void ask_for_queries(const Keys& own, u32 tile) {
    Number* stage = own.at.stages + tile % 2 * STAGE;
    if (tile < own.tiles) {
        u64 query = own.first + (u64)tile * OTHER;
        load_queries<OTHER>(own.x, query, stage);
        load_dy<OTHER>(own.dy, own.heads, query, own.x.sequence, stage + KEYS);
    }
    end_group_of_copies();
}

// What the first threads know of the rows of a tile of queries: half of them by what exponents are
// lowered, half along.
DEVICE float row_of_tile(const Keys& own, u32 tile, const float* log_sums, const float* along) {
    u64 query = own.first + (u64)tile * OTHER + threadIdx.x % OTHER;
    if (threadIdx.x >= 2 * OTHER || query >= own.x.sequence) return 0.0f;
    return threadIdx.x < OTHER ? log_sums[query * own.heads] * LOG2_E : along[query * own.heads];
}

// Makes shares of products, 16 columns at a time to spare registers; `lower` is that of a column.
DEVICE void take_shares_of_keys(const Scores& s, float factor, const float* lower, Shares& p) {
#pragma unroll
    for (u32 i = 0; i < OTHER / 4; ++i) {
        const float(&own)[4] = s[i / 2];
        float2 less = *(const float2*)(lower + own_column(i / 2, 0));
        float low = power_of_two(fmaf(own[i % 2 * 2], factor, -less.x));
        float high = power_of_two(fmaf(own[i % 2 * 2 + 1], factor, -less.y));
        p[i / 4][i % 4] = pair_of(low, high);
    }
}

// Makes ds of shares, as they have been rounded, and dp; `along` is that of a column.
DEVICE void take_differences_of_keys(const Shares& p, const float* along, const Scores& dp,
                                     Shares& ds) {
#pragma unroll
    for (u32 i = 0; i < OTHER / 4; ++i) {
        const float(&own)[4] = dp[i / 2];
        u32 pair = p[i / 4][i % 4];
        float2 less = *(const float2*)(along + own_column(i / 2, 0));
        float low = __uint_as_float(pair << 16) * (own[i % 2 * 2] - less.x);
        float high = __uint_as_float(pair & 0xFFFF0000u) * (own[i % 2 * 2 + 1] - less.y);
        ds[i / 4][i % 4] = pair_of(low, high);
    }
}

// Writes dk and dv of a thread's rows; the rotary part still turned, in F32.
DEVICE void put_keys(const KeySums& dk, const ValueSums& dv, const Keys& own, float scale,
                     Number* dkv, float* dk_rope) {
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        u64 key = own.first + own_row() + 8 * half;
        if (key >= own.x.sequence) continue;
        Number* row = dkv + key * own.x.kv_apart;
        float* rope = dk_rope + key * own.heads * ROPE;
#pragma unroll
        for (u32 tile = 0; tile < KEY_DEPTH / 8; ++tile) {
            u32 c = own_column(tile, 0);
            float low = dk[tile][2 * half] * scale, high = dk[tile][2 * half + 1] * scale;
            if (c < NOPE) put_pair<NOPE, IS_EVEN>(low, high, c, row);
            if (c >= NOPE && c < KEY) *(float2*)(rope + c - NOPE) = make_float2(low, high);
        }
#pragma unroll
        for (u32 tile = 0; tile < VALUE_DEPTH / 8; ++tile) {
            float low = dv[tile][2 * half], high = dv[tile][2 * half + 1];
            put_pair<VALUE, IS_EVEN>(low, high, own_column(tile, 0), row + NOPE);
        }
    }
}

// Writes dkv [t, h, nope+value], and dk_rope [t, h, rope] in F32, still turned, a head each.
KERNEL(256, attention_backward_keys, const Number* q, const Number* kv, const Number* k_rope,
       const float2* turns, u64 sequence, u64 heads, float scale, const float* log_sums,
       const float* along, const Number* dy, const Number* q_turned, Number* dkv,
       float* dk_rope) {
    SHARED_BYTES(shared);
    Keys own;
    own.first = (u64)blockIdx.x * OWN, own.start = blockIdx.z * sequence, own.heads = heads;
    own.x = head_of(q, q_turned, kv, k_rope, turns, sequence, heads, blockIdx.y, own.start);
    own.at = parts_of(shared);
    own.tiles = (u32)((sequence - own.first + OTHER - 1) / OTHER);
    u64 at = own.start * heads + blockIdx.y;
    own.dy = dy + at * VALUE, log_sums += at, along += at;
    // Two tiles' rows, which take turns.
    float* rows = (float*)(own.at.stages + 2 * STAGE);
    load_keys<OWN>(own.x, own.first, own.at.own_keys);
    load_values<OWN>(own.x, own.first, own.at.own_values);
    ask_for_queries(own, 0);
    if (threadIdx.x < 2 * OTHER) rows[threadIdx.x] = row_of_tile(own, 0, log_sums, along);

    float factor = scale * LOG2_E;
    Scores s, dp;
    Shares p, ds;
    KeySums dk = {};
    ValueSums dv = {};
#pragma unroll 1
    for (u32 tile = 0; tile < own.tiles; ++tile) {
        meet_with_tiles();
        const Number* stage = own.at.stages + tile % 2 * STAGE;
        const float *lower = rows + tile % 2 * 2 * OTHER, *less = lower + OTHER;
        multiply_rows(own.at, stage, s, dp);
        ask_for_queries(own, tile + 1);
        wait_for_products<1>();
        keep_in_place(s);
        if (tile < OWN / OTHER) hide_later_keys<false>(s, tile * OTHER);
        take_shares_of_keys(s, factor, lower, p);
        open_products();
        multiply_by_columns<OTHER>(p, stage + KEYS, dv);
        float next = row_of_tile(own, tile + 1, log_sums, along);
        wait_for_products<1>();
        keep_in_place(dp);
        take_differences_of_keys(p, less, dp, ds);
        open_products();
        multiply_by_columns<OTHER>(ds, stage, dk);
        if (threadIdx.x < 2 * OTHER) rows[(tile + 1) % 2 * 2 * OTHER + threadIdx.x] = next;
        wait_for_products<0>();
        keep_in_place(dv);
        keep_in_place(dk);
        keep_in_place(p);
        keep_in_place(ds);
    }
    wait_for_copies<0>();
    put_keys(dk, dv, own, scale, dkv + own.start * own.x.kv_apart + blockIdx.y * (NOPE + VALUE),
             dk_rope + at * ROPE);
}
