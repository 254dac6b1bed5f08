// Between F32 and other formats, eight elements to a thread at a time; see cast.rs.
//
// Launch: any grid of blocks of at most 256; threads stride over the elements.

// Widens; exact.
KERNEL(256, widen, const Bf16* narrow, float* wide_out, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float x[EIGHT];
        u32 n = at_most_eight(count - i);
        load(narrow + i, n, x);
        store(x, wide_out + i, n);
    }
}

// Rounds to nearest in the format of activations, ties to even; infinities and NaN stay what they
// are. In F32 that is a copy.
//
// Pieces: F32, result. They lie along y.
KERNEL(256, to_nearest, const __grid_constant__ Pieces<2> pieces, u64 count) {
    const float* wide_in = (const float*)pieces.at[0][blockIdx.y];
    Number* out = (Number*)pieces.at[1][blockIdx.y];
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float x[EIGHT];
        u32 n = at_most_eight(count - i);
        load(wide_in + i, n, x);
        store(x, out + i, n);
    }
}

// Rounds to BF16, in place.
KERNEL(256, round_to_bf16, float* values, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float x[EIGHT];
        u32 n = at_most_eight(count - i);
        load(values + i, n, x);
        for (u32 j = 0; j < EIGHT; ++j) x[j] = wide(nearest<Bf16>(x[j]));
        store(x, values + i, n);
    }
}
