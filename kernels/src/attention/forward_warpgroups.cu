// The forward pass of attention by products of warpgroups; formulas in forward.cu.
//
// A warpgroup has 64 queries, whose scores, shares and sums stay in registers (Shah et al.,
// arXiv:2407.08608, section 3.2). Keys and values come in tiles of 128, asked for one tile ahead.
// Scores of a tile are multiplied while the sums are scaled down to the largest scores of the tile
// before; its softmax is taken while the values of the tile before are added.
//
// Launch: 256 threads; a block for each tile of queries (x), head (y) and sequence (z); shared
// memory for 128 queries and two tiles each of keys and values.

const u32 OTHER = 128;
const u32 KEYS = size_of_tile(OTHER, KEY_DEPTH);
const u32 VALUES = size_of_tile(OTHER, VALUE_DEPTH);

typedef float Scores[OTHER / 8][4];
typedef u32 Shares[OTHER / 16][4];
typedef float Sums[VALUE_DEPTH / 8][4];

// What a thread knows of the softmax of its two rows, eight apart: the largest product, the sum of
// shares, and by what all that was summed before the last tile is still to be multiplied.
struct Softmax {
    float largest[2], sum[2], keep[2];
};

// Pairs of rotary columns that a thread turns at a time, and the angles.
const u32 PAIRS = IS_WHOLE ? 4 : 1;

struct Pairs {
    u32 all[PAIRS];
    float2 turns[PAIRS];
};

DEVICE Pairs pairs_at(const Number* from, const float2* turns, bool is_there) {
    Pairs pairs;
    if constexpr (IS_WHOLE) {
        uint4 all = {0, 0, 0, 0};
        if (is_there) all = *(const uint4*)from;
        pairs.all[0] = all.x, pairs.all[1] = all.y, pairs.all[2] = all.z, pairs.all[3] = all.w;
#pragma unroll
        for (u32 i = 0; i < PAIRS; i += 2) {
            float4 two = {0.0f, 0.0f, 0.0f, 0.0f};
            if (is_there) two = *(const float4*)(turns + i);
            pairs.turns[i] = make_float2(two.x, two.y);
            pairs.turns[i + 1] = make_float2(two.z, two.w);
        }
    } else {
        pairs.all[0] = is_there ? from[0].bits | (u32)from[1].bits << 16 : 0;
        pairs.turns[0] = is_there ? turns[0] : make_float2(0.0f, 0.0f);
    }
    return pairs;
}

// Turns the rotary part of the block's queries on its way into their tile.
DEVICE void load_and_turn(const Head& x, u64 first, Number* tile) {
    const u32 STEPS = (KEY_DEPTH - NOPE) / (2 * PAIRS);
    const u32 AT_A_TIME = THREADS / at_least_one(STEPS);
    const u32 ROUNDS = (OWN + AT_A_TIME - 1) / AT_A_TIME;
    u32 own = threadIdx.x / at_least_one(STEPS);
    u32 pair = threadIdx.x % at_least_one(STEPS) * PAIRS;
    if (STEPS == 0 || own >= AT_A_TIME) return;
    // All is asked for before any of it is waited for.
    Pairs rounds[ROUNDS];
#pragma unroll
    for (u32 round = 0; round < ROUNDS; ++round) {
        u64 query = first + round * AT_A_TIME + own;
        bool is_there = query < x.sequence && pair < ROPE / 2;
        const Number* from = x.q + NOPE + query * x.q_apart + 2 * pair;
        rounds[round] = pairs_at(from, x.turns + query * (ROPE / 2) + pair, is_there);
    }
#pragma unroll
    for (u32 i = 0; i < ROUNDS * PAIRS; ++i) {
        u32 row = i / PAIRS * AT_A_TIME + own, two = rounds[i / PAIRS].all[i % PAIRS];
        float2 turn = rounds[i / PAIRS].turns[i % PAIRS];
        float a = __uint_as_float(two << 16), b = __uint_as_float(two & 0xFFFF0000u);
        u32 turned = pair_of(a * turn.x - b * turn.y, a * turn.y + b * turn.x);
        u8* to = place_in<OWN>(tile, row, NOPE + 2 * (pair + i % PAIRS));
        if (row < OWN) put_in_factor(to, turned);
    }
}

// Hides the keys after each query where both tiles begin at the same token.
DEVICE void hide_later_keys(Scores& s) {
#pragma unroll
    for (u32 tile = 0; tile < OTHER / 8; ++tile) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            if (own_column(tile, i) > own_row() + i / 2 * 8) s[tile][i] = -infinity();
        }
    }
}

