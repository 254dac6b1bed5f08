// What warpgroups multiply with: products on Hopper's tensor cores that read their factors out of
// shared memory while the threads go on (PTX ISA, "Asynchronous Warpgroup Level Matrix
// Multiply-Accumulate Instructions"; sm_90a).
//
// A warpgroup is four warps; its first thread is a multiple of 128. Of a product [64, N] its warp w
// has the rows 16 w .. 16 w + 15, and a thread holds of them what fragments.cuh says: sums[i] are
// those of the eight columns from 8 i on.
//
// A factor lies in shared memory in lines of 128 bytes, 64 numbers, and blocks of eight lines, each
// at a multiple of 1,024 bytes; within a line the groups of 16 bytes change places (`swizzled`), so
// that neither lines nor columns of groups meet in a bank. Lines go along the depth, or across it.
//
// Order: write the factors; `show_to_products`; a barrier; `open_products`; products;
// `end_group_of_products`; and `wait_for_products` before sums are touched or factors overwritten.

// Threads of a warpgroup, and bytes of a line.
const u32 WARPGROUP = 128;
const u32 LINE = 128;

// Where 16 bytes lie in lines of shared memory: those at `column`, a multiple of 16, of a line.
DEVICE u32 swizzled(u32 line, u32 column) {
    return line * LINE + (column ^ line % 8 * 16);
}

// What the tensor cores are told of a factor: where it begins, in 16 bytes, from one block of 64
// across the depth to the next, from one block of eight lines to the next, and how it is swizzled
// (PTX ISA, "Matrix Descriptor").
DEVICE u64 factor_at(const Bf16* at, u32 next_64) {
#ifdef TROUPE_SHIM
    u32 address = shim::shared_address(at);
#else
    u32 address = (u32)__cvta_generic_to_shared(at);
#endif
    const u64 SWIZZLE_128 = (u64)1 << 62;
    u64 across = (u64)(next_64 / 16) << 16, blocks = (u64)(8 * LINE / 16) << 32;
    return SWIZZLE_128 | blocks | across | address / 16;
}

// A factor whose lines go along the depth, line i that of row or column i of the product; `k` is
// the first number of the depth, a multiple of 16 below 64.
DEVICE u64 factor_along(const Bf16* lines, u32 k) {
    return factor_at(lines, 16) + k / 8;
}

// A factor whose lines go across the depth, line k at depth k, `deep` lines for each 64 rows or
// columns of the product, which lie behind each other; `k` is the first line, a multiple of 16.
DEVICE u64 factor_across(const Bf16* lines, u32 k, u32 deep) {
    return factor_at(lines, deep * LINE) + k * (LINE / 16);
}

// Shows this thread's writes to shared memory to products; a barrier has to follow.
DEVICE void show_to_products() {
#ifdef TROUPE_SHIM
    shim::show_to_products();
#else
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
#endif
}

// Writes 16 bytes of a factor.
DEVICE void put_in_factor(u8* to, uint4 x) {
    *(uint4*)to = x;
#ifdef TROUPE_SHIM
    shim::written_to_factor(to);
#endif
}

// Writes two neighbours of a factor.
DEVICE void put_in_factor(u8* to, u32 pair) {
    *(u32*)to = pair;
#ifdef TROUPE_SHIM
    shim::written_to_factor(to);
#endif
}

// Lets products read the registers that have been written: sums, and factors in registers.
DEVICE void open_products() {
#ifdef TROUPE_SHIM
    shim::open_products();
#else
    asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
#endif
}

// Makes one group of all products that have been begun since the last one.
DEVICE void end_group_of_products() {
#ifdef TROUPE_SHIM
    shim::end_group_of_products();
#else
    asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
#endif
}

// Waits for this warpgroup's products, but for its LATEST groups.
template <u32 LATEST> DEVICE void wait_for_products() {
#ifdef TROUPE_SHIM
    shim::wait_for_products(LATEST);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(LATEST) : "memory");
#endif
}

// Holds the waits below back until x is known: ptxas would put them before all that is to be
// computed meanwhile.
DEVICE void hold_waits_back_for(float x) {
#ifdef TROUPE_SHIM
    (void)x;
#else
    asm volatile("{.reg .pred known; .reg .f32 size; .reg .u32 lanes; abs.f32 size, %0; "
                 "setp.geu.f32 known, size, 0f00000000; "
                 "vote.sync.ballot.b32 lanes, known, 0xFFFFFFFF; bar.warp.sync lanes;}"
                 :
                 : "f"(x)
                 : "memory");
#endif
}

template <u32 N> DEVICE void hold_waits_back_for(const float (&all)[N][4]) {
    u32 bits = 0;
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) bits |= __float_as_uint(all[i][j]);
    }
    hold_waits_back_for(__uint_as_float(bits));
}

