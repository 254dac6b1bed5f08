// Tiles of attention in shared memory for products of warpgroups, and copies into them.
//
// A tile is panels of 64 columns behind each other, a panel a line of 128 bytes for each row. So
// its rows are a factor along the depth, and its columns one across it. Columns are padded with
// zeros to a width that an instruction has.

const u32 PANEL = 64;
const u32 KEY_DEPTH = KEY <= 128 ? (KEY + 31) / 32 * 32 : 192;
const u32 VALUE_DEPTH = (VALUE + 31) / 32 * 32;

// Rows of a block's own tile, 64 of each of its two warpgroups.
const u32 OWN = 128;
const u32 THREADS = 2 * WARPGROUP;

// Whether groups of eight numbers are aligned in all rows of all tensors.
const bool IS_WHOLE = NOPE % 8 == 0 && ROPE % 8 == 0 && VALUE % 8 == 0;

// Numbers of a tile.
DEVICE constexpr u32 size_of_tile(u32 rows, u32 columns) {
    return (columns + PANEL - 1) / PANEL * PANEL * rows;
}

template <u32 ROWS> DEVICE u8* place_in(Number* tile, u32 row, u32 column) {
    return (u8*)(tile + column / PANEL * PANEL * ROWS) + swizzled(row, column % PANEL * 2);
}

// The rows of a tile as a factor, with their columns from k on along the depth.
template <u32 ROWS> DEVICE u64 rows_of(const Number* tile, u32 k) {
    return factor_along(tile + k / PANEL * PANEL * ROWS, k % PANEL);
}

// The columns of a tile as a factor, with its rows from k on along the depth.
template <u32 ROWS> DEVICE u64 columns_of(const Number* tile, u32 k) {
    return factor_across(tile, k, ROWS);
}

// The rows of a tile that are this warpgroup's.
DEVICE const Number* own_rows(const Number* tile) {
    return tile + threadIdx.x / WARPGROUP * 64 * PANEL;
}

// The first of this thread's two rows in the block's own tile; the other is eight below.
DEVICE u32 own_row() {
    return threadIdx.x / WARP * 16 + lane_of_warp() / 4;
}

// The column of element i of this thread's eight columns from 8 tile on.
DEVICE u32 own_column(u32 tile, u32 i) {
    return 8 * tile + lane_of_warp() % 4 * 2 + i % 2;
}

// Begins s = the rows of this warpgroup times those of another tile, and ends the group.
template <u32 DEPTH, u32 OTHER>
DEVICE void multiply_by_rows(const Number* own, const Number* other, float (&s)[OTHER / 8][4]) {
#pragma unroll
    for (u32 k = 0; k < DEPTH; k += 16) {
        u64 a = rows_of<OWN>(own, k), b = rows_of<OTHER>(other, k);
        multiply_factors<false, false>(s, a, b, k > 0);
    }
    end_group_of_products();
}

// Begins sums += this thread's rows of shares times the columns of a tile, and ends the group.
template <u32 ROWS, u32 N>
DEVICE void multiply_by_columns(const u32 (&shares)[ROWS / 16][4], const Number* tile,
                                float (&sums)[N][4]) {
#pragma unroll
    for (u32 k = 0; k < ROWS; k += 16) {
        multiply_rows_by<true>(sums, shares[k / 16], columns_of<ROWS>(tile, k));
    }
    end_group_of_products();
}

// Rounds what this thread has of scores to the left factor of a product.
template <u32 N> DEVICE void round_to_factor(const float (&s)[2 * N][4], u32 (&shares)[N][4]) {
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            const float(&from)[4] = s[2 * i + j / 2];
            shares[i][j] = pair_of(from[j % 2 * 2], from[j % 2 * 2 + 1]);
        }
    }
}

// Begins to bring the columns BEGIN .. END of ROWS rows into a tile, of which WIDTH are those of
// `from` in its rows from `first` on; the others, and rows from `limit` on, are zero.
//
// A thread has the same columns of every few rows: eight, or pairs, which are written at once.
template <u32 ROWS, u32 BEGIN, u32 END, u32 WIDTH>
DEVICE void load_columns(const Number* from, u64 apart, u64 first, u64 limit, Number* tile) {
    const u32 STEP = IS_WHOLE ? 8 : 2, STEPS = (END - BEGIN) / STEP;
    const u32 AT_A_TIME = THREADS / at_least_one(STEPS);
    u32 own = threadIdx.x / at_least_one(STEPS), c = threadIdx.x % at_least_one(STEPS) * STEP;
    if (STEPS == 0 || own >= AT_A_TIME) return;
    u32 rows = first + ROWS < limit ? ROWS : first < limit ? (u32)(limit - first) : 0;
    u32 there = c < WIDTH ? at_most_eight(WIDTH - c) : 0;
    // Uniform, and so are the registers that it stands in; a tile's rows lie within 4 GiB.
    const u8* tile_from = (const u8*)(from + first * apart);
    u32 apart_bytes = (u32)apart * (u32)sizeof(Number);
    u32 offset = own * apart_bytes + c * (u32)sizeof(Number);
#pragma unroll IS_WHOLE ? ROWS : 1
    for (u32 begin = 0; begin < ROWS; begin += AT_A_TIME) {
        u32 row = begin + own, n = row < rows ? there : 0;
        if (ROWS % AT_A_TIME != 0 && row >= ROWS) return;
        u8* to = place_in<ROWS>(tile, row, BEGIN + c);
        const Number* source = (const Number*)(tile_from + offset);
        if (IS_WHOLE) {
            copy_soon(to, source, 2 * n);
        } else {
            u32 low = n > 0 ? source[0].bits : 0, high = n > 1 ? source[1].bits : 0;
            put_in_factor(to, low | high << 16);
        }
        offset += AT_A_TIME * apart_bytes;
    }
}

template <u32 ROWS> DEVICE void load_queries(const Head& x, u64 first, Number* tile) {
    load_columns<ROWS, 0, NOPE, NOPE>(x.q, x.q_apart, first, x.sequence, tile);
    load_columns<ROWS, NOPE, KEY_DEPTH, ROPE>(x.q_rope, x.q_apart, first, x.sequence, tile);
}

template <u32 ROWS> DEVICE void load_keys(const Head& x, u64 first, Number* tile) {
    load_columns<ROWS, 0, NOPE, NOPE>(x.kv, x.kv_apart, first, x.sequence, tile);
    load_columns<ROWS, NOPE, KEY_DEPTH, ROPE>(x.k_rope, ROPE, first, x.sequence, tile);
}

template <u32 ROWS> DEVICE void load_values(const Head& x, u64 first, Number* tile) {
    const Number* values = x.kv + NOPE;
    load_columns<ROWS, 0, VALUE_DEPTH, VALUE>(values, x.kv_apart, first, x.sequence, tile);
}

// Waits for all copies and shows the tiles to all threads and their products.
DEVICE void meet_with_tiles() {
    wait_for_copies<0>();
    show_to_products();
    __syncthreads();
}

// Whether all rows of y, dy and kv begin at pairs, as those of q do.
const bool IS_EVEN = VALUE % 2 == 0;

// Writes two neighbours, the first at an even column, of a row of WIDTH numbers, if they exist.
template <u32 WIDTH, bool IS_PAIR>
DEVICE void put_pair(float low, float high, u32 column, Number* row) {
    if (IS_PAIR) {
        if (column < WIDTH) *(u32*)(row + column) = pair_of(low, high);
        return;
    }
    if (column < WIDTH) row[column] = nearest<Number>(low);
    if (column + 1 < WIDTH) row[column + 1] = nearest<Number>(high);
}
