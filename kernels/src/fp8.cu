// Activations stored in FP8: codes of E4M3, and one F32 scale for each tile of 1 x 128.
//
//     scale[r, j] = max(max_i |x[r, 128 j + i]| / 448, 2^-126)
//     code[r, c]  = the number of E4M3 nearest to x[r, c] / scale[r, c / 128], of two the even one
//
// The bits are those of fp8.rs, which says what holds. Launch: a block of at most 256 threads, a
// multiple of 16, for each row; sixteen neighbours work on a tile, eight elements each.

const u32 LANES_OF_A_TILE = 16;
const u32 EXPONENT = 0xFFu << 23;
const u32 DROPPED = 20;
const u32 REBIASED = 120;
const u32 SMALLEST_NORMAL = (REBIASED + 1) << 23;

// The code of the nearest number, for at most 448 and an error of a division.
DEVICE u8 code_of(float x) {
    const u32 ORIGIN = (0u - ((REBIASED + 1 + DROPPED) << 3)) & 0xFF;
    u32 bits = __float_as_uint(x), power = bits & EXPONENT;
    power = (power < SMALLEST_NORMAL ? SMALLEST_NORMAL : power) + ((DROPPED << 23) | ORIGIN);
    float sum = __uint_as_float(bits & 0x7FFFFFFF) + __uint_as_float(power);
    u32 code = __float_as_uint(sum) + (power >> DROPPED);
    return (u8)(code | (bits >> 24 & 0x80));
}

// The number that a code stands for; exact.
DEVICE float value_of(u8 code) {
    u32 bits = code;
    float normal = __uint_as_float(((bits & 0x7F) << DROPPED) + (REBIASED << 23));
    float below = normal - __uint_as_float(SMALLEST_NORMAL);
    float magnitude = normal + (below < 0.0f ? below : 0.0f);
    float value = __uint_as_float(__float_as_uint(magnitude) | (bits & 0x80) << 24);
    return (bits & 0x7F) == 0x7F ? not_a_number() : value;
}

KERNEL(256, fp8_encode, const Number* x, u64 width, u8* codes, float* scales) {
    u64 row = blockIdx.x, tiles = (width + 127) / 128;
    u32 lane = threadIdx.x % LANES_OF_A_TILE;
    // All lanes of a warp go through the loop as often, since they meet in it.
    u64 rounds = (tiles * LANES_OF_A_TILE + blockDim.x - 1) / blockDim.x;
    for (u64 round = 0; round < rounds; ++round) {
        u64 tile = (round * blockDim.x + threadIdx.x) / LANES_OF_A_TILE;
        u64 c = tile * 128 + EIGHT * lane;
        u32 n = c < width ? at_most_eight(width - c) : 0;
        float v[EIGHT];
        load(x + row * width + c, n, v);
        u32 most = 0;
        for (u32 i = 0; i < EIGHT; ++i) {
            u32 magnitude = __float_as_uint(v[i]) & 0x7FFFFFFF;
            most = magnitude > most ? magnitude : most;
        }
        for (u32 apart = LANES_OF_A_TILE / 2; apart > 0; apart /= 2) {
            u32 other = __shfl_xor_sync(ALL_LANES, most, apart);
            most = other > most ? other : most;
        }
        bool is_finite = most < EXPONENT;
        float scale = __uint_as_float(most) / 448.0f;
        scale = scale < __uint_as_float(1u << 23) ? __uint_as_float(1u << 23) : scale;
        if (lane == 0 && tile < tiles) {
            scales[row * tiles + tile] = is_finite ? scale : not_a_number();
        }
        u64 packed = 0;
        for (u32 i = 0; i < EIGHT; ++i) {
            packed |= (u64)(is_finite ? code_of(v[i] / scale) : 0x7F) << (8 * i);
        }
        u8* to = codes + row * width + c;
        if (n == EIGHT && is_aligned(to, 8)) {
            *(u64*)to = packed;
        } else {
            for (u32 i = 0; i < n; ++i) to[i] = (u8)(packed >> (8 * i));
        }
    }
}

// x[r, c] = value(codes[r, c]) * scales[r, c / 128], rounded once.
KERNEL(256, fp8_decode, const u8* codes, const float* scales, u64 width, Number* x) {
    u64 row = blockIdx.x, tiles = (width + 127) / 128;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        const u8* from = codes + row * width + c;
        float scale = scales[row * tiles + c / 128], v[EIGHT];
        u32 n = at_most_eight(width - c);
        u64 packed = 0;
        if (n == EIGHT && is_aligned(from, 8)) {
            packed = *(const u64*)from;
        } else {
            for (u32 i = 0; i < n; ++i) packed |= (u64)from[i] << (8 * i);
        }
        for (u32 i = 0; i < EIGHT; ++i) v[i] = value_of((u8)(packed >> (8 * i))) * scale;
        store(v, x + row * width + c, n);
    }
}
