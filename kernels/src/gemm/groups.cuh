// The products of an expert layer, one launch for all experts, here groups of rows:
//
//     forward:  y[r, o] = sum_i x[r, i] w_e[o, i]          for the rows r of group e
//     input:    dx[r, i] = sum_o dy[r, o] w_e[o, i]
//     weight:   dw_e[o, i] (=|+=) sum over the rows r of group e of dy[r, o] x[r, i]
//
// A block has a tile of one group's product; blocks of one group are neighbours, in bands of 16
// tiles of rows, so that what they read stays in the cache of second level.
//
// Of the first two, what is written is keep base + by sum, if that is asked for, which is how
// Newton-Schulz makes its polynomials: its groups are matrices that are all as large.
//
// An element is one sum over the depth, from the beginning of its group, in steps that no other
// extent changes; beyond the ends there are zeros. So its bits depend on its own row and column
// alone, not on the rows beside it, its place in a tile, or the other groups.

const u32 BAND = 16;

// A group that has rows: its matrix, its first row, and the first of its tiles.
struct Group {
    u64 at;
    u32 first, rows, tile, is_added;
};

struct Groups {
    Group all[128];
};

// A factor: lines of `width` numbers, one behind the other.
struct Factor {
    const Number* at;
    u64 lines, width;
};

// What becomes of sums: keep base + by sum; with a `keep` of zero `base` is not read.
template <typename N> struct Blend {
    const N* base;
    float keep, by;

    // Whether they stay what they are, as those of experts do.
    DEVICE bool is_sum() const {
        return keep == 0.0f && by == 1.0f;
    }

    DEVICE float of(float before, float sum) const {
        sum *= by;
        return keep == 0.0f ? sum : fmaf(keep, before, sum);
    }
};

// A block's tile of a product y [rows, cols], from (row, col) on; `base` of its blend lies like y.
template <typename N> struct Tile {
    Factor a, b;
    u64 depth;
    Blend<N> blend;
    N* y;
    u64 rows, cols, row, col;
};

// The last group that begins at or before a tile.
DEVICE const Group& group_of(const Groups& groups, u32 count, u32 tile) {
    u32 low = 0, high = count;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (groups.all[middle].tile <= tile) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return groups.all[low];
}

// Says where a tile of HIGH x WIDE begins, by its number within its group.
template <u32 HIGH, u32 WIDE, typename N> DEVICE void place(Tile<N>& tile, u32 number) {
    u32 down = (u32)((tile.rows + HIGH - 1) / HIGH);
    u32 across = (u32)((tile.cols + WIDE - 1) / WIDE);
    u32 band = number / (BAND * across), within = number % (BAND * across);
    u32 left = down - band * BAND, high = left < BAND ? left : BAND;
    tile.row = (u64)HIGH * (band * BAND + within % high);
    tile.col = (u64)WIDE * (within / high);
}

// This block's tile of the rows of a group times its matrix, which lies turned in forward.
template <u32 HIGH, u32 WIDE, bool IS_TURNED>
DEVICE Tile<Number> tile_of_rows(const Groups& groups, u32 count, const Number* x, u64 depth,
                                 u64 cols, Blend<Number> blend, Number* y) {
    const Group& own = group_of(groups, count, blockIdx.x);
    Tile<Number> tile;
    u64 rows = own.rows, first = own.first;
    tile.a = {x + first * depth, rows, depth};
    tile.b = {(const Number*)own.at, IS_TURNED ? cols : depth, IS_TURNED ? depth : cols};
    tile.depth = depth, tile.y = y + first * cols, tile.rows = rows, tile.cols = cols;
    tile.blend = {blend.base + first * cols, blend.keep, blend.by};
    place<HIGH, WIDE>(tile, blockIdx.x - own.tile);
    return tile;
}

// This block's tile of a group's sum of weight gradients.
template <u32 HIGH, u32 WIDE>
DEVICE Tile<float> tile_of_weight(const Groups& groups, u32 count, const Number* dy, u64 output,
                                  const Number* x, u64 input) {
    const Group& own = group_of(groups, count, blockIdx.x);
    Tile<float> tile;
    u64 rows = own.rows, first = own.first;
    tile.a = {dy + first * output, rows, output}, tile.b = {x + first * input, rows, input};
    tile.depth = rows, tile.y = (float*)own.at, tile.rows = output, tile.cols = input;
    tile.blend = {tile.y, own.is_added ? 1.0f : 0.0f, 1.0f};
    place<HIGH, WIDE>(tile, blockIdx.x - own.tile);
    return tile;
}
