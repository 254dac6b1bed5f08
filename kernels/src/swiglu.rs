//! SwiGLU: `y = silu(gate) * up` with `silu(x) = x * sigmoid(x)`.

use crate::{exp::sigmoid, number::Number, vector::vectorised};

vectorised! {
    /// Writes `y`.
    pub fn forward<N: Number>(gate: &[N], up: &[N], y: &mut [N]) {
        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
            let gate = gate.wide();
            *y = N::nearest(gate * sigmoid(gate) * up.wide());
        }
    }

    /// Writes `dgate = dy up s (1 + gate (1 - s))` with `s = sigmoid(gate)`, and `dup = dy gate s`.
    pub fn backward<N: Number>(
        gate: &[N],
        up: &[N],
        dy: &[N],
        dgate: &mut [N],
        dup: &mut [N],
    ) {
        let inputs = gate.iter().zip(up).zip(dy);
        for ((dgate, dup), ((gate, up), dy)) in dgate.iter_mut().zip(dup).zip(inputs) {
            let (gate, up, dy) = (gate.wide(), up.wide(), dy.wide());
            let s = sigmoid(gate);
            *dgate = N::nearest(dy * up * s * (1.0 + gate * (1.0 - s)));
            *dup = N::nearest(dy * gate * s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_closes_below_zero_and_opens_above() {
        let mut y = [0.0; 3];
        forward(&[-50.0, 0.0, 50.0], &[2.0; 3], &mut y);
        assert!(y[0].abs() < 1e-18 && y[1] == 0.0 && (y[2] - 100.0).abs() < 1e-4, "{y:?}");
    }

    #[test]
    fn the_gradient_is_that_of_the_plain_formula() {
        let (gate, up, dy) = (0.7_f32, -1.3_f32, 0.4_f32);
        let (mut dgate, mut dup) = ([0.0], [0.0]);
        backward(&[gate], &[up], &[dy], &mut dgate, &mut dup);
        let f = |g: f64, u: f64| g / (1.0 + (-g).exp()) * u * f64::from(dy);
        let (g, u, h) = (f64::from(gate), f64::from(up), 1e-5);
        let slope = (f(g + h, u) - f(g - h, u)) / (2.0 * h);
        assert!((f64::from(dgate[0]) - slope).abs() < 1e-6);
        assert!((f64::from(dup[0]) - f(g, 1.0)).abs() < 1e-6);
    }
}
