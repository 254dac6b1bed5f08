// RMSNorm: y[t, d] = x[t, d] * rstd[t] * w[d], rstd[t] = 1 / sqrt(mean_d(x[t, d]^2) + eps).
//
// Launch of `forward` and `backward_input`: a block of whole warps, at most 256 threads, for each
// token; a token is read twice, the second time out of the caches. The sum of a token goes in the
// order of threads, warps, block, so its bits depend on the width and the block's threads alone.

KERNEL(256, rms_norm_forward, const Number* x, const float* w, float eps, Number* y, float* rstd,
       u64 width) {
    const Number* row = x + blockIdx.x * width;
    float sum = 0.0f;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float v[EIGHT];
        load(row + c, at_most_eight(width - c), v);
        for (u32 i = 0; i < EIGHT; ++i) sum = fmaf(v[i], v[i], sum);
    }
    float inverse = 1.0f / sqrtf(sum_of_block(sum) / (float)width + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = inverse;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float v[EIGHT], gain[EIGHT];
        u32 n = at_most_eight(width - c);
        load(row + c, n, v);
        load(w + c, n, gain);
        for (u32 i = 0; i < EIGHT; ++i) v[i] = v[i] * inverse * gain[i];
        store(v, y + blockIdx.x * width + c, n);
    }
}

// dx = rstd * (w dy - x rstd^2 mean_d(w dy x)).
KERNEL(256, rms_norm_backward_input, const Number* x, const float* w, const float* rstd,
       const Number* dy, Number* dx, u64 width) {
    u64 row = blockIdx.x * width;
    float sum = 0.0f;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float v[EIGHT], gain[EIGHT], slope[EIGHT];
        u32 n = at_most_eight(width - c);
        load(x + row + c, n, v);
        load(w + c, n, gain);
        load(dy + row + c, n, slope);
        for (u32 i = 0; i < EIGHT; ++i) sum = fmaf(v[i], gain[i] * slope[i], sum);
    }
    float inverse = rstd[blockIdx.x];
    float along = sum_of_block(sum) / (float)width * inverse * inverse;
    for (u64 c = EIGHT * threadIdx.x; c < width; c += EIGHT * blockDim.x) {
        float v[EIGHT], gain[EIGHT], slope[EIGHT];
        u32 n = at_most_eight(width - c);
        load(x + row + c, n, v);
        load(w + c, n, gain);
        load(dy + row + c, n, slope);
        for (u32 i = 0; i < EIGHT; ++i) v[i] = (gain[i] * slope[i] - v[i] * along) * inverse;
        store(v, dx + row + c, n);
    }
}

// Tokens whose part of the gain's gradient is one sum; a constant, so that bits do not depend on
// the launch.
const u64 TOKENS_OF_A_PART = 64;

// parts[p, d] = sum of dy x rstd over the tokens of part p, in order.
//
// Launch: a block of at most 256 threads for 8 columns each, times a row of blocks for each part.
KERNEL(256, rms_norm_weight_parts, const Number* x, const float* rstd, const Number* dy,
       float* parts, u64 tokens, u64 width) {
    u64 c = first_eight();
    if (c >= width) return;
    u32 n = at_most_eight(width - c);
    u64 first = blockIdx.y * TOKENS_OF_A_PART, end = first + TOKENS_OF_A_PART;
    end = end < tokens ? end : tokens;
    float sum[EIGHT] = {};
    for (u64 t = first; t < end; ++t) {
        float v[EIGHT], slope[EIGHT];
        load(x + t * width + c, n, v);
        load(dy + t * width + c, n, slope);
        for (u32 i = 0; i < EIGHT; ++i) sum[i] += slope[i] * (v[i] * rstd[t]);
    }
    store(sum, parts + blockIdx.y * width + c, n);
}

// dw[d] += sum of the parts, in order. Launch: a thread for each column.
KERNEL(256, rms_norm_weight_join, const float* parts, float* dw, u64 count, u64 width) {
    u64 c = first_one();
    if (c >= width) return;
    float sum = dw[c];
    for (u64 part = 0; part < count; ++part) sum += parts[part * width + c];
    dw[c] = sum;
}
