// An expert layer's products (groups.cuh) in BF16 by products of warpgroups, for Hopper.
//
// A block has a tile of 128 x 256, of which each of its two warpgroups has 64 rows. Where these do
// not exist it only copies, and none multiplies the second 128 columns where they do not exist.
// Both factors go through four places of shared memory in stages of 64 of the depth: one is
// multiplied, one waits for the tensor cores, two are under way by cp.async. A whole stage is 1,024
// cycles of the tensor cores, in which the cache of second level has to give 48 KiB; in tiles of
// 128 x 128 it would have to give a third more. So there are 128 sums to a thread and one block to
// a multiprocessor. A sum goes on in steps of 16 of the depth.
//
// Launch: 256 threads; a block for each tile of all groups; shared memory for four stages.

const u32 HIGH = 128;
const u32 WIDE = 256;
const u32 THREADS = 256;
const u32 STAGES = 4;
const u32 DEPTH = LINE / sizeof(Bf16);
const u32 A_BYTES = HIGH * LINE;
const u32 STAGE_BYTES = A_BYTES + WIDE * LINE;

// Lines of shared memory that all threads fill at a time, 16 bytes each.
const u32 LINES = THREADS * 16 / LINE;

// What a thread holds of a tile.
typedef float Sums[WIDE / 8][4];

// What a thread copies of a factor: of each stage 16 bytes in every 32nd line of shared memory. If
// lines go along the depth, each is of another row or column of the product; if they go across it,
// two places of the depth come, of 64 rows or columns after the other.
struct Copies {
    // The first 16 bytes of the next stage.
    const Bf16* from;
    // In numbers, 32 lines of the factor, and from a stage to the next.
    u64 apart, stage;
    // The first place of the depth in a stage; and how many of the rows or columns, or of the 64s
    // of these, are there.
    u32 deep, beside;
};

// How many there are of `most` from `first` on.
DEVICE u32 at_most(u64 first, u64 end, u32 most) {
    u64 left = first < end ? end - first : 0;
    return left < most ? (u32)left : most;
}

// Those of a factor of which `beside` rows or columns are there, from `first` on.
template <bool IS_ALONG> DEVICE Copies copies_of(const Factor& x, u64 first, u32 beside) {
    u32 line = threadIdx.x / 8, number = threadIdx.x % 8 * 8;
    u32 own_beside = IS_ALONG ? line : number, every = IS_ALONG ? LINES : 64;
    Copies own;
    u64 row = IS_ALONG ? first + line : line, col = number + (IS_ALONG ? 0 : first);
    own.from = x.at + row * x.width + col;
    own.apart = LINES * x.width, own.stage = IS_ALONG ? DEPTH : DEPTH * x.width;
    own.deep = IS_ALONG ? number : line;
    own.beside = (beside + every - 1 - own_beside) / every;
    return own;
}

// Begins to bring a factor's next stage, of which `left` of the depth exists.
template <bool IS_ALONG, u32 COUNT> DEVICE void copy_stage(Copies& own, u32 left, u8* to) {
    u8* place = to + swizzled(threadIdx.x / 8, threadIdx.x % 8 * 16);
#pragma unroll
    for (u32 i = 0; i < COUNT / LINES; ++i) {
        u64 onward = IS_ALONG ? i * own.apart : i % 2 * own.apart + i / 2 * 64;
        bool is_there = (IS_ALONG ? i : i / 2) < own.beside;
        is_there = is_there && own.deep + (IS_ALONG ? 0 : i % 2 * LINES) < left;
        copy_soon(place + i * LINES * LINE, own.from + onward, is_there ? 16 : 0);
    }
    own.from += own.stage;
}

// The first `left` of eight neighbours, for places that are not aligned; what is missing is zero.
DEVICE uint4 eight_at(const Bf16* from, u64 left) {
    u32 pairs[4] = {};
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        if (i < left) pairs[i / 2] |= (u32)from[i].bits << i % 2 * 16;
    }
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

