//! Products in the three layouts that operators use, strided, and without any element.

use half::bf16;
use kernels::{
    cuda::{
        DeviceError, Float,
        products::{Matrix, MatrixMut},
    },
    gemm::{self, Output},
};

use crate::bed::{Bed, named, tolerance};

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    for extents in
        [(1, 1, 1), (3, 5, 7), (16, 32, 8), (65, 33, 40), (0, 4, 4), (4, 0, 3), (4, 4, 0)]
    {
        for turned in [(false, false), (false, true), (true, false), (true, true)] {
            for output in [Output::Write, Output::Add] {
                product::<f32, f32>(bed, extents, turned, output)?;
                product::<bf16, f32>(bed, extents, turned, output)?;
                product::<bf16, bf16>(bed, extents, turned, output)?;
            }
        }
    }
    strided(bed)
}

/// A matrix on the host and how it is stored.
pub fn on_cpu<N: Float>(
    values: &[N],
    rows: usize,
    cols: usize,
    is_turned: bool,
) -> gemm::Matrix<'_> {
    match is_turned {
        true => gemm::Matrix::of(N::values(values), cols, rows, rows).transposed(),
        false => gemm::Matrix::of(N::values(values), rows, cols, cols),
    }
}

fn product<N: Float, C: Float>(
    bed: &mut Bed,
    extents: (usize, usize, usize),
    turned: (bool, bool),
    output: Output,
) -> Result<(), DeviceError> {
    let (rows, depth, cols) = extents;
    let (a, b): (Vec<N>, Vec<N>) = (bed.normal(rows * depth, 1.0), bed.normal(depth * cols, 1.0));
    let mut c: Vec<C> = bed.normal(rows * cols, 1.0);
    let (on_a, on_b) = (bed.up(&a)?, bed.up(&b)?);
    let mut on_c = if output == Output::Add { bed.up(&c)? } else { bed.poisoned(c.len())? };
    let (left, right) = (on_cpu(&a, rows, depth, turned.0), on_cpu(&b, depth, cols, turned.1));
    gemm::product(C::matrix(&mut c, rows, cols, cols), output, 0.7, left, right);
    let left = match turned.0 {
        true => Matrix::new(on_a.view(), depth, rows).transposed(),
        false => Matrix::new(on_a.view(), rows, depth),
    };
    let right = match turned.1 {
        true => Matrix::new(on_b.view(), cols, depth).transposed(),
        false => Matrix::new(on_b.view(), depth, cols),
    };
    let out = MatrixMut::new(on_c.view_mut(), rows, cols);
    bed.gpu.products().product(out, output, 0.7, left, right)?;
    let name = format!("{} to {:?}", named::<N>("product", (extents, turned, output)), C::FORMAT);
    bed.close(&name, &on_c, &c, tolerance::<C>())
}

/// A part of a matrix is written, and nothing beside it.
fn strided(bed: &mut Bed) -> Result<(), DeviceError> {
    let (rows, depth, cols, stride) = (7, 6, 5, 11);
    let (a, b): (Vec<bf16>, Vec<bf16>) =
        (bed.normal(rows * stride, 1.0), bed.normal(depth * stride, 1.0));
    let mut c: Vec<f32> = bed.normal(rows * stride, 1.0);
    let (on_a, on_b, mut on_c) = (bed.up(&a)?, bed.up(&b)?, bed.up(&c)?);
    let (a_from, b_from, c_from) = (3, 1, 4);
    let left = gemm::Matrix::of(gemm::Values::Bf16(&a[a_from..]), rows, depth, stride);
    let right = gemm::Matrix::of(gemm::Values::Bf16(&b[b_from..]), depth, cols, stride);
    let out = gemm::MatrixMut::strided(&mut c[c_from..], rows, cols, stride);
    gemm::product(out, Output::Write, 1.0, left, right);
    let (a, b) = (on_a.view(), on_b.view());
    let left = Matrix::strided(a.part(a_from..a.len()), rows, depth, stride);
    let right = Matrix::strided(b.part(b_from..b.len()), depth, cols, stride);
    let len = c.len();
    let out = MatrixMut::strided(on_c.view_mut().part(c_from..len), rows, cols, stride);
    bed.gpu.products().product(out, Output::Write, 1.0, left, right)?;
    bed.close("product of parts", &on_c, &c, 2e-6)
}
