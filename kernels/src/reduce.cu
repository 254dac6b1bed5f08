// Sums, maxima and scaling.
//
// Launch, unless a kernel says otherwise: any grid of blocks of at most 256; threads stride over
// groups of eight elements.

// y[i] += x[i].
KERNEL(256, add, float* y, const float* x, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float a[EIGHT], b[EIGHT];
        u32 n = at_most_eight(count - i);
        load(y + i, n, a);
        load(x + i, n, b);
        for (u32 j = 0; j < EIGHT; ++j) a[j] += b[j];
        store(a, y + i, n);
    }
}

// What `sums` adds at most in one launch.
struct Terms {
    const Number* at[8];
};

// y[i] = (a[i] + b[i]) + c[i] + .. in the order of `terms`, rounded once.
KERNEL(256, sums, Terms terms, u64 how_many, Number* y, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float sum[EIGHT];
        u32 n = at_most_eight(count - i);
        load(terms.at[0] + i, n, sum);
#pragma unroll
        for (u32 which = 1; which < 8; ++which) {
            float x[EIGHT];
            if (which >= how_many) break;
            load(terms.at[which] + i, n, x);
            for (u32 j = 0; j < EIGHT; ++j) sum[j] += x[j];
        }
        store(sum, y + i, n);
    }
}

// y[i] += x[i], each sum rounded to its format.
KERNEL(256, add_rounded, Number* y, const Number* x, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float a[EIGHT], b[EIGHT];
        u32 n = at_most_eight(count - i);
        load(y + i, n, a);
        load(x + i, n, b);
        for (u32 j = 0; j < EIGHT; ++j) a[j] += b[j];
        store(a, y + i, n);
    }
}

// y[i] += a * x[i].
KERNEL(256, add_scaled, float* y, float factor, const Number* x, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float a[EIGHT], b[EIGHT];
        u32 n = at_most_eight(count - i);
        load(y + i, n, a);
        load(x + i, n, b);
        for (u32 j = 0; j < EIGHT; ++j) a[j] += factor * b[j];
        store(a, y + i, n);
    }
}

// y[i] = a * y[i] + b * x[i]. Pieces: y, x; they lie along y.
KERNEL(256, scale_and_add, const __grid_constant__ Pieces<2> pieces, float keep, float factor,
       u64 count) {
    float* y = (float*)pieces.at[0][blockIdx.y];
    const Number* x = (const Number*)pieces.at[1][blockIdx.y];
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float a[EIGHT], b[EIGHT];
        u32 n = at_most_eight(count - i);
        load(y + i, n, a);
        load(x + i, n, b);
        for (u32 j = 0; j < EIGHT; ++j) a[j] = keep * a[j] + factor * b[j];
        store(a, y + i, n);
    }
}

// m[i] = a * m[i] + g[i] and ahead[i] = g[i] + a * m[i]. Pieces: m, g, ahead; they lie along y.
KERNEL(256, look_ahead, const __grid_constant__ Pieces<3> pieces, float decay, u64 count) {
    float* m = (float*)pieces.at[0][blockIdx.y];
    const float* g = (const float*)pieces.at[1][blockIdx.y];
    float* ahead = (float*)pieces.at[2][blockIdx.y];
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float a[EIGHT], b[EIGHT];
        u32 n = at_most_eight(count - i);
        load(m + i, n, a);
        load(g + i, n, b);
        for (u32 j = 0; j < EIGHT; ++j) a[j] = decay * a[j] + b[j];
        store(a, m + i, n);
        for (u32 j = 0; j < EIGHT; ++j) b[j] += decay * a[j];
        store(b, ahead + i, n);
    }
}

// y[i] = a * x[i], rounded to the format of y.
template <class From, class To>
DEVICE void scale_all(const From* x, float factor, To* y, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float v[EIGHT];
        u32 n = at_most_eight(count - i);
        load(x + i, n, v);
        for (u32 j = 0; j < EIGHT; ++j) v[j] *= factor;
        store(v, y + i, n);
    }
}

// The same, within the format of activations.
KERNEL(256, scaled, const Number* x, float factor, Number* y, u64 count) {
    scale_all(x, factor, y, count);
}

// y[i] = a * x[i] from F32, rounded to the format of y.
KERNEL(256, scaled_narrow, const float* x, float factor, Number* y, u64 count) {
    scale_all(x, factor, y, count);
}

// y[i] = a * x[i] in F32.
KERNEL(256, scaled_wide, const Number* x, float factor, float* y, u64 count) {
    scale_all(x, factor, y, count);
}

// y[i] *= a.
KERNEL(256, scale, float* y, float factor, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float v[EIGHT];
        u32 n = at_most_eight(count - i);
        load(y + i, n, v);
        for (u32 j = 0; j < EIGHT; ++j) v[j] *= factor;
        store(v, y + i, n);
    }
}

// y[r, c] = x[r, from + c] for c < cols: a part of the columns, as `Split` cuts them; with
// `is_back` y is written into the columns of x instead.
//
// Launch: a block of at most 256 threads for each row.
KERNEL(256, columns, Number* x, u64 width, u64 from, Number* y, u64 cols, u32 is_back) {
    Number* whole = x + blockIdx.x * width + from;
    Number* part = y + blockIdx.x * cols;
    for (u64 c = EIGHT * threadIdx.x; c < cols; c += EIGHT * blockDim.x) {
        float v[EIGHT];
        u32 n = at_most_eight(cols - c);
        load(is_back ? part + c : whole + c, n, v);
        store(v, is_back ? whole + c : part + c, n);
    }
}

// largest[c] = the largest x[r, c], minus infinity where there is no row: QK-Clip's maximum of each
// head. NaN is passed over, as on the CPU. Launch: a block of whole warps for each column.
KERNEL(256, largest_of_columns, const float* x, u64 rows, u64 cols, float* largest) {
    float most = -infinity();
    for (u64 r = threadIdx.x; r < rows; r += blockDim.x) {
        float other = x[r * cols + blockIdx.x];
        most = other > most ? other : most;
    }
    most = largest_of_block(most);
    if (threadIdx.x == 0) largest[blockIdx.x] = most;
}
