// What all CUDA sources are written in; it stands before each of them when it is compiled.
//
// No header is included, so that NVRTC needs its library alone. The same text is C++ under the
// shim of the tests (`kernels/tests/shim`), which defines TROUPE_SHIM and what CUDA brings along.
//
// A source is compiled once for each format of activations: `Number` is F32, or BF16 where
// NUMBER_BF16 is defined. Arithmetic is in F32 whatever the format. Products and sums are not
// contracted by the compiler (`--fmad=false`), so that elementwise kernels have the bits of their
// CPU twins; where speed asks for it, `fmaf` is written out.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__

// A kernel that at most so many threads of a block run.
#ifndef TROUPE_SHIM
#define KERNEL(threads, name, ...) \
    extern "C" __global__ void __launch_bounds__(threads, 1) name(__VA_ARGS__)
#define SHARED_BYTES(name) extern __shared__ __align__(1024) u8 name[]
#endif

// Number of BF16: the upper half of an F32.
struct Bf16 {
    u16 bits;
};

#ifdef NUMBER_BF16
typedef Bf16 Number;
#else
typedef float Number;
#endif

// The value; exact.
DEVICE float wide(float x) {
    return x;
}

DEVICE float wide(Bf16 x) {
    return __uint_as_float((u32)x.bits << 16);
}

// Writes the nearest number of the format, of two the even one.
DEVICE void round_to(float x, float& y) {
    y = x;
}

DEVICE void round_to(float x, Bf16& y) {
#ifdef TROUPE_SHIM
    u32 bits = __float_as_uint(x);
    y.bits = x != x ? 0x7FFF : (u16)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#endif
}

// The nearest number of a format.
template <typename N> DEVICE N nearest(float x) {
    N y;
    round_to(x, y);
    return y;
}

// Elements that a thread works on at a time: one access of 16 bytes in BF16, two in F32.
const u32 EIGHT = 8;

DEVICE bool is_aligned(const void* at, u32 bytes) {
    return (u64)at % bytes == 0;
}

DEVICE u32 at_most_eight(u64 left) {
    return left < EIGHT ? (u32)left : EIGHT;
}

// Reads the `n` numbers at `from`, at most eight; what is missing is zero.
DEVICE void load(const float* from, u32 n, float (&to)[EIGHT]) {
    if (n == EIGHT && is_aligned(from, 16)) {
        float4 low = ((const float4*)from)[0], high = ((const float4*)from)[1];
        to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
        to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
        return;
    }
#pragma unroll
    for (u32 i = 0; i < EIGHT; ++i) to[i] = i < n ? from[i] : 0.0f;
}

DEVICE void load(const Bf16* from, u32 n, float (&to)[EIGHT]) {
    if (n == EIGHT && is_aligned(from, 16)) {
        uint4 all = *(const uint4*)from;
        u32 pairs[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            to[2 * i] = __uint_as_float(pairs[i] << 16);
            to[2 * i + 1] = __uint_as_float(pairs[i] & 0xFFFF0000u);
        }
        return;
    }
#pragma unroll
    for (u32 i = 0; i < EIGHT; ++i) to[i] = i < n ? wide(from[i]) : 0.0f;
}

