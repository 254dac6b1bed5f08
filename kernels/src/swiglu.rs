//! SwiGLU: `y = silu(gate) * up` with `silu(x) = x * sigmoid(x)`.

use crate::{exp::sigmoid, number::Number, vector::vectorised};

#[inline(always)]
fn gated<N: Number>(gate: N, up: N) -> N {
    let gate = gate.wide();
    N::nearest(gate * sigmoid(gate) * up.wide())
}

vectorised! {
    /// Returns `y`.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn forward<N: Number>(gate: &[N], up: &[N]) -> Vec<N> {
        let len = gate.len();
        assert_eq!(up.len(), len, "a value for each gate");
        let mut y = Vec::with_capacity(len);
        for ((y, gate), up) in y.spare_capacity_mut()[..len].iter_mut().zip(gate).zip(up) {
            y.write(gated(*gate, *up));
        }
        // SAFETY: all three are as long, so each element was written.
        unsafe { y.set_len(len) };
        y
    }

    /// Writes `y`.
    pub fn forward_into<N: Number>(gate: &[N], up: &[N], y: &mut [N]) {
        y.iter_mut().zip(gate).zip(up).for_each(|((y, gate), up)| *y = gated(*gate, *up));
    }

    /// Returns `dgate = dy up s (1 + gate (1 - s))` with `s = sigmoid(gate)`, and
    /// `dup = dy gate s`.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn backward<N: Number>(gate: &[N], up: &[N], dy: &[N]) -> (Vec<N>, Vec<N>) {
        let len = gate.len();
        assert!(up.len() == len && dy.len() == len, "{len}, {} and {}", up.len(), dy.len());
        let (mut dgates, mut dups) = (Vec::with_capacity(len), Vec::with_capacity(len));
        let out = dgates.spare_capacity_mut()[..len].iter_mut();
        let out = out.zip(&mut dups.spare_capacity_mut()[..len]);
        for ((dgate, dup), ((gate, up), dy)) in out.zip(gate.iter().zip(up).zip(dy)) {
            let (gate, up, dy) = (gate.wide(), up.wide(), dy.wide());
            let s = sigmoid(gate);
            dgate.write(N::nearest(dy * up * s * (1.0 + gate * (1.0 - s))));
            dup.write(N::nearest(dy * gate * s));
        }
        // SAFETY: all five are as long, so each element was written.
        unsafe {
            dgates.set_len(len);
            dups.set_len(len);
        }
        (dgates, dups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_closes_below_zero_and_opens_above() {
        let (gate, up) = ([-50.0, 0.0, 50.0], [2.0; 3]);
        let y = forward(&gate, &up);
        let mut same = [0.0; 3];
        forward_into(&gate, &up, &mut same);
        assert_eq!(y, same);
        assert!(y[0].abs() < 1e-18 && y[1] == 0.0 && (y[2] - 100.0).abs() < 1e-4, "{y:?}");
    }

    #[test]
    fn the_gradient_is_that_of_the_plain_formula() {
        let (gate, up, dy) = (0.7_f32, -1.3_f32, 0.4_f32);
        let (dgate, dup) = backward(&[gate], &[up], &[dy]);
        let f = |g: f64, u: f64| g / (1.0 + (-g).exp()) * u * f64::from(dy);
        let (g, u, h) = (f64::from(gate), f64::from(up), 1e-5);
        let slope = (f(g + h, u) - f(g - h, u)) / (2.0 * h);
        assert!((f64::from(dgate[0]) - slope).abs() < 1e-6);
        assert!((f64::from(dup[0]) - f(g, 1.0)).abs() < 1e-6);
    }
}
