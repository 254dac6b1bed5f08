// Softmax over the vocabulary, a chunk of columns at a time.
//
// `logits` is [tokens, cols], columns first .. first + cols of the vocabulary; a target below zero
// marks a token without loss and gradient. Launch: a block of whole warps, at most 256 threads, for
// each token, but for `finish` and `pick`, which take a thread for each.

// Takes `cols` more columns into each token's largest logit and sum of exp(logit - largest).
KERNEL(256, cross_entropy_extend, const float* logits, u64 cols, float* largest, float* sums) {
    const float* row = logits + blockIdx.x * cols;
    float before = largest[blockIdx.x], now = before;
    for (u64 c = EIGHT * threadIdx.x; c < cols; c += EIGHT * blockDim.x) {
        float x[EIGHT];
        u32 n = at_most_eight(cols - c);
        load(row + c, n, x);
        for (u32 i = 0; i < EIGHT; ++i) now = i < n && x[i] > now ? x[i] : now;
    }
    now = largest_of_block(now);
    float sum = 0.0f;
    for (u64 c = EIGHT * threadIdx.x; c < cols; c += EIGHT * blockDim.x) {
        float x[EIGHT];
        u32 n = at_most_eight(cols - c);
        load(row + c, n, x);
        for (u32 i = 0; i < EIGHT; ++i) sum += i < n ? exponential(x[i] - now) : 0.0f;
    }
    sum = sum_of_block(sum);
    if (threadIdx.x != 0) return;
    sums[blockIdx.x] = sums[blockIdx.x] * exponential(before - now) + sum;
    largest[blockIdx.x] = now;
}

// The natural logarithm of each token's sum of exp(logit).
KERNEL(256, cross_entropy_finish, const float* largest, const float* sums, float* log_sums,
       u64 tokens) {
    u64 t = first_one();
    if (t < tokens) log_sums[t] = largest[t] + logf(sums[t]);
}

// Writes the logit of each target that is among the columns.
KERNEL(256, cross_entropy_pick, const float* logits, u64 cols, u64 first, const int* targets,
       float* picked, u64 tokens) {
    u64 t = first_one();
    if (t >= tokens || targets[t] < 0) return;
    u64 target = (u64)targets[t];
    if (target >= first && target - first < cols) picked[t] = logits[t * cols + target - first];
}

// Writes the gradients of logits, (softmax - [v = target]) * scale.
KERNEL(256, cross_entropy_gradient, const float* logits, u64 cols, u64 first,
       const float* log_sums, const int* targets, float scale, Number* dlogits) {
    u64 row = blockIdx.x * cols;
    float log_sum = log_sums[blockIdx.x];
    bool is_marked = targets[blockIdx.x] < 0;
    u64 target = (u64)targets[blockIdx.x] - first;
    for (u64 c = EIGHT * threadIdx.x; c < cols; c += EIGHT * blockDim.x) {
        float x[EIGHT];
        u32 n = at_most_eight(cols - c);
        load(logits + row + c, n, x);
        for (u32 i = 0; i < EIGHT; ++i) {
            float slope = exponential(x[i] - log_sum) * scale;
            slope = c + i == target ? slope - scale : slope;
            x[i] = is_marked ? 0.0f : slope;
        }
        store(x, dlogits + row + c, n);
    }
}
