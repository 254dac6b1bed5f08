// What warps multiply with: matrices out of shared memory, and products on tensor cores; and copies
// to shared memory that nobody waits for at once.
//
// Of a product [16, 8 n] a thread holds, of each eight columns, c[0], c[1] in row lane / 4 and
// c[2], c[3] eight rows below, in columns 2 (lane % 4) and the next: the layout of mma.m16n8k16
// (PTX ISA, "Matrix Fragments for mma.m16n8k16").

DEVICE u32 lane_of_warp() {
    return threadIdx.x % WARP;
}

// Four matrices of 8 x 8 out of shared memory; lanes 8 i .. 8 i + 7 name the rows of matrix i.
// A thread gets the two neighbours at row lane / 4, column 2 (lane % 4).
DEVICE void load_matrices(const Bf16* row, u32 (&to)[4]) {
#ifdef TROUPE_SHIM
    shim::load_matrices(row, to, false);
#else
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
#endif
}

// As above, with each matrix transposed.
DEVICE void load_matrices_turned(const Bf16* row, u32 (&to)[4]) {
#ifdef TROUPE_SHIM
    shim::load_matrices(row, to, true);
#else
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
#endif
}

// c[16, 8] += a[16, 16] b[16, 8], a warp's.
DEVICE void multiply_fragments(float (&c)[4], const u32 (&a)[4], u32 b_low, u32 b_high) {
#ifdef TROUPE_SHIM
    shim::multiply_fragments(c, a, b_low, b_high);
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
#endif
}

// Begins to copy 16 bytes to shared memory, of which the first `there` exist and the others are
// zero. Both addresses are multiples of 16; the bytes are there after `wait_for_copies`.
DEVICE void copy_soon(void* to, const void* from, u32 there) {
#ifdef TROUPE_SHIM
    shim::copy_soon(to, from, there);
#else
    u32 at = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(at), "l"(from), "r"(there)
                 : "memory");
#endif
}

// Makes one group of all copies that this thread has begun since the last one; it may have none.
DEVICE void end_group_of_copies() {
#ifdef TROUPE_SHIM
    shim::end_group_of_copies();
#else
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// Waits for this thread's copies, but for its LATEST groups; a barrier shows them to others.
template <u32 LATEST> DEVICE void wait_for_copies() {
#ifdef TROUPE_SHIM
    shim::wait_for_copies(LATEST);
#else
    asm volatile("cp.async.wait_group %0;" : : "n"(LATEST) : "memory");
#endif
}
