// Rotary positions: neighbouring columns (2i, 2i+1) turned by position * frequency[i].
//
// `turns` is [sequence, pairs] of (cosine, sine); positions restart with each sequence. Row r of x
// belongs to token r / rows_per_token; its pairs stand at columns from ..  from + 2 pairs.
//
// Launch: any grid of blocks of at most 256; threads stride over the pairs.

struct Pair {
    u64 row;
    u32 pair;
    float2 turn;
};

DEVICE Pair pair_at(u64 i, const float2* turns, u64 rows_per_token, u64 sequence, u64 pairs) {
    Pair at;
    at.row = i / pairs;
    at.pair = (u32)(i % pairs);
    u64 position = at.row / rows_per_token % sequence;
    at.turn = turns[position * pairs + at.pair];
    return at;
}

// Turns in place.
KERNEL(256, rope_turn, Number* x, const float2* turns, u64 rows, u64 rows_per_token, u64 sequence,
       u64 width, u64 from, u64 pairs) {
    for (u64 i = first_one(); i < rows * pairs; i += ones_apart()) {
        Pair at = pair_at(i, turns, rows_per_token, sequence, pairs);
        Number* two = x + at.row * width + from + 2 * at.pair;
        float a = wide(two[0]), b = wide(two[1]);
        two[0] = nearest<Number>(a * at.turn.x - b * at.turn.y);
        two[1] = nearest<Number>(a * at.turn.y + b * at.turn.x);
    }
}

// The transpose, which takes gradients back; in place.
KERNEL(256, rope_turn_back, float* x, const float2* turns, u64 rows, u64 rows_per_token,
       u64 sequence, u64 width, u64 from, u64 pairs) {
    for (u64 i = first_one(); i < rows * pairs; i += ones_apart()) {
        Pair at = pair_at(i, turns, rows_per_token, sequence, pairs);
        float* two = x + at.row * width + from + 2 * at.pair;
        float a = two[0], b = two[1];
        two[0] = a * at.turn.x + b * at.turn.y;
        two[1] = b * at.turn.x - a * at.turn.y;
    }
}