// The same number by number, for lines that are not aligned, and at once.
template <bool IS_ALONG, u32 COUNT>
DEVICE void copy_slowly(const Factor& x, u64 first, u64 k, u8* to) {
#pragma unroll 1
    for (u32 line = threadIdx.x / 8; line < COUNT; line += LINES) {
        u32 number = threadIdx.x % 8 * 8;
        u64 row = IS_ALONG ? first + line : k + line % 64;
        u64 col = IS_ALONG ? k + number : first + line / 64 * 64 + number;
        u64 left = row < x.lines && col < x.width ? x.width - col : 0;
        uint4 all = eight_at(x.at + row * x.width + col, left);
        put_in_factor(to + swizzled(line, threadIdx.x % 8 * 16), all);
    }
}

DEVICE bool is_whole(const Factor& x) {
    return is_aligned(x.at, 16) && x.width % 8 == 0;
}

DEVICE u32 steps_of(u64 depth) {
    return (u32)((depth + DEPTH - 1) / DEPTH);
}

// Begins to bring the next stage of both factors, which is that of a step, if there is one.
template <bool A_ALONG, bool B_ALONG, typename N>
DEVICE void bring_stage(const Tile<N>& tile, Copies& a, Copies& b, u32 step, u8* stages) {
    if (step < steps_of(tile.depth)) {
        u8* to = stages + step % STAGES * STAGE_BYTES;
        u32 k = step * DEPTH, left = (u32)tile.depth - k;
        if (is_whole(tile.a) && is_whole(tile.b)) {
            copy_stage<A_ALONG, HIGH>(a, left, to);
            copy_stage<B_ALONG, WIDE>(b, left, to + A_BYTES);
        } else {
            copy_slowly<A_ALONG, HIGH>(tile.a, tile.row, k, to);
            copy_slowly<B_ALONG, WIDE>(tile.b, tile.col, k, to + A_BYTES);
        }
    }
    end_group_of_copies();
}

// Begins this warpgroup's products of a stage, with the first COLUMNS.
template <bool A_ALONG, bool B_ALONG, u32 COLUMNS>
DEVICE void add_stage(const u8* stage, Sums& sums) {
    auto& own = reinterpret_cast<float(&)[COLUMNS / 8][4]>(sums);
    const Bf16* a = (const Bf16*)(stage + threadIdx.x / WARPGROUP * 64 * LINE);
    const Bf16* b = (const Bf16*)(stage + A_BYTES);
    open_products();
#pragma unroll
    for (u32 k = 0; k < DEPTH; k += 16) {
        u64 rows = A_ALONG ? factor_along(a, k) : factor_across(a, k, DEPTH);
        u64 columns = B_ALONG ? factor_along(b, k) : factor_across(b, k, DEPTH);
        multiply_factors<!A_ALONG, !B_ALONG>(own, rows, columns);
    }
    end_group_of_products();
}

// Brings the tile's factors, stage after stage, and adds their products to this warpgroup's sums of
// the first COLUMNS.
template <bool A_ALONG, bool B_ALONG, u32 COLUMNS, typename N>
DEVICE void multiply_tile(const Tile<N>& tile, u8* stages, Sums& sums) {
    u32 rows = at_most(tile.row, tile.rows, HIGH), cols = at_most(tile.col, tile.cols, WIDE);
    Copies a = copies_of<A_ALONG>(tile.a, tile.row, rows);
    Copies b = copies_of<B_ALONG>(tile.b, tile.col, cols);
    for (u32 step = 0; step < STAGES - 2; ++step) {
        bring_stage<A_ALONG, B_ALONG>(tile, a, b, step, stages);
    }
#pragma unroll 1
    for (u32 step = 0; step < steps_of(tile.depth); ++step) {
        wait_for_copies<STAGES - 3>();
        show_to_products();
        // All see the stage, and the products of the one before the last are done, in whose place
        // another comes; those of the last go on.
        __syncthreads();
        bring_stage<A_ALONG, B_ALONG>(tile, a, b, step + STAGES - 2, stages);
        if constexpr (COLUMNS > 0) {
            const u8* from = stages + step % STAGES * STAGE_BYTES;
            add_stage<A_ALONG, B_ALONG, COLUMNS>(from, sums);
            wait_for_products<1>();
        }
    }
    if (COLUMNS > 0) {
        wait_for_products<0>();
        keep_in_place(sums);
    }
}

