// Tokens to routed rows and back: where each row goes, and the sums that come back.
//
// Rows are sorted by (expert, token); `rows[t * k + j]` is the row of the j-th choice of token t.

// counts[e] = choices of expert e. Launch: a block of whole warps, at most 256 threads, an expert.
KERNEL(256, routing_count, const int* choice, int* counts, u64 choices) {
    __shared__ int parts[256 / WARP];
    int count = 0;
    for (u64 i = threadIdx.x; i < choices; i += blockDim.x) count += choice[i] == (int)blockIdx.x;
    for (u32 apart = WARP / 2; apart > 0; apart /= 2) {
        count += __shfl_xor_sync(ALL_LANES, count, apart);
    }
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = count;
    __syncthreads();
    if (threadIdx.x != 0) return;
    int sum = 0;
    for (u32 warp = 0; warp < blockDim.x / WARP; ++warp) sum += parts[warp];
    counts[blockIdx.x] = sum;
}

// Writes the row of each choice, given the counts of all experts. Launch: as `routing_count`.
KERNEL(256, routing_place, const int* choice, const int* counts, int* rows, u64 choices) {
    __shared__ u32 found[256 / WARP];
    u32 expert = blockIdx.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int next = 0;
    for (u32 before = 0; before < expert; ++before) next += counts[before];
    for (u64 first = 0; first < choices; first += blockDim.x) {
        u64 i = first + threadIdx.x;
        bool is_mine = i < choices && choice[i] == (int)expert;
        u32 mine = __ballot_sync(ALL_LANES, is_mine);
        if (lane == 0) found[warp] = __popc(mine);
        __syncthreads();
        int at = next + __popc(mine & ((1u << lane) - 1));
        for (u32 other = 0; other < blockDim.x / WARP; ++other) {
            if (other < warp) at += found[other];
            next += found[other];
        }
        if (is_mine) rows[i] = at;
        __syncthreads();
    }
}

// y[row of (t, j)] = x[t]. Launch: a block of at most 256 threads for each token.
KERNEL(256, routing_scatter, const int* rows, const Number* x, u64 width, u64 per_token,
       Number* y) {
    u64 t = blockIdx.x;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float v[EIGHT];
        u32 n = at_most_eight(width - c);
        load(x + t * width + c, n, v);
        for (u64 j = 0; j < per_token; ++j) store(v, y + rows[t * per_token + j] * width + c, n);
    }
}

// y[t] = sum_j x[row of (t, j)], added in F32 in the order of j. Launch: as `routing_scatter`.
KERNEL(256, routing_gather_sum, const int* rows, const Number* x, u64 width, u64 per_token,
       Number* y) {
    u64 t = blockIdx.x;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float sum[EIGHT] = {};
        u32 n = at_most_eight(width - c);
        for (u64 j = 0; j < per_token; ++j) {
            float v[EIGHT];
            load(x + rows[t * per_token + j] * width + c, n, v);
            for (u32 i = 0; i < EIGHT; ++i) sum[i] += v[i];
        }
        store(sum, y + t * width + c, n);
    }
}

// y[row of (t, j)] = x[t, j]. Launch: a thread for each choice.
KERNEL(256, routing_sorted, const int* rows, const float* x, float* y, u64 choices) {
    u64 i = first_one();
    if (i < choices) y[rows[i]] = x[i];
}

// x[t, j] = y[row of (t, j)]. Launch: a thread for each choice.
KERNEL(256, routing_unsorted, const int* rows, const float* y, float* x, u64 choices) {
    u64 i = first_one();
    if (i < choices) x[i] = y[rows[i]];
}

// y[r, d] = share[r] * rows[r, d]. Launch: a block of at most 256 threads for each row.
KERNEL(256, weigh, const Number* rows, const float* share, Number* y, u64 width) {
    u64 r = blockIdx.x;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float v[EIGHT];
        u32 n = at_most_eight(width - c);
        load(rows + r * width + c, n, v);
        for (u32 i = 0; i < EIGHT; ++i) v[i] = share[r] * v[i];
        store(v, y + r * width + c, n);
    }
}

// dshare[r] = sum_d dy[r, d] * rows[r, d]. Launch: a block of whole warps, at most 256 threads.
KERNEL(256, weigh_share, const Number* rows, const Number* dy, float* dshare, u64 width) {
    u64 r = blockIdx.x;
    float sum = 0.0f;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float v[EIGHT], slope[EIGHT];
        u32 n = at_most_eight(width - c);
        load(rows + r * width + c, n, v);
        load(dy + r * width + c, n, slope);
        for (u32 i = 0; i < EIGHT; ++i) sum = fmaf(v[i], slope[i], sum);
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) dshare[r] = sum;
}
