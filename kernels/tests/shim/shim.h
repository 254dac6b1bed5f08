// What CUDA brings along, as C++: enough to run the kernels of kernels/src on a CPU.
//
// This is no GPU and says nothing about speed. Barriers, shuffles, matrix loads and mma follow the
// CUDA C++ Programming Guide and the PTX ISA.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#define TROUPE_SHIM 1
#define __device__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __grid_constant__

struct uint3 {
    uint32_t x, y, z;
};

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

struct alignas(8) float2 {
    float x, y;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

static inline float2 make_float2(float x, float y) {
    return {x, y};
}

static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

static inline uint32_t __float_as_uint(float x) {
    uint32_t y;
    memcpy(&y, &x, 4);
    return y;
}

static inline float __uint_as_float(uint32_t x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}

static inline int __popc(uint32_t x) {
    return __builtin_popcount(x);
}

static inline int __ffs(uint32_t x) {
    return __builtin_ffs((int)x);
}

#include "watched.h"
#include "block.h"
#include "warpgroup.h"

namespace shim {

// Copies words: ThreadSanitizer is told nothing of the C library's functions, and forgets single
// bytes when eight of them have been touched.
static inline void copy_bytes(void* to, const void* from, size_t bytes) {
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) memcpy((char*)to + i, (const char*)from + i, 8);
    for (; i < bytes; ++i) ((volatile char*)to)[i] = ((const char*)from)[i];
}

static inline void fill_bytes(void* to, uint8_t value, size_t bytes) {
    uint64_t word = value * 0x0101010101010101ull;
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) memcpy((char*)to + i, &word, 8);
    for (; i < bytes; ++i) ((volatile uint8_t*)to)[i] = value;
}

UNWATCHED void rows_of_lanes(const void* mine, uint64_t (&rows)[WARP]) {
    uint64_t* all = open_slots((uint64_t)mine);
    for (uint32_t i = 0; i < WARP; ++i) rows[i] = all[i];
    close_slots();
}

// PTX ISA, ldmatrix .x4, with .trans or without.
inline void load_matrices(const void* row, uint32_t (&to)[4], bool is_turned) {
    if ((uintptr_t)row % 16 != 0) fail("ldmatrix of a row that is not aligned");
    uint64_t rows[WARP];
    rows_of_lanes(row, rows);
    uint32_t group = lane() / 4, pair = lane() % 4 * 2;
    for (uint32_t i = 0; i < 4; ++i) {
        auto at = [&](uint32_t r, uint32_t c) { return (uint32_t)((uint16_t*)rows[8 * i + r])[c]; };
        to[i] = is_turned ? at(pair, group) | at(pair + 1, group) << 16
                          : at(group, pair) | at(group, pair + 1) << 16;
    }
}

UNWATCHED float half_of(uint32_t word, uint32_t which) {
    return __uint_as_float(which == 0 ? word << 16 : word & 0xFFFF0000u);
}

// PTX ISA, mma.m16n8k16 with factors of BF16; sums here are exact and rounded once.
UNWATCHED void multiply_fragments(float (&c)[4], const uint32_t (&a)[4], uint32_t b_low,
                               uint32_t b_high) {
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b_low, b_high};
    uint64_t* lanes = open_slots((uint64_t)mine);
    for (uint32_t i = 0; i < 4; ++i) {
        uint32_t row = lane() / 4 + i / 2 * 8, col = lane() % 4 * 2 + i % 2;
        double sum = c[i];
        for (uint32_t k = 0; k < 16; ++k) {
            const uint32_t* left = (const uint32_t*)lanes[row % 8 * 4 + k % 8 / 2];
            const uint32_t* right = (const uint32_t*)lanes[col * 4 + k % 8 / 2];
            sum += (double)half_of(left[row / 8 + k / 8 * 2], k % 2) *
                   (double)half_of(right[4 + k / 8], k % 2);
        }
        c[i] = (float)sum;
    }
    close_slots();
}

// PTX ISA, cp.async of 16 bytes. What is to be overwritten is lost at once and the bytes arrive at
// the wait, so a copy into what others still read, and a read before the wait, are both seen.
inline void copy_soon(void* to, const void* from, uint32_t there) {
    if ((uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0) fail("cp.async is not aligned");
    if (16 < there) fail("cp.async of more than 16 bytes");
    fill_bytes(to, 0xFF, 16);
    Self& own = self();
    own.copies.push_back({(uint8_t*)to, (const uint8_t*)from, there, own.copy_groups});
}

inline void end_group_of_copies() {
    ++self().copy_groups;
}

inline void wait_for_copies(uint32_t latest) {
    Self& own = self();
    size_t done = 0;
    while (done < own.copies.size() && own.copies[done].group + latest < own.copy_groups) {
        const Copy& copy = own.copies[done++];
        fill_bytes(copy.to, 0, 16);
        copy_bytes(copy.to, copy.from, copy.there);
        written_to_factor(copy.to);
    }
    own.copies.erase(own.copies.begin(), own.copies.begin() + done);
}

}  // namespace shim

#define threadIdx (shim::self().thread)
#define blockIdx (shim::self().block)
#define blockDim (shim::self().block_dim)
#define gridDim (shim::self().grid_dim)

#define KERNEL(threads, name, ...)                              \
    static void name(__VA_ARGS__);                              \
    extern "C" shim::Work* prepare_##name(void** arguments) {   \
        return shim::prepare(threads, name, arguments);         \
    }                                                           \
    static void name(__VA_ARGS__)
#define SHARED_BYTES(name) u8* name = shim::self().all->shared

static inline void __syncthreads() {
    shim::self().all->barrier.wait();
}

static inline int __syncthreads_or(int vote) {
    shim::Self& self = shim::self();
    self.all->votes[self.index] = vote != 0;
    __syncthreads();
    int any = 0;
    for (uint32_t i = 0; i < self.threads; ++i) any |= self.all->votes[i];
    __syncthreads();
    return any;
}

static inline void __syncwarp() {
    shim::self().warp->barrier.wait();
}

template <typename T> T __shfl_xor_sync(uint32_t, T mine, uint32_t apart) {
    return shim::from_lane(mine, shim::lane() ^ apart);
}

UNWATCHED uint32_t __ballot_sync(uint32_t, bool vote) {
    uint64_t* slots = shim::open_slots(vote);
    uint32_t votes = 0;
    for (uint32_t i = 0; i < shim::WARP; ++i) votes |= (uint32_t)(slots[i] != 0) << i;
    shim::close_slots();
    return votes;
}