// Lets this lane's `high` and the `low` of the lane so far above it change places.
DEVICE void exchange(u32& low, u32& high, u32 apart) {
    bool is_above = (lane_of_warp() & apart) != 0;
    u32 got = __shfl_xor_sync(ALL_LANES, is_above ? low : high, apart);
    low = is_above ? got : low;
    high = is_above ? high : got;
}

// Turns what four lanes have of 32 columns: two neighbours in every eight for eight neighbours, and
// back again.
DEVICE void turn_pairs(u32 (&pairs)[4]) {
    exchange(pairs[0], pairs[1], 1), exchange(pairs[2], pairs[3], 1);
    exchange(pairs[0], pairs[2], 2), exchange(pairs[1], pairs[3], 2);
}

// Asks for what stands in every 32nd eight columns from `from` on, of which `there` exist.
DEVICE void get_base(const Bf16* from, u32 there, bool are_eights, uint4 (&to)[WIDE / 32]) {
#pragma unroll
    for (u32 i = 0; i < WIDE / 32; ++i) {
        u32 left = 32 * i < there ? there - 32 * i : 0;
        if (are_eights) {
            if (left > 0) to[i] = *(const uint4*)(from + 32 * i);
        } else {
            to[i] = eight_at(from + 32 * i, left);
        }
    }
}

// Two neighbours of what becomes of sums, before which two others stand.
DEVICE u32 blended(const Blend<Bf16>& blend, u32 before, float low, float high) {
    float above = __uint_as_float(before & 0xFFFF0000u);
    return pair_of(blend.of(__uint_as_float(before << 16), low), blend.of(above, high));
}

// Writes what becomes of this thread's sums, of which it has two neighbours in every eight columns:
// turned, each lane has eight neighbours, 16 bytes, and all four two sectors.
template <bool IS_SUM>
DEVICE void put_rows(const Sums& sums, const Tile<Bf16>& tile, u64 row) {
    const Blend<Bf16>& blend = tile.blend;
    u64 col = tile.col + 8 * (lane_of_warp() % 4);
    bool are_eights = tile.cols % 8 == 0 && is_aligned(tile.y, 16) && is_aligned(blend.base, 16);
#pragma unroll
    for (u32 below = 0; below < 2; ++below, row += 8) {
        u32 there = row < tile.rows ? at_most(col, tile.cols, WIDE) : 0;
        Bf16* to = tile.y + row * tile.cols + col;
        uint4 before[WIDE / 32] = {};
        if (!IS_SUM && blend.keep != 0.0f) {
            get_base(blend.base + row * tile.cols + col, there, are_eights, before);
        }
#pragma unroll
        for (u32 i = 0; i < WIDE / 8; i += 4) {
            const uint4& old = before[i / 4];
            u32 pairs[4] = {old.x, old.y, old.z, old.w};
            if (!IS_SUM && blend.keep != 0.0f) turn_pairs(pairs);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                const float(&own)[4] = sums[i + j];
                float low = own[2 * below], high = own[2 * below + 1];
                pairs[j] = IS_SUM ? pair_of(low, high) : blended(blend, pairs[j], low, high);
            }
            turn_pairs(pairs);
            if (are_eights) {
                uint4 all = {pairs[0], pairs[1], pairs[2], pairs[3]};
                if (8 * i < there) *(uint4*)(to + 8 * i) = all;
                continue;
            }
#pragma unroll
            for (u32 j = 0; j < 8; ++j) {
                if (8 * i + j < there) to[8 * i + j].bits = (u16)(pairs[j / 2] >> j % 2 * 16);
            }
        }
    }
}

DEVICE void put_sums(const Sums& sums, const Tile<Bf16>& tile, u64 row) {
    if (tile.blend.is_sum()) {
        put_rows<true>(sums, tile, row);
    } else {
        put_rows<false>(sums, tile, row);
    }
}

