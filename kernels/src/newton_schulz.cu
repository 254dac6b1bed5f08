// The parts of Newton-Schulz that are no products: the matrix over its norm, and the transpose that
// a tall matrix is worked on as. `X <- a X + (b A + c A^2) X` itself is three products that add
// what stands elsewhere or in their outputs; see cuda/newton_schulz.rs.

// x[i] = values[i] / (norm + 1e-7), rounded to the format of products; the square of the norm is
// what `squares_join` wrote, piece after piece. All threads take the root for themselves.
//
// Pieces: values, x. Launch: any grid of blocks of at most 256, pieces along y; threads stride over
// groups of eight elements.
KERNEL(256, over_norm, const __grid_constant__ Pieces<2> pieces, const u64* words, u64 count) {
    const float* values = (const float*)pieces.at[0][blockIdx.y];
    Number* x = (Number*)pieces.at[1][blockIdx.y];
    words += 6 * blockIdx.y;
    double sum = 0.0;
    for (u32 i = 5; 0 < i; --i) sum = sum * 18446744073709551616.0 + (double)words[i - 1];
    // The words count units of 2^-149; an infinite norm leaves nothing.
    double norm = sqrt(sum * 0x1p-149);
    float factor = words[5] != 0 ? 0.0f : (float)(1.0 / (norm + 1e-7));
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float v[EIGHT];
        u32 n = at_most_eight(count - i);
        load(values + i, n, v);
        for (u32 j = 0; j < EIGHT; ++j) v[j] *= factor;
        store(v, x + i, n);
    }
}

// out[c, r] = values[r, c].
//
// Pieces: values, out. Launch: a block of 32 x 8 threads for each tile of 32 x 32, columns along x,
// rows along y, pieces along z.
template <class T>
DEVICE void turn(const Pieces<2>& pieces, u64 rows, u64 cols) {
    const T* values = (const T*)pieces.at[0][blockIdx.z];
    T* out = (T*)pieces.at[1][blockIdx.z];
    __shared__ T tile[32][33];
    u64 top = blockIdx.y * 32ull, left = blockIdx.x * 32ull;
    for (u32 i = threadIdx.y; i < 32; i += blockDim.y) {
        u64 row = top + i, col = left + threadIdx.x;
        if (row < rows && col < cols) tile[i][threadIdx.x] = values[row * cols + col];
    }
    __syncthreads();
    for (u32 i = threadIdx.y; i < 32; i += blockDim.y) {
        u64 row = top + threadIdx.x, col = left + i;
        if (row < rows && col < cols) out[col * rows + row] = tile[threadIdx.x][i];
    }
}

// Of gradients.
KERNEL(256, transposed, const __grid_constant__ Pieces<2> pieces, u64 rows, u64 cols) {
    turn<float>(pieces, rows, cols);
}

// Of results.
KERNEL(256, transposed_number, const __grid_constant__ Pieces<2> pieces, u64 rows, u64 cols) {
    turn<Number>(pieces, rows, cols);
}
