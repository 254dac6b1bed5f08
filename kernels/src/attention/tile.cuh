// Tiles of attention in shared memory, and products of them by warps.
//
// A row in shared memory is padded with zeros to a multiple of 32 numbers, the depth of products,
// and by 16 bytes, so that the rows that a matrix load touches lie in different banks.
//
// A warp multiplies 16 rows at a time; what a thread holds of a product is said in fragments.cuh.

const u32 KEY_DEPTH = (KEY + 31) / 32 * 32;
const u32 VALUE_DEPTH = (VALUE + 31) / 32 * 32;
const u32 PADDING = 16 / sizeof(Number);
const u32 KEY_STRIDE = KEY_DEPTH + PADDING;
const u32 VALUE_STRIDE = VALUE_DEPTH + PADDING;

// Rows of a block's own tile, and of the tiles it goes through.
const u32 OWN = 64;
const u32 OTHER = sizeof(Number) == 2 ? 64 : 32;
const u32 SCORE_STRIDE = OTHER + PADDING;

// c[16, 8 TILES] += a[16, DEPTH] b, all in shared memory, a warp's, on tensor cores.
//
// If TURNED, the columns of the product are the rows of b [8 TILES, DEPTH]; if not, b is
// [DEPTH, 8 TILES]. TILES is even, DEPTH a multiple of 16.
template <u32 DEPTH, u32 TILES, bool TURNED>
DEVICE void multiply(const Bf16* a, u32 a_stride, const Bf16* b, u32 b_stride,
                     float (&c)[TILES][4]) {
    u32 lane = lane_of_warp();
    const Bf16* a_row = a + lane % 16 * a_stride + lane / 16 * 8;
    const Bf16* b_row = TURNED ? b + (lane / 16 * 8 + lane % 8) * b_stride + lane / 8 % 2 * 8
                               : b + lane % 16 * b_stride + lane / 16 * 8;
#pragma unroll 2
    for (u32 k = 0; k < DEPTH; k += 16) {
        u32 left[4];
        load_matrices(a_row + k, left);
#pragma unroll
        for (u32 tile = 0; tile < TILES; tile += 2) {
            u32 right[4];
            if (TURNED) {
                load_matrices(b_row + tile * 8 * b_stride + k, right);
            } else {
                load_matrices_turned(b_row + k * b_stride + tile * 8, right);
            }
            multiply_fragments(c[tile], left, right[0], right[1]);
            multiply_fragments(c[tile + 1], left, right[2], right[3]);
        }
    }
}

// The same in F32, without tensor cores, which would round to 10 bits.
template <u32 DEPTH, u32 TILES, bool TURNED>
DEVICE void multiply(const float* a, u32 a_stride, const float* b, u32 b_stride,
                     float (&c)[TILES][4]) {
    u32 lane = lane_of_warp();
    const float *top = a + lane / 4 * a_stride, *bottom = top + 8 * a_stride;
    u32 next = TURNED ? b_stride : 1, deeper = TURNED ? 1 : b_stride;
    const float* right = b + lane % 4 * 2 * next;
#pragma unroll 2
    for (u32 k = 0; k < DEPTH; ++k) {
        float above = top[k], below = bottom[k];
#pragma unroll
        for (u32 tile = 0; tile < TILES; ++tile) {
            const float* at = right + tile * 8 * next + k * deeper;
            float first = at[0], second = at[next];
            c[tile][0] = fmaf(above, first, c[tile][0]);
            c[tile][1] = fmaf(above, second, c[tile][1]);
            c[tile][2] = fmaf(below, first, c[tile][2]);
            c[tile][3] = fmaf(below, second, c[tile][3]);
        }
    }
}

// Copies `n` numbers, at most eight, as they are; `there` of them exist, the others are zero.
DEVICE void copy_eight(const Number* from, u32 there, Number* to, u32 n) {
    if (n == EIGHT && there == EIGHT && is_aligned(from, 16) && is_aligned(to, 16)) {
#pragma unroll
        for (u32 i = 0; i < sizeof(Number) / 2; ++i) ((uint4*)to)[i] = ((const uint4*)from)[i];
        return;
    }
    for (u32 i = 0; i < n; ++i) to[i] = i < there ? from[i] : nearest<Number>(0.0f);
}