// Writes one of this thread's two rows, or adds it to what is there; `there` of its columns exist,
// in pairs that are aligned.
DEVICE void put_pairs(const Sums& sums, u32 below, float* to, u32 there, bool is_added) {
    const u32 AT_ONCE = 16;
#pragma unroll
    for (u32 begin = 0; begin < WIDE / 8; begin += AT_ONCE) {
        float2 before[AT_ONCE];
        // All that is added to is asked for before any of it is waited for.
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; ++i) {
            u32 at = 8 * (begin + i);
            bool is_there = is_added && at < there;
            before[i] = is_there ? *(const float2*)(to + at) : make_float2(0.0f, 0.0f);
        }
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; ++i) {
            const float(&own)[4] = sums[begin + i];
            u32 at = 8 * (begin + i);
            float2 sum = make_float2(own[2 * below], own[2 * below + 1]);
            if (is_added) sum = make_float2(before[i].x + sum.x, before[i].y + sum.y);
            if (at < there) *(float2*)(to + at) = sum;
        }
    }
}

// The same number by number.
DEVICE void put_singles(const Sums& sums, u32 below, float* to, u32 there, bool is_added) {
#pragma unroll
    for (u32 i = 0; i < WIDE / 4; ++i) {
        u32 at = i / 2 * 8 + i % 2;
        float sum = sums[i / 2][2 * below + i % 2];
        if (at < there) to[at] = is_added ? to[at] + sum : sum;
    }
}

// Writes this thread's sums of weights in F32, four lanes a sector, or adds them to what is there.
DEVICE void put_sums(const Sums& sums, const Tile<float>& tile, u64 row) {
    u64 col = tile.col + 2 * (lane_of_warp() % 4);
    bool are_pairs = tile.cols % 2 == 0 && is_aligned(tile.y, 8);
#pragma unroll
    for (u32 below = 0; below < 2; ++below, row += 8) {
        u32 there = row < tile.rows ? at_most(col, tile.cols, WIDE) : 0;
        float* to = tile.y + row * tile.cols + col;
        if (are_pairs) {
            put_pairs(sums, below, to, there, tile.blend.keep != 0.0f);
        } else {
            put_singles(sums, below, to, there, tile.blend.keep != 0.0f);
        }
    }
}

template <bool A_ALONG, bool B_ALONG, typename N>
DEVICE void multiply(const Tile<N>& tile, u8* shared) {
    u64 top = tile.row + threadIdx.x / WARPGROUP * 64;
    Sums sums = {};
    if (top >= tile.rows) {
        multiply_tile<A_ALONG, B_ALONG, 0>(tile, shared, sums);
        return;
    }
    if (tile.cols - tile.col > WIDE / 2) {
        multiply_tile<A_ALONG, B_ALONG, WIDE>(tile, shared, sums);
    } else {
        multiply_tile<A_ALONG, B_ALONG, WIDE / 2>(tile, shared, sums);
    }
    u64 row = top + threadIdx.x % WARPGROUP / WARP * 16 + lane_of_warp() / 4;
    put_sums(sums, tile, row);
}

KERNEL(256, grouped_forward, const __grid_constant__ Groups groups, u32 count, const Number* x,
       u64 input, u64 output, const Number* base, float keep, float by, Number* y) {
    SHARED_BYTES(shared);
    Blend<Number> blend = {base, keep, by};
    auto tile = tile_of_rows<HIGH, WIDE, true>(groups, count, x, input, output, blend, y);
    multiply<true, true>(tile, shared);
}

KERNEL(256, grouped_backward_input, const __grid_constant__ Groups groups, u32 count,
       const Number* dy, u64 output, u64 input, const Number* base, float keep, float by,
       Number* dx) {
    SHARED_BYTES(shared);
    Blend<Number> blend = {base, keep, by};
    auto tile = tile_of_rows<HIGH, WIDE, false>(groups, count, dy, output, input, blend, dx);
    multiply<true, false>(tile, shared);
}

KERNEL(256, grouped_backward_weight, const __grid_constant__ Groups groups, u32 count,
       const Number* dy, u64 output, const Number* x, u64 input) {
    SHARED_BYTES(shared);
    auto tile = tile_of_weight<HIGH, WIDE>(groups, count, dy, output, x, input);
    multiply<false, false>(tile, shared);
}
