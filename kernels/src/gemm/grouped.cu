// An expert layer's products (groups.cuh) by products of warps, or in F32 without tensor cores.
//
// A block has a tile of 128 x 128. Both factors go through shared memory in stages of 64 bytes of
// depth, of which three are under way by cp.async while one is multiplied. Of its four warps each
// has 64 columns and every other 16 rows, so a tile of few rows keeps all of them busy and has no
// products of rows that do not exist. A sum goes on in steps of 16 of the depth, of one in F32.
//
// Launch: 128 threads; a block for each tile of all groups; shared memory for four stages.

const u32 TILE = 128;
const u32 STAGES = 4;
const u32 CHUNK = 16 / sizeof(Number);
const u32 DEPTH = 4 * CHUNK;

// Rows of shared memory, longer by 16 bytes: those that a matrix load touches lie in different
// banks. A factor's lines go along the depth, or across it.
const u32 ALONG_STRIDE = DEPTH + CHUNK;
const u32 ACROSS_STRIDE = TILE + CHUNK;
const u32 FACTOR = TILE * ALONG_STRIDE;

// What a thread holds of a tile: of four times 16 rows and 8 times 8 columns.
typedef float Sums[4][8][4];

// Begins to bring a stage of a factor: TILE rows or columns of the product from `first` on, at the
// depth from `k` on. Lines that are not aligned are copied at once, and need no wait.
template <bool IS_ALONG> DEVICE void load_factor(const Factor& x, u64 first, u64 k, Number* to) {
    const u32 CHUNKS = (IS_ALONG ? DEPTH : TILE) / CHUNK;
    const u32 STRIDE = IS_ALONG ? ALONG_STRIDE : ACROSS_STRIDE;
    bool is_whole = is_aligned(x.at, 16) && x.width % CHUNK == 0;
#pragma unroll
    for (u32 i = threadIdx.x; i < TILE * DEPTH / CHUNK; i += 128) {
        u32 line = i / CHUNKS, c = i % CHUNKS * CHUNK;
        u64 row = (IS_ALONG ? first : k) + line, col = (IS_ALONG ? k : first) + c;
        u64 left = row < x.lines && col < x.width ? x.width - col : 0;
        u32 there = left < CHUNK ? (u32)left : CHUNK;
        const Number* from = x.at + (there == 0 ? 0 : row * x.width + col);
        Number* place = to + line * STRIDE + c;
        if (is_whole) {
            copy_soon(place, from, there * sizeof(Number));
            continue;
        }
#pragma unroll
        for (u32 j = 0; j < CHUNK; ++j) {
            place[j] = j < there ? from[j] : nearest<Number>(0.0f);
        }
    }
}

// 16 rows of the left factor at 16 of depth, out of a stage.
template <bool IS_ALONG>
DEVICE void load_left(const Bf16* a, u32 row, u32 k, u32 (&to)[4]) {
    u32 lane = lane_of_warp();
    if (IS_ALONG) {
        load_matrices(a + (row + lane % 16) * ALONG_STRIDE + k + lane / 16 * 8, to);
    } else {
        u32 deep = k + lane / 16 * 8 + lane % 8;
        load_matrices_turned(a + deep * ACROSS_STRIDE + row + lane / 8 % 2 * 8, to);
    }
}

// 16 columns of the right factor; the first two are those of the first eight.
template <bool IS_ALONG>
DEVICE void load_right(const Bf16* b, u32 col, u32 k, u32 (&to)[4]) {
    u32 lane = lane_of_warp();
    if (IS_ALONG) {
        u32 line = col + lane / 16 * 8 + lane % 8;
        load_matrices(b + line * ALONG_STRIDE + k + lane / 8 % 2 * 8, to);
    } else {
        load_matrices_turned(b + (k + lane % 16) * ACROSS_STRIDE + col + lane / 16 * 8, to);
    }
}

// The first row and column of this warp in its tile; its next 16 rows are 32 below.
DEVICE u32 top_of_warp() {
    return threadIdx.x / WARP % 2 * 16;
}

DEVICE u32 left_of_warp() {
    return threadIdx.x / WARP / 2 * 64;
}

