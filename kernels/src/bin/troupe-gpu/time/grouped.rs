//! Times an expert layer's products, each beside a dense product of as many operations.

use kernels::{
    cuda::{
        Buffer, DeviceError, View,
        grouped::{self, Blend, Extents, Sum},
        products::{Matrix, MatrixMut},
    },
    gemm::Output,
};

use super::Clock;

impl Clock {
    /// The first product of the experts of a rank, to which half to three halves of the mean go.
    pub fn grouped(&self) -> Result<(), DeviceError> {
        let (s, experts) = (&self.stream, self.at.own_experts);
        let (input, output) = (self.at.width, self.at.inner);
        let mean = (self.at.tokens * self.at.per_token).div_ceil(experts);
        let counts: Vec<usize> = (0..experts).map(|e| mean * (1 + e % 3) / 2).collect();
        let (rows, size, at) = (counts.iter().sum(), input * output, Extents { input, output });
        let (mut x, mut y) = (self.bf16(rows * input)?, self.bf16(rows * output)?);
        let w = (0..experts).map(|_| self.bf16(size)).collect::<Result<Vec<_>, _>>()?;
        let w: Vec<View<'_, _>> = w.iter().map(Buffer::view).collect();
        let mut dw = counts.iter().map(|_| self.f32(size)).collect::<Result<Vec<_>, _>>()?;
        let flops = 2.0 * (rows * size) as f64;
        let moved = 2 * rows * (input + output);
        self.line("grouped forward", moved + 2 * experts * size, flops, || {
            grouped::forward(s, at, x.view(), &counts, &w, Blend::SUMS, y.view_mut())
        })?;
        self.line("as one dense product", moved + 2 * size, flops, || {
            let (a, b) = (Matrix::new(x.view(), rows, input), Matrix::new(w[0], output, input));
            let c = MatrixMut::new(y.view_mut(), rows, output);
            self.products.product(c, Output::Write, 1.0, a, b.transposed())
        })?;
        self.line("grouped backward input", moved + 2 * experts * size, flops, || {
            grouped::backward_input(s, at, y.view(), &counts, &w, Blend::SUMS, x.view_mut())
        })?;
        self.line("as one dense product", moved + 2 * size, flops, || {
            let (a, b) = (Matrix::new(y.view(), rows, output), Matrix::new(w[0], output, input));
            let c = MatrixMut::new(x.view_mut(), rows, input);
            self.products.product(c, Output::Write, 1.0, a, b)
        })?;
        self.line("grouped backward weight", moved + 8 * experts * size, flops, || {
            let mut end = 0;
            let sums = dw.iter_mut().zip(&counts).map(|(dw, count)| {
                let rows = end..end + count;
                end = rows.end;
                Sum { rows, dw: dw.view_mut(), output: Output::Add }
            });
            grouped::backward_weight(s, at, y.view(), x.view(), sums.collect())
        })?;
        self.line("as one dense product", moved + 8 * size, flops, || {
            let (a, b) = (Matrix::new(y.view(), rows, output), Matrix::new(x.view(), rows, input));
            let c = MatrixMut::new(dw[0].view_mut(), output, input);
            self.products.product(c, Output::Add, 1.0, a.transposed(), b)
        })
    }
}
