//! Newton-Schulz of one matrix and of many, and the products that it is made of: what becomes of
//! sums, and the same bits alone as in company.

use half::bf16;
use kernels::{
    cuda::{
        Buffer, DeviceError, Float, View,
        grouped::{self, Blend, Extents},
        newton_schulz as device,
    },
    gemm::{self, Output},
    newton_schulz::newton_schulz,
};

use crate::{
    bed::{Bed, Same, named, tolerance},
    products::on_cpu,
};

/// Flat, square and tall, tiny, odd, and of more than a tile.
const SHAPES: [(usize, usize); 6] = [(24, 10), (10, 24), (33, 33), (1, 5), (24, 264), (72, 32)];

/// How many at a time: a table of them but for one, all of it, one more, and of several tables.
const COUNTS: [usize; 5] = [1, 2, 63, 64, 65];
const MOST: usize = 130;

/// Elements of a matrix that is too large to go with others.
const LARGE: usize = (4 << 20) + 1;

const STEPS: usize = 5;

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    each::<f32>(bed)?;
    each::<bf16>(bed)?;
    if bed.is_brief { Ok(()) } else { together::<bf16>(bed, 2, (1, LARGE)) }
}

fn each<N: Float + Same>(bed: &mut Bed) -> Result<(), DeviceError> {
    if bed.is_brief {
        blended::<N>(bed, &[130, 17], Extents { input: 136, output: 264 }, 0)?;
        return together::<N>(bed, 2, (10, 24));
    }
    for shift in [0, 1] {
        for (input, output) in [(8, 16), (37, 65), (131, 3), (72, 261), (264, 328)] {
            blended::<N>(bed, &[17, 0, 130, 64], Extents { input, output }, shift)?;
        }
    }
    SHAPES.into_iter().try_for_each(|shape| against_cpu::<N>(bed, shape))?;
    many::<N>(bed)?;
    SHAPES.into_iter().try_for_each(|shape| together::<N>(bed, 3, shape))?;
    let zeros = bed.up(&[0.0_f32; 12])?;
    let x = of_all::<N>(bed, &[zeros.view()], (3, 4))?;
    bed.near(&named::<N>("newton_schulz of zeros", (3, 4)), &x[0], &[N::ZERO; 12], 0.0);
    bed.holds("no matrix", of_all::<N>(bed, &[], (3, 4))?.is_empty());
    Ok(())
}