// Adds a stage to the sums of the first 16 HIGH rows of this warp, on tensor cores.
template <u32 HIGH, bool A_ALONG, bool B_ALONG>
DEVICE void add_stage(const Bf16* a, const Bf16* b, Sums& sums) {
    u32 top = top_of_warp(), left = left_of_warp();
#pragma unroll
    for (u32 k = 0; k < DEPTH; k += 16) {
        u32 right[4][4];
#pragma unroll
        for (u32 pair = 0; pair < 4; ++pair) {
            load_right<B_ALONG>(b, left + 16 * pair, k, right[pair]);
        }
#pragma unroll
        for (u32 high = 0; high < HIGH; ++high) {
            u32 rows[4];
            load_left<A_ALONG>(a, top + 32 * high, k, rows);
#pragma unroll
            for (u32 pair = 0; pair < 4; ++pair) {
                u32(&cols)[4] = right[pair];
                multiply_fragments(sums[high][2 * pair], rows, cols[0], cols[1]);
                multiply_fragments(sums[high][2 * pair + 1], rows, cols[2], cols[3]);
            }
        }
    }
}

// The same in F32, without tensor cores, which would round to 10 bits.
template <u32 HIGH, bool A_ALONG, bool B_ALONG>
DEVICE void add_stage(const float* a, const float* b, Sums& sums) {
    const u32 DOWN = A_ALONG ? ALONG_STRIDE : 1, A_DEEPER = A_ALONG ? 1 : ACROSS_STRIDE;
    const u32 NEXT = B_ALONG ? ALONG_STRIDE : 1, B_DEEPER = B_ALONG ? 1 : ACROSS_STRIDE;
    u32 lane = lane_of_warp();
    const float* row = a + (top_of_warp() + lane / 4) * DOWN;
    const float* col = b + (left_of_warp() + lane % 4 * 2) * NEXT;
#pragma unroll 1
    for (u32 k = 0; k < DEPTH; ++k) {
        float right[16];
#pragma unroll
        for (u32 i = 0; i < 16; ++i) {
            right[i] = col[(i / 2 * 8 + i % 2) * NEXT + k * B_DEEPER];
        }
#pragma unroll
        for (u32 high = 0; high < HIGH; ++high) {
            float above = row[32 * high * DOWN + k * A_DEEPER];
            float below = row[(32 * high + 8) * DOWN + k * A_DEEPER];
#pragma unroll
            for (u32 i = 0; i < 16; ++i) {
                float(&own)[4] = sums[high][i / 2];
                own[i % 2] = fmaf(above, right[i], own[i % 2]);
                own[2 + i % 2] = fmaf(below, right[i], own[2 + i % 2]);
            }
        }
    }
}

// The sums of a tile over the whole depth; `high` times 32 rows of it are there.
template <bool A_ALONG, bool B_ALONG, typename N>
DEVICE void multiply_tile(const Tile<N>& tile, u64 high, Number* stages, Sums& sums) {
    u64 steps = (tile.depth + DEPTH - 1) / DEPTH;
    for (u32 step = 0; step < STAGES - 1; ++step) {
        Number* to = stages + step * 2 * FACTOR;
        if (step < steps) load_factor<A_ALONG>(tile.a, tile.row, step * DEPTH, to);
        if (step < steps) load_factor<B_ALONG>(tile.b, tile.col, step * DEPTH, to + FACTOR);
        end_group_of_copies();
    }
#pragma unroll 1
    for (u64 step = 0; step < steps; ++step) {
        wait_for_copies<STAGES - 2>();
        // All see the stage, and nobody reads the one before any more, which is filled anew.
        __syncthreads();
        u64 later = step + STAGES - 1;
        Number* to = stages + later % STAGES * 2 * FACTOR;
        if (later < steps) {
            load_factor<A_ALONG>(tile.a, tile.row, later * DEPTH, to);
            load_factor<B_ALONG>(tile.b, tile.col, later * DEPTH, to + FACTOR);
        }
        end_group_of_copies();
        const Number* from = stages + step % STAGES * 2 * FACTOR;
        if (high > 2) {
            add_stage<4, A_ALONG, B_ALONG>(from, from + FACTOR, sums);
        } else if (high == 2) {
            add_stage<2, A_ALONG, B_ALONG>(from, from + FACTOR, sums);
        } else {
            add_stage<1, A_ALONG, B_ALONG>(from, from + FACTOR, sums);
        }
    }
}

