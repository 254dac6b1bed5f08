//! The three products of an expert layer: ragged groups, any extents, any alignment, and rows whose
//! bits depend on nothing beside them.

use half::bf16;
use kernels::{
    cuda::{
        Buffer, DeviceError, Element, Float, View,
        grouped::{self, Blend, Extents, GROUPS, Sum},
    },
    gemm::{self, Output},
};

use crate::{
    bed::{Bed, named, tolerance},
    products::on_cpu,
};

/// Rows that groups may have: none, one, and around those that a warp, a warpgroup or a block has
/// at a time.
const ROWS: [usize; 14] = [0, 1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 128, 130, 257];

/// Widths of inputs and outputs: tiny, odd, and around the columns of a tile and the depth of a
/// stage, more of which than are under way.
const WIDTHS: [(usize, usize); 14] = [
    (1, 1),
    (8, 16),
    (16, 8),
    (64, 136),
    (200, 24),
    (37, 65),
    (131, 3),
    (72, 261),
    (328, 256),
    (248, 328),
    (64, 264),
    (56, 64),
    (130, 63),
    (257, 129),
];

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    each::<f32>(bed)?;
    each::<bf16>(bed)
}

fn each<N: Float>(bed: &mut Bed) -> Result<(), DeviceError> {
    if bed.is_brief {
        // Two tiles of rows and of columns, more stages than are under way, and odd widths.
        check::<N>(bed, &[130, 0, 17], Extents { input: 136, output: 40 }, 0)?;
        check::<N>(bed, &[70], Extents { input: 328, output: 264 }, 0)?;
        return check::<N>(bed, &[3, 33], Extents { input: 37, output: 135 }, 1);
    }
    for (input, output) in WIDTHS {
        for shift in [0, 1] {
            let groups = 1 + bed.below(1, 5)[0] as usize;
            let counts = bed.below(groups, ROWS.len()).iter().map(|&i| ROWS[i as usize]).collect();
            let counts: Vec<usize> = counts;
            check::<N>(bed, &counts, Extents { input, output }, shift)?;
        }
    }
    for extents in [(0, 4), (4, 0), (0, 0)] {
        check::<N>(bed, &[2, 0, 3], Extents { input: extents.0, output: extents.1 }, 0)?;
    }
    check::<N>(bed, &[0, 0], Extents { input: 8, output: 8 }, 0)?;
    check::<N>(bed, &[], Extents { input: 8, output: 8 }, 0)?;
    // Enough tiles of rows for more than one band, and enough groups for more than one launch.
    check::<N>(bed, &[2063], Extents { input: 16, output: 264 }, 0)?;
    // Rows of every kind, the last so many that a weight's depth is more than the stages there are.
    check::<N>(bed, &[1, 64, 129, 330], Extents { input: 320, output: 264 }, 0)?;
    let counts: Vec<usize> = (0..GROUPS + 60).map(|group| group % 3).collect();
    check::<N>(bed, &counts, Extents { input: 8, output: 8 }, 0)?;
    alone_and_together::<N>(bed)
}

/// Numbers that begin `shift` elements behind a place that is aligned for everything.
struct Shifted<N: Element> {
    buffer: Buffer<N>,
    shift: usize,
}

impl<N: Float> Shifted<N> {
    fn up(bed: &Bed, values: &[N], shift: usize) -> Result<Self, DeviceError> {
        let all = [&vec![N::ZERO; shift], values].concat();
        Ok(Shifted { buffer: bed.up(&all)?, shift })
    }

    fn view(&self) -> View<'_, N> {
        self.buffer.view().part(self.shift..self.buffer.len())
    }
}

