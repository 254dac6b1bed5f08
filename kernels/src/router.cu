// Scores, choice and shares of the router, and the gradient of its logits; all in F32.
//
// Launch of `choose`: a warp for each token, blocks of at most 256 threads, and 4 bytes of shared
// memory for each expert of each warp. The others: a thread for each element or token.

// Turns logits into scores, in place.
KERNEL(256, router_scores, float* logits, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float x[EIGHT];
        u32 n = at_most_eight(count - i);
        load(logits + i, n, x);
        for (u32 j = 0; j < EIGHT; ++j) x[j] = sigmoid(x[j]);
        store(x, logits + i, n);
    }
}

// A value and its place as one number: larger values first, of equal ones the lower place. The
// order of values is that of `f32::total_cmp`. No candidate is zero.
DEVICE u64 candidate(float value, u32 place) {
    u32 bits = __float_as_uint(value);
    u32 order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)order << 32 | (u32)~place;
}

DEVICE u32 place_of(u64 candidate) {
    return ~(u32)candidate;
}

DEVICE u64 best_of_lanes(u64 mine) {
    for (u32 apart = WARP / 2; apart > 0; apart /= 2) {
        u64 other = __shfl_xor_sync(ALL_LANES, mine, apart);
        mine = other > mine ? other : mine;
    }
    return mine;
}

// The best of values[first .. first + count] after `last`, which was the one before; a warp's.
DEVICE u64 next_best(const float* values, u32 first, u32 count, u64 last) {
    u64 best = 0;
    for (u32 i = threadIdx.x % WARP; i < count; i += WARP) {
        u64 mine = candidate(values[first + i], first + i);
        if (mine < last && mine > best) best = mine;
    }
    return best_of_lanes(best);
}

// Closes the experts outside the `open` groups with the largest sum of their two best: values of
// NaN with a sign come last in the order of `candidate`. Uses `sums [groups]` behind the values.
DEVICE void close_groups(float* values, float* sums, u32 experts, u32 groups, u32 open) {
    u32 lane = threadIdx.x % WARP, size = experts / groups;
    for (u32 group = 0; group < groups; ++group) {
        u64 first = next_best(values, group * size, size, ~0ull);
        u64 second = next_best(values, group * size, size, first);
        float sum = values[place_of(first)];
        if (size > 1) sum = sum + values[place_of(second)];
        if (lane == 0) sums[group] = sum;
    }
    __syncwarp();
    u64 last = ~0ull;
    for (u32 i = 0; i < open; ++i) last = next_best(sums, 0, groups, last);
    for (u32 i = lane; i < experts; i += WARP) {
        u32 group = i / size;
        if (candidate(sums[group], group) < last) values[i] = __uint_as_float(0xFFFFFFFFu);
    }
    __syncwarp();
}

// Writes the chosen experts of each token, largest scores[t, e] + bias[e] first, of equal ones the
// lower number. `open` groups of `groups` are open to each token.
KERNEL(256, router_choose, const float* scores, const float* bias, int* chosen, u64 tokens,
       u32 experts, u32 per_token, u32 groups, u32 open) {
    SHARED_BYTES(shared);
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u64 token = (u64)blockIdx.x * (blockDim.x / WARP) + warp;
    float* values = (float*)shared + warp * (experts + groups);
    if (token >= tokens) return;
    for (u32 i = lane; i < experts; i += WARP) values[i] = scores[token * experts + i] + bias[i];
    __syncwarp();
    if (open < groups) close_groups(values, values + experts, experts, groups, open);
    u64 last = ~0ull;
    for (u32 i = 0; i < per_token; ++i) {
        last = next_best(values, 0, experts, last);
        if (lane == 0) chosen[token * per_token + i] = (int)place_of(last);
    }
}

// Added to the sum of the chosen scores, so that a token with none divides safely.
const float SMALLEST_SUM = 1e-20f;

// Writes the chosen scores and share = scaling * score / (sum of the token's + 1e-20).
KERNEL(256, router_shares, u64 experts, u64 per_token, float scaling, const float* scores,
       const int* chosen, float* chosen_scores, float* shares, u64 tokens) {
    u64 t = first_one();
    if (t >= tokens) return;
    float sum = 0.0f;
    for (u64 j = t * per_token; j < (t + 1) * per_token; ++j) {
        float score = scores[t * experts + chosen[j]];
        chosen_scores[j] = score;
        sum += score;
    }
    float factor = scaling / (sum + SMALLEST_SUM);
    for (u64 j = t * per_token; j < (t + 1) * per_token; ++j) shares[j] = chosen_scores[j] * factor;
}

// Writes the gradient of the chosen logits into dlogits [t, e], which the caller has cleared:
//
//     ds[j] = scaling / sum * (dshare[j] - sum_i dshare[i] s[i] / sum)
//     dlogit[j] = ds[j] s[j] (1 - s[j])
KERNEL(256, router_backward, u64 experts, u64 per_token, float scaling, const int* chosen,
       const float* chosen_scores, const float* dshares, float* dlogits, u64 tokens) {
    u64 t = first_one();
    if (t >= tokens) return;
    u64 first = t * per_token, end = first + per_token;
    float sum = 0.0f, along = 0.0f;
    for (u64 j = first; j < end; ++j) {
        sum += chosen_scores[j];
        along += chosen_scores[j] * dshares[j];
    }
    sum += SMALLEST_SUM;
    along /= sum;
    for (u64 j = first; j < end; ++j) {
        float s = chosen_scores[j], ds = scaling / sum * (dshares[j] - along);
        dlogits[t * experts + chosen[j]] = ds * s * (1.0f - s);
    }
}