// Makes shares of products; 2^(factor x) is the exponential of the score.
DEVICE void take_softmax(Scores& s, float factor, Softmax& rows) {
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        float largest = rows.largest[half];
#pragma unroll
        for (u32 i = 0; i < OTHER / 4; ++i) {
            largest = fmaxf(largest, s[i / 2][2 * half + i % 2]);
        }
        largest = largest_of_lanes(largest, 4);
        float keep = power_of_two((rows.largest[half] - largest) * factor), sum = 0.0f;
        float base = -largest * factor;
#pragma unroll
        for (u32 i = 0; i < OTHER / 4; ++i) {
            float& share = s[i / 2][2 * half + i % 2];
            share = power_of_two(fmaf(share, factor, base));
            sum += share;
        }
        rows.largest[half] = largest, rows.keep[half] = keep;
        rows.sum[half] = rows.sum[half] * keep + sum;
    }
}

DEVICE void scale_down(const Softmax& rows, Sums& y) {
#pragma unroll
    for (u32 tile = 0; tile < VALUE_DEPTH / 8; ++tile) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) y[tile][i] *= rows.keep[i / 2];
    }
}

// Writes a thread's part of the output and the statistics of its rows.
DEVICE void put_rows(const Softmax& rows, const Sums& y, const Head& x, u64 first, float scale,
                     u64 heads, Number* out, float* log_sums, float* largest) {
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        float sum = sum_of_lanes(rows.sum[half], 4), inverse = 1.0f / sum;
        u64 query = first + own_row() + 8 * half, at = query * heads;
        if (query >= x.sequence) continue;
        if (lane_of_warp() % 4 == 0) {
            largest[at] = rows.largest[half] * scale;
            log_sums[at] = rows.largest[half] * scale + logf(sum);
        }
#pragma unroll
        for (u32 tile = 0; tile < VALUE_DEPTH / 8; ++tile) {
            float low = y[tile][2 * half] * inverse, high = y[tile][2 * half + 1] * inverse;
            put_pair<VALUE, IS_EVEN>(low, high, own_column(tile, 0), out + at * VALUE);
        }
    }
}

// Begins to bring the keys of the next tile, if there is one, and the values of this one.
DEVICE void ask_for_tiles(const Head& x, u32 tile, u32 last, Number* keys, Number* values) {
    u64 key = (u64)tile * OTHER;
    if (tile < last) load_keys<OTHER>(x, key + OTHER, keys + (tile + 1) % 2 * KEYS);
    load_values<OTHER>(x, key, values + tile % 2 * VALUES);
    end_group_of_copies();
}

KERNEL(256, attention_forward, const Number* q, const Number* kv, const Number* k_rope,
       const float2* turns, u64 sequence, u64 heads, float scale, Number* y, float* log_sums,
       float* largest) {
    SHARED_BYTES(shared);
    Number *queries = (Number*)shared, *keys = queries + size_of_tile(OWN, KEY_DEPTH);
    Number* values = keys + 2 * KEYS;
    // Later tiles have more keys, so they begin first.
    u32 last = gridDim.x - 1 - blockIdx.x;
    u64 first = (u64)last * OWN, head = blockIdx.y, start = blockIdx.z * sequence;
    Head x = head_of(q, q, kv, k_rope, turns, sequence, heads, head, start);
    load_columns<OWN, 0, NOPE, NOPE>(x.q, x.q_apart, first, sequence, queries);
    load_keys<OTHER>(x, 0, keys);
    end_group_of_copies();
    load_and_turn(x, first, queries);

    const Number* own = own_rows(queries);
    float factor = scale * LOG2_E;
    Softmax rows = {{-infinity(), -infinity()}, {0.0f, 0.0f}, {0.0f, 0.0f}};
    Scores s;
    Shares shares;
    Sums sums = {};
    meet_with_tiles();
    open_products();
    multiply_by_rows<KEY_DEPTH, OTHER>(own, keys, s);
    ask_for_tiles(x, 0, last, keys, values);
    wait_for_products<0>();
    keep_in_place(s);
    if (last == 0) hide_later_keys(s);
    take_softmax(s, factor, rows);
    round_to_factor(s, shares);
#pragma unroll 1
    for (u32 tile = 1; tile <= last; ++tile) {
        meet_with_tiles();
        open_products();
        multiply_by_rows<KEY_DEPTH, OTHER>(own, keys + tile % 2 * KEYS, s);
        scale_down(rows, sums);
        open_products();
        multiply_by_columns<OTHER>(shares, values + (tile - 1) % 2 * VALUES, sums);
        ask_for_tiles(x, tile, last, keys, values);
        wait_for_products<1>();
        keep_in_place(s);
        if (tile == last) hide_later_keys(s);
        take_softmax(s, factor, rows);
        hold_waits_back_for(rows.sum[0] + rows.sum[1]);
        wait_for_products<0>();
        keep_in_place(sums);
        keep_in_place(shares);
        round_to_factor(s, shares);
    }
    meet_with_tiles();
    scale_down(rows, sums);
    open_products();
    multiply_by_columns<OTHER>(shares, values + last % 2 * VALUES, sums);
    wait_for_products<0>();
    keep_in_place(sums);
    u64 at = start * heads + head;
    put_rows(rows, sums, x, first, scale, heads, y + at * VALUE, log_sums + at, largest + at);
}