// Two numbers of BF16 side by side, the first in the lower half.
DEVICE u32 pair_of(float low, float high) {
#ifdef TROUPE_SHIM
    return nearest<Bf16>(low).bits | (u32)nearest<Bf16>(high).bits << 16;
#else
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

// Writes the first `n` numbers to `to`, each rounded to its format.
DEVICE void store(const float (&from)[EIGHT], float* to, u32 n) {
    if (n == EIGHT && is_aligned(to, 16)) {
        ((float4*)to)[0] = make_float4(from[0], from[1], from[2], from[3]);
        ((float4*)to)[1] = make_float4(from[4], from[5], from[6], from[7]);
        return;
    }
#pragma unroll
    for (u32 i = 0; i < EIGHT; ++i) {
        if (i < n) to[i] = from[i];
    }
}

DEVICE void store(const float (&from)[EIGHT], Bf16* to, u32 n) {
    if (n == EIGHT && is_aligned(to, 16)) {
        uint4 all = {pair_of(from[0], from[1]), pair_of(from[2], from[3]),
                     pair_of(from[4], from[5]), pair_of(from[6], from[7])};
        *(uint4*)to = all;
        return;
    }
#pragma unroll
    for (u32 i = 0; i < EIGHT; ++i) {
        if (i < n) to[i] = nearest<Bf16>(from[i]);
    }
}

// The first element of this thread, in groups of eight, where a grid goes through all elements.
DEVICE u64 first_eight() {
    return EIGHT * ((u64)blockIdx.x * blockDim.x + threadIdx.x);
}

// From one group of eight of this thread to its next.
DEVICE u64 eights_apart() {
    return EIGHT * (u64)gridDim.x * blockDim.x;
}

// What a launch goes through at most at a time, and where the pieces lie: each of one length, and
// WAYS addresses of what a kernel reads and writes of it. A piece has the bits that it has alone.
const u32 PIECES = 64;

template <u32 WAYS> struct Pieces {
    void* at[WAYS][PIECES];
};

// The first element of this thread, and from one to its next, where each takes one at a time.
DEVICE u64 first_one() {
    return (u64)blockIdx.x * blockDim.x + threadIdx.x;
}

DEVICE u64 ones_apart() {
    return (u64)gridDim.x * blockDim.x;
}

const u32 WARP = 32;
const u32 ALL_LANES = 0xFFFFFFFFu;

// Joins the values of `lanes` neighbours (a power of two); each gets the result, in the same bits.
DEVICE float sum_of_lanes(float x, u32 lanes) {
    for (u32 apart = lanes / 2; apart > 0; apart /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, apart);
    }
    return x;
}

DEVICE float largest_of_lanes(float x, u32 lanes) {
    for (u32 apart = lanes / 2; apart > 0; apart /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, x, apart);
        x = other > x ? other : x;
    }
    return x;
}

// Sum over the block, a whole number of warps, in a fixed order; every thread gets it.
DEVICE float sum_of_block(float x) {
    __shared__ float parts[WARP];
    x = sum_of_lanes(x, WARP);
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0.0f;
    for (u32 warp = 0; warp < blockDim.x / WARP; ++warp) sum += parts[warp];
    return sum;
}

DEVICE float largest_of_block(float x) {
    __shared__ float parts[WARP];
    x = largest_of_lanes(x, WARP);
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
    __syncthreads();
    float largest = parts[0];
    for (u32 warp = 1; warp < blockDim.x / WARP; ++warp) {
        largest = parts[warp] > largest ? parts[warp] : largest;
    }
    return largest;
}

DEVICE float infinity() {
    return __uint_as_float(0x7F800000u);
}

DEVICE float not_a_number() {
    return __uint_as_float(0x7FFFFFFFu);
}

// `e^x` with the fused steps, and so the bits, of `exp.rs`: 0 below -87.7, infinity above 88.4.
DEVICE float exponential(float x) {
    const float LARGEST = 89.0f, SMALLEST = -88.0f, ROUNDER = 12582912.0f;
    x = x > LARGEST ? LARGEST : x;
    x = x < SMALLEST ? SMALLEST : x;
    float shifted = fmaf(x, 1.44269504f, ROUNDER);
    float n = shifted - ROUNDER;
    float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, x));
    float p = 1.987569150e-4f;
    p = fmaf(r, p, 1.3981999507e-3f);
    p = fmaf(r, p, 8.3334519073e-3f);
    p = fmaf(r, p, 4.1665795894e-2f);
    p = fmaf(r, p, 1.6666665459e-1f);
    p = fmaf(r, p, 5.0000001201e-1f);
    // Of -127 and of 128 the exponent is that of zero and of infinity.
    float power = __uint_as_float((__float_as_uint(shifted) + 127) << 23);
    return (fmaf(p * r, r, r) + 1.0f) * power;
}

// `1 / (1 + e^-x)`.
DEVICE float sigmoid(float x) {
    return 1.0f / (1.0f + exponential(-x));
}
