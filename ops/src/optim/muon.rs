//! Muon, in the parts that a sharded run does in different places.
//!
//! Momentum and weights go row by row, so each holder does its slice of them; Newton-Schulz needs
//! the whole matrix. Done one after the other on all rows, the parts are the plain update:
//!
//! ```text
//! m = momentum m + g                                        direction, on a slice
//! o = NewtonSchulz(g + momentum m)                          orthogonal, on the whole matrix
//! w = w - lr (update_rms sqrt(max(rows, columns)) o + decay w)     turn, on a slice
//! ```
//!
//! Kimi K2, arXiv:2507.20534, algorithm 1; Moonlight, arXiv:2502.16982, algorithm 1.

use kernels::{
    newton_schulz::newton_schulz,
    number::Number,
    reduce::{look_ahead, scale_and_add},
};

use super::MuonClip;
use crate::{DType, Floats, Tensor, on_gpu::optim as on_gpu, tensor::in_format};

impl MuonClip {
    /// Adds a gradient to the momentum and returns what Newton-Schulz is to work on.
    ///
    /// Element by element, so slices give the bits of the whole.
    ///
    /// # Panics
    ///
    /// If the two are in different places, or their lengths differ.
    pub fn direction(&self, grad: &Floats, momentum: &mut Floats) -> Floats {
        let ahead = match (grad, &mut *momentum) {
            (Floats::Host(grad), Floats::Host(momentum)) => {
                Floats::Host(look_ahead(momentum, self.momentum, grad))
            }
            (Floats::Gpu(grad), Floats::Gpu(momentum)) => {
                let ahead =
                    on_gpu::look_ahead(grad.gpu(), momentum.view_mut(), self.momentum, grad.view());
                Floats::Gpu(ahead)
            }
            _ => panic!("a gradient and a momentum in different places"),
        };
        if self.nesterov { ahead } else { momentum.clone() }
    }

    /// Newton-Schulz on a whole direction, in the format that its products are taken in.
    ///
    /// # Panics
    ///
    /// If `shape` is no matrix of the direction's length.
    pub fn orthogonal(&self, shape: &[usize], dtype: DType, direction: &Floats) -> Tensor {
        let (rows, columns) = (shape[0], shape[1]);
        match direction {
            Floats::Host(direction) => {
                let values = in_format!(dtype, newton_schulz(direction, rows, columns, self.steps));
                Tensor::rounded(shape, values, dtype)
            }
            Floats::Gpu(own) => on_gpu::orthogonal(own.gpu(), own.view(), shape, self.steps, dtype),
        }
    }

    /// Moves rows of a master by the same rows of [`orthogonal`](Self::orthogonal); `shape` is
    /// the whole matrix's.
    pub fn turn(&self, shape: &[usize], lr: f32, orthogonal: &Tensor, master: &mut Floats) {
        fn turn<N: Number>(master: &mut [f32], keep: f32, by: f32, orthogonal: &Tensor) {
            scale_and_add(master, keep, by, orthogonal.numbers::<N>());
        }
        let size = self.update_rms * (shape[0].max(shape[1]) as f32).sqrt();
        let keep = 1.0 - lr * self.weight_decay;
        let by = -lr * size;
        match master {
            Floats::Host(master) => {
                in_format!(orthogonal.dtype(), turn(master, keep, by, orthogonal));
            }
            Floats::Gpu(own) => {
                let gpu = own.gpu().clone();
                on_gpu::turn(&gpu, own.view_mut(), keep, by, orthogonal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Rule,
        optim::{Optimizer, State},
    };

    fn random(key: u64, n: usize) -> Vec<f32> {
        (0..n as u64).map(|i| kernels::random::normal(key, i)).collect()
    }

    proptest! {
        #[test]
        fn slices_of_rows_move_like_the_whole_matrix(
            rows in 1..12usize, columns in 1..12usize, holders in 1..5usize,
            nesterov: bool, narrow: bool,
        ) {
            let dtype = if narrow { DType::Bf16 } else { DType::F32 };
            let muon = MuonClip { nesterov, ..MuonClip::default() };
            let optimizer = Optimizer::MuonClip(muon.clone());
            let shape = [rows, columns];
            let mut whole: Floats = random(1, rows * columns).into();
            let mut state = optimizer.state(Rule::Muon, &shape);
            let mut master = whole.clone();
            let mut momentum: Floats = vec![0.0; whole.len()].into();
            for step in 0..3 {
                let grad: Floats = random(2 + step, rows * columns).into();
                optimizer.update(Rule::Muon, &shape, dtype, 0.1, &grad, &mut whole, &mut state);
                let cut = |at: usize| rows * at / holders;
                let slice = |at: usize| cut(at) * columns..cut(at + 1) * columns;
                let directions = (0..holders).map(slice);
                let mut moved: Vec<Floats> =
                    directions.map(|of| momentum.part(of)).collect();
                let direction = Floats::joined((0..holders).map(|at| {
                    muon.direction(&grad.part(slice(at)), &mut moved[at])
                }));
                momentum = Floats::joined(moved);
                let orthogonal = muon.orthogonal(&shape, dtype, &direction);
                let turned = |at: usize| {
                    let part = orthogonal.rows(cut(at)..cut(at + 1));
                    let mut own = master.part(slice(at));
                    muon.turn(&shape, 0.1, &part, &mut own);
                    own
                };
                master = Floats::joined((0..holders).map(turned));
                prop_assert_eq!(&master, &whole);
                prop_assert_eq!(&State::Muon { momentum: momentum.clone() }, &state);
            }
        }
    }
}
