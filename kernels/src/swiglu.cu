// SwiGLU: y = silu(gate) * up with silu(x) = x * sigmoid(x).
//
// Launch: any grid of blocks of at most 256; threads stride over groups of eight elements.

KERNEL(256, swiglu_forward, const Number* gate, const Number* up, Number* y, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float g[EIGHT], u[EIGHT];
        u32 n = at_most_eight(count - i);
        load(gate + i, n, g);
        load(up + i, n, u);
        for (u32 j = 0; j < EIGHT; ++j) u[j] = g[j] * sigmoid(g[j]) * u[j];
        store(u, y + i, n);
    }
}

// dgate = dy up s (1 + gate (1 - s)) with s = sigmoid(gate), and dup = dy gate s.
KERNEL(256, swiglu_backward, const Number* gate, const Number* up, const Number* dy, Number* dgate,
       Number* dup, u64 count) {
    for (u64 i = first_eight(); i < count; i += eights_apart()) {
        float g[EIGHT], u[EIGHT], d[EIGHT];
        u32 n = at_most_eight(count - i);
        load(gate + i, n, g);
        load(up + i, n, u);
        load(dy + i, n, d);
        for (u32 j = 0; j < EIGHT; ++j) {
            float s = sigmoid(g[j]);
            u[j] = d[j] * u[j] * s * (1.0f + g[j] * (1.0f - s));
            d[j] = d[j] * g[j] * s;
        }
        store(u, dgate + i, n);
        store(d, dup + i, n);
    }
}
