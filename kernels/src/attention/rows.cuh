// What backward does with rows, before its passes and after them.

// Turns the rotary part of q into its place in dq, from where the passes read it, and writes along
// [t, h], the sum of dy y over the columns of a row, if y was kept.
//
// Launch: a warp for each row of tokens and heads.
KERNEL(256, attention_begin_rows, const Number* q, const float2* turns, u64 rows, u64 sequence,
       u64 heads, const Number* y, const Number* dy, Number* dq, float* along) {
    u64 row = first_one() / WARP;
    u32 lane = threadIdx.x % WARP;
    if (row >= rows) return;
    const float2* turn = turns + row / heads % sequence * (ROPE / 2);
    const Number* from = q + row * KEY + NOPE;
    Number* to = dq + row * KEY + NOPE;
    for (u32 pair = lane; pair < ROPE / 2; pair += WARP) {
        float a = wide(from[2 * pair]), b = wide(from[2 * pair + 1]);
        to[2 * pair] = nearest<Number>(a * turn[pair].x - b * turn[pair].y);
        to[2 * pair + 1] = nearest<Number>(a * turn[pair].y + b * turn[pair].x);
    }
    if (y == nullptr) return;
    float sum = 0.0f;
    for (u32 c = EIGHT * lane; c < VALUE; c += EIGHT * WARP) {
        float of_y[EIGHT], of_dy[EIGHT];
        u32 n = at_most_eight(VALUE - c);
        load(y + row * VALUE + c, n, of_y);
        load(dy + row * VALUE + c, n, of_dy);
#pragma unroll
        for (u32 i = 0; i < EIGHT; ++i) sum = fmaf(of_dy[i], of_y[i], sum);
    }
    sum = sum_of_lanes(sum, WARP);
    if (lane == 0) along[row] = sum;
}

// dk_rope [t, rope]: the heads' added in order, and turned back.
//
// Launch: a thread for each pair of columns.
KERNEL(256, attention_join_rope, const float* of_heads, const float2* turns, u64 tokens,
       u64 sequence, u64 heads, Number* dk_rope) {
    const u32 PAIRS = ROPE / 2;
    u64 i = first_one(), token = i / at_least_one(PAIRS), pair = i % at_least_one(PAIRS);
    if (i >= tokens * PAIRS) return;
    float a = 0.0f, b = 0.0f;
    for (u64 head = 0; head < heads; ++head) {
        const float* two = of_heads + (token * heads + head) * ROPE + 2 * pair;
        a += two[0], b += two[1];
    }
    float2 turn = turns[token % sequence * PAIRS + pair];
    dk_rope[token * ROPE + 2 * pair] = nearest<Number>(a * turn.x + b * turn.y);
    dk_rope[token * ROPE + 2 * pair + 1] = nearest<Number>(b * turn.x - a * turn.y);
}
