// Sums of squares whose bits do not depend on how a tensor is cut by rows; see squares.rs.

// Elements whose squares `squares_parts` sums in F32.
const u64 SQUARES_OF_A_PART = 4096;

// parts[p] = the sum of the squares of part p, in the order of squares.rs: sixteen partial sums
// that a fixed tree joins, so the bits are the CPU's. Each row has ceil(columns / 4096) parts, each
// piece `count`.
//
// Pieces: values. Launch: sixteen threads for each part, blocks of at most 256, the last one full
// as well, pieces along y.
KERNEL(256, squares_parts, const __grid_constant__ Pieces<1> pieces, u64 columns,
       u64 parts_of_row, u64 count, float* parts) {
    const float* values = (const float*)pieces.at[0][blockIdx.y];
    parts += blockIdx.y * count;
    u64 part = first_one() / 16;
    u32 lane = threadIdx.x % 16;
    float sum = 0.0f;
    if (part < count) {
        u64 from = part % parts_of_row * SQUARES_OF_A_PART;
        const float* row = values + part / parts_of_row * columns;
        u64 end = from + SQUARES_OF_A_PART < columns ? from + SQUARES_OF_A_PART : columns;
#pragma unroll 8
        for (u64 c = from + lane; c < end; c += 16) sum += row[c] * row[c];
    }
    sum = sum_of_lanes(sum, 16);
    if (part < count && lane == 0) parts[part] = sum;
}

// Adds `more` to the words from `at` on, lowest first, with carries.
DEVICE void carry(u64 (&words)[5], u32 at, u64 more) {
#pragma unroll
    for (u32 i = 0; i < 5; ++i) {
        u64 add = i < at ? 0 : more;
        words[i] += add;
        if (i >= at) more = words[i] < add ? 1 : 0;
    }
}

// words[0..5] = the sum of a piece's parts in units of 2^-149, lowest word first, as in squares.rs;
// words[5] = 1 if any was no finite number. Whole numbers, so their order does not matter.
//
// Launch: a block of 256 threads for each piece.
KERNEL(256, squares_join, const float* parts, u64 count, u64* words) {
    parts += blockIdx.x * count, words += 6 * blockIdx.x;
    __shared__ u64 all[256][5];
    u64 own[5] = {};
    bool is_broken = false;
    for (u64 i = threadIdx.x; i < count; i += blockDim.x) {
        u32 bits = __float_as_uint(parts[i]), exponent = bits >> 23 & 0xFF;
        is_broken |= exponent == 0xFF;
        u64 mantissa = (bits & 0x7FFFFF) | (exponent == 0 ? 0 : 0x800000);
        u32 shift = exponent == 0xFF ? 0 : (exponent == 0 ? 0 : exponent - 1);
        mantissa = exponent == 0xFF ? 0 : mantissa;
        u32 within = shift % 64;
        carry(own, shift / 64, mantissa << within);
        carry(own, shift / 64 + 1, within == 0 ? 0 : mantissa >> (64 - within));
    }
    for (u32 i = 0; i < 5; ++i) all[threadIdx.x][i] = own[i];
    is_broken = __syncthreads_or(is_broken);
    if (threadIdx.x != 0) return;
    for (u32 other = 1; other < blockDim.x; ++other) {
        for (u32 i = 0; i < 5; ++i) carry(own, i, all[other][i]);
    }
    for (u32 i = 0; i < 5; ++i) words[i] = own[i];
    words[5] = is_broken;
}
