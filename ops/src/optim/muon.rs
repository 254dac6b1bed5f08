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
use crate::{DType, Floats, Place, Tensor, on_gpu::optim as on_gpu, tensor::in_format};

impl MuonClip {
    /// Adds gradients to their momenta and returns what Newton-Schulz is to work on, of each pair.
    ///
    /// Element by element, so slices give the bits of the whole.
    ///
    /// # Panics
    ///
    /// If not all is in one place, the lengths of a pair differ, or, on a GPU, those of pairs.
    pub fn directions(&self, mut all: Vec<(&Floats, &mut Floats)>) -> Vec<Floats> {
        let ahead: Vec<Floats> = match all.first().map_or(Place::Host, |(grad, _)| grad.place()) {
            Place::Host => {
                let each = all.iter_mut().map(|(grad, momentum)| {
                    look_ahead(momentum.host_mut(), self.momentum, grad.host())
                });
                each.map(Floats::Host).collect()
            }
            Place::Gpu(gpu) => {
                let all = all.iter_mut().map(|(grad, m)| (grad.on_gpu(), m.on_gpu_mut())).collect();
                let ahead = on_gpu::look_ahead(&gpu, self.momentum, all);
                ahead.into_iter().map(Floats::Gpu).collect()
            }
        };
        if self.nesterov { ahead } else { all.iter().map(|(_, m)| (**m).clone()).collect() }
    }

    /// Newton-Schulz on whole directions of one shape, in the format that its products are taken
    /// in.
    ///
    /// # Panics
    ///
    /// If `shape` is no matrix of a direction's length, or they are in different places.
    pub fn orthogonal(&self, shape: &[usize], dtype: DType, directions: &[&Floats]) -> Vec<Tensor> {
        let (rows, columns) = (shape[0], shape[1]);
        match Floats::place_of(directions) {
            Place::Host => {
                let each = directions.iter().map(|direction| {
                    let g = direction.host();
                    let values = in_format!(dtype, newton_schulz(g, rows, columns, self.steps));
                    Tensor::rounded(shape, values, dtype)
                });
                each.collect()
            }
            Place::Gpu(gpu) => {
                on_gpu::orthogonal(&gpu, &Floats::views(directions), shape, self.steps, dtype)
            }
        }
    }

    /// Moves rows of masters, each by the same rows of [`orthogonal`](Self::orthogonal); `shape` is
    /// the whole matrices'.
    ///
    /// # Panics
    ///
    /// If not all is in one place, the lengths of a pair differ, or, on a GPU, those of pairs.
    pub fn turn(&self, shape: &[usize], lr: f32, all: Vec<(&Tensor, &mut Floats)>) {
        fn turn<N: Number>(master: &mut [f32], keep: f32, by: f32, orthogonal: &Tensor) {
            scale_and_add(master, keep, by, orthogonal.numbers::<N>());
        }
        let size = self.update_rms * (shape[0].max(shape[1]) as f32).sqrt();
        let keep = 1.0 - lr * self.weight_decay;
        let by = -lr * size;
        match all.first().map_or(Place::Host, |(_, master)| master.place()) {
            Place::Host => all.into_iter().for_each(|(orthogonal, master)| {
                in_format!(orthogonal.dtype(), turn(master.host_mut(), keep, by, orthogonal));
            }),
            Place::Gpu(gpu) => {
                let all = all.into_iter().map(|(x, master)| (x, master.on_gpu_mut())).collect();
                on_gpu::turn(&gpu, keep, by, all);
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
                    let grad = grad.part(slice(at));
                    muon.directions(vec![(&grad, &mut moved[at])]).remove(0)
                }));
                momentum = Floats::joined(moved);
                let orthogonal = muon.orthogonal(&shape, dtype, &[&direction]).remove(0);
                let turned = |at: usize| {
                    let part = orthogonal.rows(cut(at)..cut(at + 1));
                    let mut own = master.part(slice(at));
                    muon.turn(&shape, 0.1, vec![(&part, &mut own)]);
                    own
                };
                master = Floats::joined((0..holders).map(turned));
                prop_assert_eq!(&master, &whole);
                prop_assert_eq!(&State::Muon { momentum: momentum.clone() }, &state);
            }
        }
    }
}
