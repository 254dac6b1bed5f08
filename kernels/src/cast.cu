// Between BF16 and F32, eight elements to a thread at a time; see cast.rs.
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

// Rounds to nearest, ties to even; infinities and NaN stay what they are.
KERNEL(256, narrow, const float* wide_in, Bf16* narrow_out, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float x[EIGHT];
        u32 n = at_most_eight(count - i);
        load(wide_in + i, n, x);
        store(x, narrow_out + i, n);
    }
}

// Rounds as `narrow` does, in place.
KERNEL(256, round_to_bf16, float* values, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float x[EIGHT];
        u32 n = at_most_eight(count - i);
        load(values + i, n, x);
        for (u32 j = 0; j < EIGHT; ++j) x[j] = wide(nearest<Bf16>(x[j]));
        store(x, values + i, n);
    }
}