// Keeps the compiler from reading or writing sums before what stands above: it takes them for done
// when a product begins.
template <u32 N> DEVICE void keep_in_place(float (&sums)[N][4]) {
#ifdef TROUPE_SHIM
    (void)sums;
#else
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) asm volatile("" : "+f"(sums[i][j]) : : "memory");
    }
#endif
}

// The same for a factor in registers: nothing else takes its place while it is read.
template <u32 N> DEVICE void keep_in_place(u32 (&factors)[N][4]) {
#ifdef TROUPE_SHIM
    (void)factors;
#else
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) asm volatile("" : "+r"(factors[i][j]) : : "memory");
    }
#endif
}

// The operands of the instruction: names of so many registers, and the registers.
#ifndef TROUPE_SHIM
#define NAMES_16 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES_32 \
    NAMES_16 ", " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_48 \
    NAMES_32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define NAMES_64 \
    NAMES_48 ", " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_96 \
    NAMES_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
    "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define NAMES_128 \
    NAMES_96 ", " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, " \
    "%111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, " \
    "%126, %127"
#define SUMS_4(c, i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define SUMS_16(c, i) SUMS_4(c, i), SUMS_4(c, i + 1), SUMS_4(c, i + 2), SUMS_4(c, i + 3)
#define SUMS_32(c, i) SUMS_16(c, i), SUMS_16(c, i + 4)
#define SUMS_48(c, i) SUMS_32(c, i), SUMS_16(c, i + 8)
#define SUMS_64(c, i) SUMS_32(c, i), SUMS_32(c, i + 8)
#define SUMS_96(c, i) SUMS_64(c, i), SUMS_32(c, i + 16)
#define SUMS_128(c, i) SUMS_64(c, i), SUMS_64(c, i + 16)
#endif

// Begins sums[64, N] += a[64, 16] b[16, N], with both factors in shared memory, or with this
// thread's part of the left one in registers, in the layout of multiply_fragments. If not
// `is_added`, a constant, sums begin with this product, whatever they were.
#ifdef TROUPE_SHIM
#define PRODUCT(width, registers, a0, a1, a2, a3, a4, a5)                                     \
    template <bool A_ACROSS, bool B_ACROSS>                                                   \
    DEVICE void multiply_factors(float (&sums)[width / 8][4], u64 a, u64 b,                   \
                                 bool is_added = true) {                                      \
        shim::multiply_factors(sums, a, A_ACROSS, b, B_ACROSS, is_added);                     \
    }                                                                                         \
    template <bool B_ACROSS>                                                                  \
    DEVICE void multiply_rows_by(float (&sums)[width / 8][4], const u32 (&a)[4], u64 b) {     \
        shim::multiply_rows_by(sums, a, b, B_ACROSS);                                         \
    }
#else
#define PRODUCT(width, registers, a0, a1, a2, a3, a4, a5)                                     \
    template <bool A_ACROSS, bool B_ACROSS>                                                   \
    DEVICE void multiply_factors(float (&sums)[width / 8][4], u64 a, u64 b,                   \
                                 bool is_added = true) {                                      \
        asm volatile("{.reg .pred added; setp.ne.u32 added, " a4 ", 0; "                      \
                     "wgmma.mma_async.sync.aligned.m64n" #width "k16.f32.bf16.bf16 "          \
                     "{" NAMES_##registers "}, " a0 ", " a1 ", added, 1, 1, " a2 ", " a3 ";}" \
                     : SUMS_##registers(sums, 0)                                              \
                     : "l"(a), "l"(b), "n"((int)A_ACROSS), "n"((int)B_ACROSS),                \
                       "r"((int)is_added)                                                     \
                     : "memory");                                                             \
    }                                                                                         \
    template <bool B_ACROSS>                                                                  \
    DEVICE void multiply_rows_by(float (&sums)[width / 8][4], const u32 (&a)[4], u64 b) {     \
        asm volatile("{.reg .pred added; setp.eq.u32 added, 0, 0; "                           \
                     "wgmma.mma_async.sync.aligned.m64n" #width "k16.f32.bf16.bf16 "          \
                     "{" NAMES_##registers "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " a4         \
                     ", added, 1, 1, " a5 ";}"                                                \
                     : SUMS_##registers(sums, 0)                                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                    \
                       "n"((int)B_ACROSS)                                                     \
                     : "memory");                                                             \
    }
#endif

PRODUCT(32, 16, "%16", "%17", "%18", "%19", "%20", "%21")
PRODUCT(64, 32, "%32", "%33", "%34", "%35", "%36", "%37")
PRODUCT(96, 48, "%48", "%49", "%50", "%51", "%52", "%53")
PRODUCT(128, 64, "%64", "%65", "%66", "%67", "%68", "%69")
PRODUCT(192, 96, "%96", "%97", "%98", "%99", "%100", "%101")
PRODUCT(256, 128, "%128", "%129", "%130", "%131", "%132", "%133")
