// AdamW: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2.
//
//     m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
//     w = w keep - rate m / (sqrt(v) spread + eps)
//
// with g the gradient times `scale`, rounded before anything else. The host works out, as in
// adamw.rs, rate = lr / (1 - b1^step), spread = 1 / sqrt(1 - b2^step) and keep = 1 - lr decay.
//
// Pieces: gradient, m, v, w. Launch: any grid of blocks of at most 256, pieces along y.

KERNEL(256, adamw_update, const __grid_constant__ Pieces<4> pieces, float scale, float b1,
       float b2, float rate, float spread, float keep, float eps, u64 count) {
    const float* grad = (const float*)pieces.at[0][blockIdx.y];
    float* m = (float*)pieces.at[1][blockIdx.y];
    float* v = (float*)pieces.at[2][blockIdx.y];
    float* w = (float*)pieces.at[3][blockIdx.y];
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float g[EIGHT], first[EIGHT], second[EIGHT], weight[EIGHT];
        u32 n = at_most_eight(count - i);
        load(grad + i, n, g);
        load(m + i, n, first);
        load(v + i, n, second);
        load(w + i, n, weight);
        for (u32 j = 0; j < EIGHT; ++j) {
            g[j] *= scale;
            first[j] = b1 * first[j] + (1.0f - b1) * g[j];
            second[j] = b2 * second[j] + (1.0f - b2) * g[j] * g[j];
            weight[j] = weight[j] * keep - rate * first[j] / (sqrtf(second[j]) * spread + eps);
        }
        store(first, m + i, n);
        store(second, v + i, n);
        store(weight, w + i, n);
    }
}