// Rows of a matrix [limit, WIDTH] from row `first` on, zeros after its end, into shared memory.
template <u32 ROWS, u32 WIDTH, u32 STRIDE>
DEVICE void load_rows(const Number* from, u64 apart, u64 first, u64 limit, Number* to) {
    const u32 GROUPS = (WIDTH + 7) / 8;
    for (u32 i = threadIdx.x; i < ROWS * GROUPS; i += blockDim.x) {
        u32 row = i / at_least_one(GROUPS), c = i % at_least_one(GROUPS) * 8;
        u32 n = at_most_eight(WIDTH - c);
        u32 there = first + row < limit ? n : 0;
        const Number* source = from + (there == 0 ? 0 : (first + row) * apart + c);
        copy_eight(source, there, to + row * STRIDE + c, n);
    }
}

// As `load_rows` for ROPE columns, each row turned as its position asks and rounded, as rope.cu.
template <u32 ROWS>
DEVICE void load_turned(const Number* from, u64 apart, u64 first, u64 limit, const float2* turns,
                        Number* to) {
    const u32 GROUPS = (ROPE + 7) / 8;
    for (u32 i = threadIdx.x; i < ROWS * GROUPS; i += blockDim.x) {
        u32 row = i / at_least_one(GROUPS), c = i % at_least_one(GROUPS) * 8;
        u32 n = at_most_eight(ROPE - c);
        bool is_there = first + row < limit;
        float x[EIGHT];
        load(from + (is_there ? (first + row) * apart + c : 0), is_there ? n : 0, x);
        for (u32 j = 0; j < n && is_there; j += 2) {
            float2 turn = turns[(first + row) * (ROPE / 2) + (c + j) / 2];
            float a = x[j], b = x[j + 1];
            x[j] = a * turn.x - b * turn.y;
            x[j + 1] = a * turn.y + b * turn.x;
        }
        store(x, to + row * KEY_STRIDE + c, n);
    }
}

// Clears the columns WIDTH .. DEPTH of some rows.
template <u32 ROWS, u32 WIDTH, u32 DEPTH, u32 STRIDE> DEVICE void clear_padding(Number* to) {
    const u32 LEFT = DEPTH - WIDTH;
    for (u32 i = threadIdx.x; i < ROWS * LEFT; i += blockDim.x) {
        u32 row = i / at_least_one(LEFT), c = WIDTH + i % at_least_one(LEFT);
        to[row * STRIDE + c] = nearest<Number>(0.0f);
    }
}

// Queries whose rotary part is not turned yet.
template <u32 ROWS> DEVICE void load_and_turn_queries(const Head& x, u64 first, Number* to) {
    load_rows<ROWS, NOPE, KEY_STRIDE>(x.q, x.q_apart, first, x.sequence, to);
    load_turned<ROWS>(x.q + NOPE, x.q_apart, first, x.sequence, x.turns, to + NOPE);
}

template <u32 ROWS> DEVICE void load_queries(const Head& x, u64 first, Number* to) {
    load_rows<ROWS, NOPE, KEY_STRIDE>(x.q, x.q_apart, first, x.sequence, to);
    load_rows<ROWS, ROPE, KEY_STRIDE>(x.q_rope, x.q_apart, first, x.sequence, to + NOPE);
}

template <u32 ROWS> DEVICE void load_keys(const Head& x, u64 first, Number* to) {
    load_rows<ROWS, NOPE, KEY_STRIDE>(x.kv, x.kv_apart, first, x.sequence, to);
    load_rows<ROWS, ROPE, KEY_STRIDE>(x.k_rope, ROPE, first, x.sequence, to + NOPE);
}

template <u32 ROWS> DEVICE void load_values(const Head& x, u64 first, Number* to) {
    load_rows<ROWS, VALUE, VALUE_STRIDE>(x.kv + NOPE, x.kv_apart, first, x.sequence, to);
}
