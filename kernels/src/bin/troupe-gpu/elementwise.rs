//! Casts, SwiGLU, sums and scaling: the bits of the CPU, aligned and not.

use half::bf16;
use kernels::{
    cast,
    cuda::{DeviceError, Float, elementwise, reduce as device},
    reduce, swiglu,
};

use crate::bed::{Bed, Same, named};

/// Numbers of elements: none, one, whole and ragged groups, more than one grid strides over.
const COUNTS: [usize; 6] = [0, 1, 8, 13, 3000, 40_003];

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    let counts: &[usize] = if bed.is_brief { &[3000] } else { &COUNTS };
    for &count in counts {
        casts(bed, count)?;
        in_format::<f32>(bed, count)?;
        in_format::<bf16>(bed, count)?;
        mixed(bed, count)?;
    }
    unaligned(bed)
}

fn casts(bed: &mut Bed, count: usize) -> Result<(), DeviceError> {
    let wide = bed.wild(count);
    let narrow = cast::narrow(&wide);
    let mut back = vec![0.0; count];
    cast::widen(&narrow, &mut back);
    let (x, mut y) = (bed.up(&narrow)?, bed.poisoned(count)?);
    elementwise::widen(&bed.stream, x.view(), y.view_mut())?;
    bed.same(&format!("widen [{count}]"), &y, &back)?;

    let mut y = bed.up(&wide)?;
    elementwise::round(&bed.stream, y.view_mut())?;
    bed.same(&format!("round [{count}]"), &y, &back)
}

fn in_format<N: Float + Same>(bed: &mut Bed, count: usize) -> Result<(), DeviceError> {
    let [gate, up, dy]: [Vec<N>; 3] = [5.0, 1.0, 1.0].map(|size| bed.normal(count, size));
    let mut y = swiglu::forward(&gate, &up);
    let (on_gate, on_up, on_dy) = (bed.up(&gate)?, bed.up(&up)?, bed.up(&dy)?);
    let mut out = bed.poisoned(count)?;
    let (g, u) = (on_gate.view(), on_up.view());
    elementwise::swiglu_forward(&bed.stream, g, u, out.view_mut())?;
    bed.same(&named::<N>("swiglu forward", count), &out, &y)?;

    let (dgate, dup) = swiglu::backward(&gate, &up, &dy);
    let (mut on_dgate, mut on_dup) = (bed.poisoned(count)?, bed.poisoned(count)?);
    let (to_gate, to_up) = (on_dgate.view_mut(), on_dup.view_mut());
    elementwise::swiglu_backward(&bed.stream, g, u, on_dy.view(), to_gate, to_up)?;
    bed.same(&named::<N>("swiglu dgate", count), &on_dgate, &dgate)?;
    bed.same(&named::<N>("swiglu dup", count), &on_dup, &dup)?;

    for terms in [1, 2, 3, 8] {
        let all: Vec<Vec<N>> = (0..terms).map(|_| bed.normal(count, 1.0)).collect();
        let buffers = all.iter().map(|x| bed.up(x)).collect::<Result<Vec<_>, _>>()?;
        let views: Vec<_> = buffers.iter().map(|x| x.view()).collect();
        let mut sum = bed.poisoned(count)?;
        device::sums(&bed.stream, &views, sum.view_mut())?;
        let slices: Vec<&[N]> = all.iter().map(Vec::as_slice).collect();
        reduce::sums(&slices, &mut y);
        bed.same(&named::<N>("sums", (terms, count)), &sum, &y)?;
    }

    let mut on_sum = bed.up(&up)?;
    device::add_rounded(&bed.stream, on_sum.view_mut(), on_dy.view())?;
    let sum = reduce::sum(&up, &dy);
    bed.same(&named::<N>("add_rounded", count), &on_sum, &sum)?;

    let mut sum: Vec<f32> = bed.normal(count, 1.0);
    let mut on_sum = bed.up(&sum)?;
    device::add_scaled(&bed.stream, on_sum.view_mut(), -0.37, on_dy.view())?;
    reduce::add_scaled(&mut sum, -0.37, &dy);
    bed.same(&named::<N>("add_scaled", count), &on_sum, &sum)?;

    let mut out = bed.poisoned(count)?;
    device::scaled(&bed.stream, on_dy.view(), 1.7, out.view_mut())?;
    reduce::scaled(&dy, 1.7, &mut y);
    bed.same(&named::<N>("scaled", count), &out, &y)
}

fn mixed(bed: &mut Bed, count: usize) -> Result<(), DeviceError> {
    let x: Vec<f32> = bed.normal(count, 1.0);
    let (on_x, mut narrow) = (bed.up(&x)?, bed.poisoned::<bf16>(count)?);
    device::scaled(&bed.stream, on_x.view(), 0.3, narrow.view_mut())?;
    let mut expected = vec![bf16::ZERO; count];
    reduce::scaled(&x, 0.3, &mut expected);
    bed.same(&format!("scaled to BF16 [{count}]"), &narrow, &expected)?;

    let mut wide = bed.poisoned::<f32>(count)?;
    device::scaled(&bed.stream, narrow.view(), 0.7, wide.view_mut())?;
    let mut back = vec![0.0; count];
    reduce::scaled(&expected, 0.7, &mut back);
    bed.same(&format!("scaled to F32 [{count}]"), &wide, &back)?;

    device::add(&bed.stream, wide.view_mut(), on_x.view())?;
    reduce::add(&mut back, &x);
    bed.same(&format!("add [{count}]"), &wide, &back)?;
    device::scale(&bed.stream, wide.view_mut(), -3.0)?;
    reduce::scale(&mut back, -3.0);
    bed.same(&format!("scale [{count}]"), &wide, &back)
}

/// Views that begin anywhere, and write nothing beside themselves.
fn unaligned(bed: &mut Bed) -> Result<(), DeviceError> {
    let count = 1003;
    let x: Vec<bf16> = bed.normal(count, 1.0);
    let (on_x, mut out) = (bed.up(&x)?, bed.up(&x)?);
    let stream = bed.stream.clone();
    device::scaled(&stream, on_x.view().part(3..900), 2.0, out.view_mut().part(1..898))?;
    let mut expected = x.clone();
    reduce::scaled(&x[3..900], 2.0, &mut expected[1..898]);
    bed.same("scaled, unaligned", &out, &expected)
}
