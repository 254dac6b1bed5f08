// What both passes of attention share: the widths of a head, where its rows are, exponentials, and
// the keys' rotary part.
//
// The widths are constants of the compilation: NOPE and ROPE (both even), VALUE.

const u32 KEY = NOPE + ROPE;
const float LOG2_E = 1.44269504f;

// A divisor that is zero only where nothing is divided by it.
DEVICE constexpr u32 at_least_one(u32 x) {
    return x == 0 ? 1 : x;
}

// 2^x by the special function unit, whose error of 2e-7 near one is far below that of BF16.
DEVICE float power_of_two(float x) {
#ifdef TROUPE_SHIM
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// e^x for softmax: approximate in BF16, the polynomial in F32.
DEVICE float exponential_of_score(float x) {
#ifdef NUMBER_BF16
    return power_of_two(x * LOG2_E);
#else
    return exponential(x);
#endif
}

// What attention reads of one head of one sequence, and the angles. Where `q_rope` is given, it has
// the rotary part of the queries, turned, in rows like those of q; `k_rope` is turned.
struct Head {
    const Number *q, *q_rope, *kv, *k_rope;
    const float2* turns;
    u64 q_apart, kv_apart, sequence;
};

DEVICE Head head_of(const Number* q, const Number* q_turned, const Number* kv,
                    const Number* k_rope, const float2* turns, u64 sequence, u64 heads, u64 head,
                    u64 start) {
    Head x;
    x.q_apart = heads * KEY, x.kv_apart = heads * (NOPE + VALUE), x.sequence = sequence;
    u64 own = start * x.q_apart + head * KEY;
    x.q = q + own;
    x.q_rope = q_turned + own + NOPE;
    x.kv = kv + start * x.kv_apart + head * (NOPE + VALUE);
    x.k_rope = k_rope + start * ROPE;
    x.turns = turns;
    return x;
}

// The keys' rotary part [t, rope], turned once for all heads and tiles.
//
// Launch: a thread for each pair of columns.
KERNEL(256, attention_turn_keys, const Number* k_rope, const float2* turns, u64 tokens,
       u64 sequence, Number* turned) {
    u64 i = first_one(), token = i / at_least_one(ROPE / 2), pair = i % at_least_one(ROPE / 2);
    if (i >= tokens * (ROPE / 2)) return;
    float2 turn = turns[token % sequence * (ROPE / 2) + pair];
    float a = wide(k_rope[2 * i]), b = wide(k_rope[2 * i + 1]);
    turned[2 * i] = nearest<Number>(a * turn.x - b * turn.y);
    turned[2 * i + 1] = nearest<Number>(a * turn.y + b * turn.x);
}