/// All three parts against the CPU.
fn check<N: Float>(
    bed: &mut Bed,
    counts: &[usize],
    at: Extents,
    shift: usize,
) -> Result<(), DeviceError> {
    let Extents { input, output } = at;
    let (rows, name) = (counts.iter().sum::<usize>(), (counts, input, output, shift));
    let (x, dy): (Vec<N>, Vec<N>) = (bed.normal(rows * input, 1.0), bed.normal(rows * output, 1.0));
    let w: Vec<Vec<N>> = counts.iter().map(|_| bed.normal(output * input, 1.0)).collect();
    let on_w: Vec<Shifted<N>> =
        w.iter().map(|w| Shifted::up(bed, w, shift)).collect::<Result<_, _>>()?;
    let views: Vec<View<'_, N>> = on_w.iter().map(Shifted::view).collect();
    let (on_x, on_dy) = (Shifted::up(bed, &x, shift)?, Shifted::up(bed, &dy, shift)?);

    let factor = |e: usize| on_cpu(&w[e], input, output, true).into();
    let y = gemm::multiply_grouped(on_cpu(&x, rows, input, false), counts, output, factor);
    let mut out = bed.poisoned(shift + rows * output)?;
    let to = out.view_mut().part(shift..shift + rows * output);
    grouped::forward(&bed.stream, at, on_x.view(), counts, &views, Blend::SUMS, to)?;
    behind(bed, &named::<N>("grouped forward", name), &out, &y, shift)?;

    let factor = |e: usize| on_cpu(&w[e], output, input, false).into();
    let dx = gemm::multiply_grouped(on_cpu(&dy, rows, output, false), counts, input, factor);
    let mut out = bed.poisoned(shift + rows * input)?;
    let to = out.view_mut().part(shift..shift + rows * input);
    grouped::backward_input(&bed.stream, at, on_dy.view(), counts, &views, Blend::SUMS, to)?;
    behind(bed, &named::<N>("grouped backward_input", name), &out, &dx, shift)?;

    weight(bed, counts, at, (&dy, &on_dy), (&x, &on_x))
}

/// Compares what lies behind `shift` poisoned elements, which are to stay as they are.
fn behind<N: Float>(
    bed: &mut Bed,
    name: &str,
    out: &Buffer<N>,
    expected: &[N],
    shift: usize,
) -> Result<(), DeviceError> {
    let values = bed.down(out)?;
    bed.holds(&format!("{name}, before it"), values[..shift].iter().all(|x| x.wide().is_nan()));
    bed.near(name, &values[shift..], expected, tolerance::<N>());
    Ok(())
}

/// Sums of weight gradients, every other one written, the others added to; those of groups without
/// rows keep their bits.
fn weight<N: Float>(
    bed: &mut Bed,
    counts: &[usize],
    at: Extents,
    (dy, on_dy): (&[N], &Shifted<N>),
    (x, on_x): (&[N], &Shifted<N>),
) -> Result<(), DeviceError> {
    let (Extents { input, output }, shift) = (at, on_x.shift);
    let (size, mut end) = (output * input, 0);
    let (mut expected, mut all, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for (group, &count) in counts.iter().enumerate() {
        let rows = end..end + count;
        end = rows.end;
        let mut dw: Vec<f32> = bed.normal(size, 1.0);
        all.push(Shifted::up(bed, &dw, shift)?);
        let how = if group % 2 == 0 { Output::Write } else { Output::Add };
        if count > 0 {
            let dy = on_cpu(&dy[rows.start * output..rows.end * output], output, count, true);
            let x = on_cpu(&x[rows.start * input..rows.end * input], count, input, false);
            gemm::product(f32_matrix(&mut dw, output, input), how, 1.0, dy, x);
        }
        expected.push(dw);
        sums.push((rows, how));
    }
    let whole = shift..shift + size;
    let parts = all.iter_mut().zip(sums).map(|(dw, (rows, output))| {
        let dw = dw.buffer.view_mut().part(whole.clone());
        Sum { rows, dw, output }
    });
    let parts = parts.collect();
    grouped::backward_weight(&bed.stream, at, on_dy.view(), on_x.view(), parts)?;
    for (group, (dw, expected)) in all.iter().zip(expected).enumerate() {
        let values = bed.down(&dw.buffer)?;
        let case = (counts, group, input, output, shift);
        let name = named::<N>("grouped backward_weight", case);
        match counts[group] {
            0 => bed.holds(&name, values[shift..] == expected),
            // A sum's error grows as the root of its terms; what is left of them may be small.
            count => {
                let tolerance = tolerance::<f32>() * (count as f64).sqrt();
                bed.near(&name, &values[shift..], &expected, tolerance);
            }
        }
    }
    Ok(())
}

fn f32_matrix(values: &mut [f32], rows: usize, cols: usize) -> gemm::MatrixMut<'_> {
    gemm::MatrixMut::strided(values, rows, cols, cols)
}