// Two neighbours of a row, of which `n` exist.
DEVICE float2 two_at(const float* from, u32 n) {
    if (n == 2 && is_aligned(from, 8)) return *(const float2*)from;
    return make_float2(n > 0 ? from[0] : 0.0f, n > 1 ? from[1] : 0.0f);
}

DEVICE float2 two_at(const Bf16* from, u32 n) {
    return make_float2(n > 0 ? wide(from[0]) : 0.0f, n > 1 ? wide(from[1]) : 0.0f);
}

DEVICE void put_two(float2 x, float* to, u32 n) {
    if (n == 2 && is_aligned(to, 8)) {
        *(float2*)to = x;
        return;
    }
    if (n > 0) to[0] = x.x;
    if (n > 1) to[1] = x.y;
}

DEVICE void put_two(float2 x, Bf16* to, u32 n) {
    if (n == 2 && is_aligned(to, 4)) {
        *(u32*)to = pair_of(x.x, x.y);
        return;
    }
    if (n > 0) to[0] = nearest<Bf16>(x.x);
    if (n > 1) to[1] = nearest<Bf16>(x.y);
}

// Writes what becomes of the tile's sums, rounded once.
template <bool IS_SUM, typename N> DEVICE void put_tile(const Sums& sums, const Tile<N>& tile) {
    u32 lane = lane_of_warp();
    u64 col = tile.col + left_of_warp() + lane % 4 * 2;
#pragma unroll
    for (u32 half = 0; half < 8; ++half) {
        u64 row = tile.row + top_of_warp() + half / 2 * 32 + half % 2 * 8 + lane / 4;
        u64 at = row * tile.cols + col;
        float2 before[8];
        u32 there[8];
        // All that is read is asked for before any of it is waited for.
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            bool is_there = row < tile.rows && col + 8 * i < tile.cols;
            u64 left = is_there ? tile.cols - col - 8 * i : 0;
            there[i] = left < 2 ? (u32)left : 2;
            u32 read = IS_SUM || tile.blend.keep == 0.0f ? 0 : there[i];
            before[i] = two_at(tile.blend.base + at + 8 * i, read);
        }
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            const float(&own)[4] = sums[half / 2][i];
            float2 sum = make_float2(own[half % 2 * 2], own[half % 2 * 2 + 1]);
            if constexpr (!IS_SUM) {
                sum.x = tile.blend.of(before[i].x, sum.x);
                sum.y = tile.blend.of(before[i].y, sum.y);
            }
            put_two(sum, tile.y + at + 8 * i, there[i]);
        }
    }
}

template <bool A_ALONG, bool B_ALONG, typename N>
DEVICE void multiply(const Tile<N>& tile, u8* shared) {
    Sums sums = {};
    u64 high = (tile.rows - tile.row + 31) / 32;
    multiply_tile<A_ALONG, B_ALONG>(tile, high, (Number*)shared, sums);
    if (tile.blend.is_sum()) {
        put_tile<true>(sums, tile);
    } else {
        put_tile<false>(sums, tile);
    }
}

KERNEL(128, grouped_forward, const __grid_constant__ Groups groups, u32 count, const Number* x,
       u64 input, u64 output, const Number* base, float keep, float by, Number* y) {
    SHARED_BYTES(shared);
    Blend<Number> blend = {base, keep, by};
    auto tile = tile_of_rows<TILE, TILE, true>(groups, count, x, input, output, blend, y);
    multiply<true, true>(tile, shared);
}

KERNEL(128, grouped_backward_input, const __grid_constant__ Groups groups, u32 count,
       const Number* dy, u64 output, u64 input, const Number* base, float keep, float by,
       Number* dx) {
    SHARED_BYTES(shared);
    Blend<Number> blend = {base, keep, by};
    auto tile = tile_of_rows<TILE, TILE, false>(groups, count, dy, output, input, blend, dx);
    multiply<true, false>(tile, shared);
}

KERNEL(128, grouped_backward_weight, const __grid_constant__ Groups groups, u32 count,
       const Number* dy, u64 output, const Number* x, u64 input) {
    SHARED_BYTES(shared);
    auto tile = tile_of_weight<TILE, TILE>(groups, count, dy, output, x, input);
    multiply<false, false>(tile, shared);
}