/// The results of so many matrices on the host.
fn of_all<N: Float>(
    bed: &Bed,
    all: &[View<'_, f32>],
    (rows, cols): (usize, usize),
) -> Result<Vec<Vec<N>>, DeviceError> {
    let buffers = device::newton_schulz::<N>(&bed.gpu, all, rows, cols, STEPS)?;
    let down = |buffer: Buffer<N>| bed.gpu.down(buffer.view());
    let buffers = buffers.into_iter().map(down).collect::<Result<Vec<_>, _>>()?;
    Ok(buffers.iter().flat_map(|x| x.chunks(rows * cols)).map(<[N]>::to_vec).collect())
}

fn against_cpu<N: Float>(bed: &mut Bed, shape: (usize, usize)) -> Result<(), DeviceError> {
    let (rows, cols) = shape;
    let g: Vec<f32> = bed.normal(rows * cols, 1.0);
    let expected = newton_schulz::<N>(&g, rows, cols, STEPS);
    let expected: Vec<N> = expected.into_iter().map(N::nearest).collect();
    let on_g = bed.up(&g)?;
    let x = of_all::<N>(bed, &[on_g.view()], shape)?;
    // Five steps of rounded products spread a rounding over the whole matrix.
    let apart = 50.0 * tolerance::<N>();
    bed.near(&named::<N>("newton_schulz", shape), &x[0], &expected, apart);
    Ok(())
}

/// Each of some matrices has the bits that it has alone.
fn together<N: Float + Same>(
    bed: &mut Bed,
    count: usize,
    shape: (usize, usize),
) -> Result<(), DeviceError> {
    let all: Vec<Vec<f32>> = (0..count).map(|_| bed.normal(shape.0 * shape.1, 1.0)).collect();
    let all = all.iter().map(|g| bed.up(g)).collect::<Result<Vec<_>, _>>()?;
    let views: Vec<View<'_, f32>> = all.iter().map(Buffer::view).collect();
    let together = of_all::<N>(bed, &views, shape)?;
    let name = named::<N>("newton_schulz in company", (count, shape));
    bed.holds(&name, together.len() == count);
    for (view, x) in views.iter().zip(&together) {
        let alone = of_all::<N>(bed, &[*view], shape)?;
        bed.arrived(&name, x, &alone[0]);
    }
    Ok(())
}

/// A matrix has the same bits in company of any size.
fn many<N: Float + Same>(bed: &mut Bed) -> Result<(), DeviceError> {
    let all: Vec<Vec<f32>> = (0..MOST).map(|_| bed.normal(15, 1.0)).collect();
    let all = all.iter().map(|g| bed.up(g)).collect::<Result<Vec<_>, _>>()?;
    let views: Vec<View<'_, f32>> = all.iter().map(Buffer::view).collect();
    let whole = of_all::<N>(bed, &views, (5, 3))?;
    bed.holds("all of many matrices", whole.len() == MOST);
    for count in COUNTS {
        let some = of_all::<N>(bed, &views[..count], (5, 3))?;
        let name = named::<N>("newton_schulz in company", count);
        bed.arrived(&name, &some.concat(), &whole[..count].concat());
    }
    for last in [63, 64, MOST - 1] {
        let alone = of_all::<N>(bed, &views[last..=last], (5, 3))?;
        bed.arrived(&named::<N>("newton_schulz alone", last), &alone[0], &whole[last]);
    }
    Ok(())
}

/// Both products of groups, of which a part of something else is kept, against the CPU; without
/// such a part nothing is read of it.
fn blended<N: Float>(
    bed: &mut Bed,
    counts: &[usize],
    at: Extents,
    shift: usize,
) -> Result<(), DeviceError> {
    let Extents { input, output } = at;
    let rows: usize = counts.iter().sum();
    let w: Vec<Vec<N>> = counts.iter().map(|_| bed.normal(output * input, 1.0)).collect();
    let on_w = w.iter().map(|w| bed.up(w)).collect::<Result<Vec<_>, _>>()?;
    let w_views: Vec<View<'_, N>> = on_w.iter().map(Buffer::view).collect();
    for is_turned in [true, false] {
        let (depth, width) = if is_turned { (input, output) } else { (output, input) };
        let (x, base): (Vec<N>, Vec<N>) =
            (bed.normal(rows * depth, 1.0), bed.normal(shift + rows * width, 1.0));
        let (on_x, on_base) = (bed.up(&x)?, bed.up(&base)?);
        for keep in [None, Some(-0.75)] {
            let from = on_base.view().part(shift..base.len());
            let blend = Blend { by: 1.25, base: keep.map(|keep| (keep, from)) };
            let mut y = bed.poisoned::<N>(rows * width)?;
            let (s, x_view, to) = (&bed.stream, on_x.view(), y.view_mut());
            match is_turned {
                true => grouped::forward(s, at, x_view, counts, &w_views, blend, to)?,
                false => grouped::backward_input(s, at, x_view, counts, &w_views, blend, to)?,
            }
            let sums = sums_of(&x, counts, &w, (depth, width), is_turned);
            let kept = base[shift..].iter().map(|x| x.wide() * keep.unwrap_or(0.0));
            let expected: Vec<N> =
                sums.iter().zip(kept).map(|(sum, kept)| N::nearest(kept + 1.25 * sum)).collect();
            let case = (counts, input, output, is_turned, keep, shift);
            bed.close(&named::<N>("blended", case), &y, &expected, tolerance::<N>())?;
        }
    }
    Ok(())
}

/// Rows of each group times its matrix, in F32.
fn sums_of<N: Float>(
    x: &[N],
    counts: &[usize],
    w: &[Vec<N>],
    (depth, width): (usize, usize),
    is_turned: bool,
) -> Vec<f32> {
    let (mut all, mut first) = (Vec::new(), 0);
    for (count, w) in counts.iter().zip(w) {
        let mut sums = vec![0.0; count * width];
        let own = on_cpu(&x[first * depth..(first + count) * depth], *count, depth, false);
        let to = gemm::MatrixMut::strided(&mut sums, *count, width, width);
        gemm::product(to, Output::Write, 1.0, own, on_cpu(w, depth, width, is_turned));
        all.extend(sums);
        first += count;
    }
    all
}
