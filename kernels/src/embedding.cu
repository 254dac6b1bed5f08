// Rows of a table: looked up, and gradients added to them.

// y[t] = table[token[t]]; a token outside of the `vocab` rows gives NaN, which no loss hides.
//
// Launch: a block of at most 256 threads for each token.
KERNEL(256, embedding_gather, const Number* table, u64 width, const int* tokens, Number* y,
       u64 vocab) {
    u64 t = blockIdx.x;
    bool is_there = tokens[t] >= 0 && (u64)tokens[t] < vocab;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float v[EIGHT];
        u32 n = at_most_eight(width - c);
        if (is_there) load(table + tokens[t] * width + c, n, v);
        for (u32 i = 0; i < EIGHT && !is_there; ++i) v[i] = not_a_number();
        store(v, y + t * width + c, n);
    }
}

// dtable[token[t]] += dy[t], tokens in order; tokens outside of the `vocab` rows add nothing.
//
// The block of a token that came before ends at once; that of a first one adds all its like, which
// the block looks for side by side. Launch: a block of 256 threads for each token.
KERNEL(256, embedding_scatter_add, float* dtable, u64 width, const int* tokens, const Number* dy,
       u64 count, u64 vocab) {
    __shared__ u32 found[256 / WARP];
    u64 mine = blockIdx.x;
    int token = tokens[mine];
    bool came_before = token < 0 || (u64)token >= vocab;
    for (u64 t = threadIdx.x; t < mine; t += blockDim.x) came_before |= tokens[t] == token;
    if (__syncthreads_or(came_before)) return;
    for (u64 first = mine; first < count; first += blockDim.x) {
        u64 t = first + threadIdx.x;
        u32 alike = __ballot_sync(ALL_LANES, t < count && tokens[t] == token);
        if (threadIdx.x % WARP == 0) found[threadIdx.x / WARP] = alike;
        __syncthreads();
        for (u32 warp = 0; warp < blockDim.x / WARP; ++warp) {
            for (u32 left = found[warp]; left != 0; left &= left - 1) {
                const Number* row = dy + (first + warp * WARP + __ffs(left) - 1) * width;
                for (u64 c = threadIdx.x; c < width; c += blockDim.x) {
                    dtable[token * width + c] += wide(row[c]);
                }
            }
        }
        __syncthreads();
    }
}