/// A row has the bits that it has in a group of its own, and a group those that it has alone.
fn alone_and_together<N: Float>(bed: &mut Bed) -> Result<(), DeviceError> {
    let at = Extents { input: 72, output: 136 };
    let counts = [17, 0, 130, 1];
    let rows: usize = counts.iter().sum();
    let (x, dy): (Vec<N>, Vec<N>) =
        (bed.normal(rows * at.input, 1.0), bed.normal(rows * at.output, 1.0));
    let w: Vec<Vec<N>> = counts.iter().map(|_| bed.normal(at.output * at.input, 1.0)).collect();
    let together = outputs(bed, at, &x, &dy, &counts, &w)?;
    let mut end = 0;
    for (group, &count) in counts.iter().enumerate() {
        let own = end..end + count;
        end = own.end;
        let part = |range: std::ops::Range<usize>, values: &[N], width: usize| {
            values[range.start * width..range.end * width].to_vec()
        };
        let (own_x, own_dy) = (part(own.clone(), &x, at.input), part(own.clone(), &dy, at.output));
        let alone = outputs(bed, at, &own_x, &own_dy, &[count], &w[group..=group])?;
        let (y, dx) =
            (part(own.clone(), &together.y, at.output), part(own.clone(), &together.dx, 72));
        bed.arrived(&named::<N>("a group's y alone", group), &bits(&alone.y), &bits(&y));
        bed.arrived(&named::<N>("a group's dx alone", group), &bits(&alone.dx), &bits(&dx));
        bed.arrived(&named::<N>("a group's dw alone", group), &alone.dw[0], &together.dw[group]);
        for row in own.clone().step_by(16) {
            let row_x = part(row..row + 1, &x, at.input);
            let row_dy = part(row..row + 1, &dy, at.output);
            let alone = outputs(bed, at, &row_x, &row_dy, &[1], &w[group..=group])?;
            let y = part(row..row + 1, &together.y, at.output);
            let dx = part(row..row + 1, &together.dx, at.input);
            bed.arrived(&named::<N>("a row's y alone", row), &bits(&alone.y), &bits(&y));
            bed.arrived(&named::<N>("a row's dx alone", row), &bits(&alone.dx), &bits(&dx));
        }
    }
    Ok(())
}

/// The values, exactly.
fn bits<N: Float>(values: &[N]) -> Vec<f32> {
    values.iter().map(|x| x.wide()).collect()
}

/// What the three parts give; `dw` of a group without rows is of zeros.
struct Outputs<N> {
    y: Vec<N>,
    dx: Vec<N>,
    dw: Vec<Vec<f32>>,
}

fn outputs<N: Float>(
    bed: &Bed,
    at: Extents,
    x: &[N],
    dy: &[N],
    counts: &[usize],
    w: &[Vec<N>],
) -> Result<Outputs<N>, DeviceError> {
    let (s, on_x, on_dy) = (&bed.stream, bed.up(x)?, bed.up(dy)?);
    let w = w.iter().map(|w| bed.up(w)).collect::<Result<Vec<_>, _>>()?;
    let w: Vec<View<'_, N>> = w.iter().map(Buffer::view).collect();
    let (mut y, mut dx) = (bed.poisoned(dy.len())?, bed.poisoned(x.len())?);
    grouped::forward(s, at, on_x.view(), counts, &w, Blend::SUMS, y.view_mut())?;
    grouped::backward_input(s, at, on_dy.view(), counts, &w, Blend::SUMS, dx.view_mut())?;
    let zeros = vec![0.0_f32; at.input * at.output];
    let mut dw = counts.iter().map(|_| bed.up(&zeros)).collect::<Result<Vec<_>, _>>()?;
    let mut end = 0;
    let sums = dw.iter_mut().zip(counts).map(|(dw, count)| {
        let rows = end..end + count;
        end = rows.end;
        Sum { rows, dw: dw.view_mut(), output: Output::Write }
    });
    let sums = sums.collect();
    grouped::backward_weight(s, at, on_dy.view(), on_x.view(), sums)?;
    let dw = dw.iter().map(|dw| bed.gpu.down(dw.view())).collect::<Result<_, _>>()?;
    Ok(Outputs { y: bed.gpu.down(y.view())?, dx: bed.gpu.down(dx.view())?, dw })
}
