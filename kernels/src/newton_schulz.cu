// The parts of a Newton-Schulz step that are no products: a tall matrix is worked on as its
// transpose. `X <- a X + (b A + c A^2) X` itself is three products that add to what stands in their
// outputs; see cuda/products.rs.
//
// Launch: a block of 32 x 8 threads for each tile of 32 x 32, columns along x, rows along y.

// out[c, r] = values[r, c].
KERNEL(256, transposed, const float* values, float* out, u64 rows, u64 cols) {
    __shared__ float tile[32][33];
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
