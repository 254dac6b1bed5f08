//! Kernels that take many pieces at a time: each piece has the bits of the CPU, or those that it
//! has alone, whatever stands beside it.

use half::bf16;
use kernels::{
    adamw,
    cuda::{
        Buffer, DeviceError, Element, Float, View, ViewMut, elementwise, newton_schulz,
        reduce as device, squares as on_squares,
    },
    reduce,
    squares::Squares,
};

use crate::bed::{Bed, Same, named};

/// How many: one, one table of them but for one, all of it, one more, and several tables.
const PIECES: [usize; 6] = [1, 2, 63, 64, 65, 130];

/// Their elements: none, one, whole and ragged groups of eight.
const LENGTHS: [usize; 5] = [0, 1, 8, 13, 300];

/// Elements of one piece alone; of the last, more than one grid strides over.
const LONG: [usize; 2] = [3000, 40_003];

/// Rows and columns of matrices: none, one, and ragged tiles of what is turned.
const EXTENTS: [(usize, usize); 4] = [(0, 3), (1, 1), (3, 5), (33, 65)];

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    if bed.is_brief {
        elementwise(bed, 2, 300)?;
        return matrices(bed, 2, (33, 65));
    }
    for pieces in PIECES {
        for len in LENGTHS {
            elementwise(bed, pieces, len)?;
        }
        for extents in EXTENTS {
            matrices(bed, pieces, extents)?;
        }
    }
    // Rows of three parts, whose squares are summed apart.
    matrices(bed, 2, (3, 9000))?;
    LONG.into_iter().try_for_each(|len| elementwise(bed, 1, len))?;
    none(bed)
}

fn elementwise(bed: &mut Bed, pieces: usize, len: usize) -> Result<(), DeviceError> {
    adamw(bed, pieces, len)?;
    momentum(bed, pieces, len)?;
    in_format::<f32>(bed, pieces, len)?;
    in_format::<bf16>(bed, pieces, len)
}

fn matrices(bed: &mut Bed, pieces: usize, extents: (usize, usize)) -> Result<(), DeviceError> {
    squares(bed, pieces, extents)?;
    transposed(bed, pieces, extents)?;
    over_norm::<f32>(bed, pieces, extents)?;
    over_norm::<bf16>(bed, pieces, extents)
}

/// Some pieces of one length on both sides.
struct Pieces<T: Element> {
    values: Vec<Vec<T>>,
    buffers: Vec<Buffer<T>>,
}

impl<T: Element> Pieces<T> {
    fn up(bed: &Bed, values: Vec<Vec<T>>) -> Result<Self, DeviceError> {
        let buffers = values.iter().map(|x| bed.up(x)).collect::<Result<_, _>>()?;
        Ok(Pieces { values, buffers })
    }

    /// Outputs, full of NaN on the device.
    fn poisoned(bed: &Bed, pieces: usize, len: usize) -> Result<Self, DeviceError> {
        let buffers = (0..pieces).map(|_| bed.poisoned(len)).collect::<Result<_, _>>()?;
        Ok(Pieces { values: vec![vec![T::zeroed(); len]; pieces], buffers })
    }

    fn views(&self) -> Vec<View<'_, T>> {
        self.buffers.iter().map(Buffer::view).collect()
    }

    fn views_mut(&mut self) -> Vec<ViewMut<'_, T>> {
        self.buffers.iter_mut().map(Buffer::view_mut).collect()
    }
}

impl<T: Same> Pieces<T> {
    /// Compares both sides.
    fn same(&self, bed: &mut Bed, name: &str) -> Result<(), DeviceError> {
        let name = format!("{name} {} [{}]", self.values.len(), self.values[0].len());
        let all = self.buffers.iter().zip(&self.values);
        all.into_iter().try_for_each(|(buffer, values)| bed.same(&name, buffer, values))
    }
}

/// Normal numbers on both sides.
fn normal<N: Float>(bed: &mut Bed, pieces: usize, len: usize) -> Result<Pieces<N>, DeviceError> {
    let values = (0..pieces).map(|_| bed.normal(len, 1.0)).collect();
    Pieces::up(bed, values)
}

fn adamw(bed: &mut Bed, pieces: usize, len: usize) -> Result<(), DeviceError> {
    let (betas, eps, weight_decay) = ((0.9, 0.95), 1e-8, 0.1);
    let how = adamw::Update { lr: 1e-2, betas, eps, weight_decay, step: 7, scale: 0.37 };
    let (grad, mut m) = (normal(bed, pieces, len)?, normal(bed, pieces, len)?);
    let (v, mut w) = (normal::<f32>(bed, pieces, len)?.values, normal(bed, pieces, len)?);
    let v = v.into_iter().map(|v| v.into_iter().map(f32::abs).collect()).collect();
    let mut v = Pieces::up(bed, v)?;
    let (to_m, to_v, to_w) = (&mut m.views_mut(), &mut v.views_mut(), &mut w.views_mut());
    elementwise::adamw(&bed.stream, &how, &grad.views(), to_m, to_v, to_w)?;
    for (i, grad) in grad.values.iter().enumerate() {
        adamw::update(&how, grad, &mut m.values[i], &mut v.values[i], &mut w.values[i]);
    }
    m.same(bed, "adamw m")?;
    v.same(bed, "adamw v")?;
    w.same(bed, "adamw w")
}

fn momentum(bed: &mut Bed, pieces: usize, len: usize) -> Result<(), DeviceError> {
    let (mut m, g) = (normal(bed, pieces, len)?, normal(bed, pieces, len)?);
    let mut ahead = Pieces::poisoned(bed, pieces, len)?;
    let (to_m, to_ahead) = (&mut m.views_mut(), &mut ahead.views_mut());
    device::look_ahead(&bed.stream, to_m, 0.95, &g.views(), to_ahead)?;
    for (i, g) in g.values.iter().enumerate() {
        ahead.values[i] = reduce::look_ahead(&mut m.values[i], 0.95, g);
    }
    m.same(bed, "momentum")?;
    ahead.same(bed, "look_ahead")
}

fn in_format<N: Float + Same>(bed: &mut Bed, pieces: usize, len: usize) -> Result<(), DeviceError> {
    let (mut y, x) = (normal(bed, pieces, len)?, normal::<N>(bed, pieces, len)?);
    device::scale_and_add(&bed.stream, &mut y.views_mut(), 0.9, -0.2, &x.views())?;
    for (y, x) in y.values.iter_mut().zip(&x.values) {
        reduce::scale_and_add(y, 0.9, -0.2, x);
    }
    y.same(bed, &named::<N>("scale_and_add", ()))?;

    let wide = (0..pieces).map(|_| bed.wild(len)).collect();
    let (wide, mut near) = (Pieces::up(bed, wide)?, Pieces::<N>::poisoned(bed, pieces, len)?);
    elementwise::nearest(&bed.stream, &wide.views(), &mut near.views_mut())?;
    near.values = wide.values.iter().map(|x| x.iter().map(|x| N::nearest(*x)).collect()).collect();
    near.same(bed, &named::<N>("nearest", ()))
}

/// Sums of squares, of which one is of no number.
fn squares(
    bed: &mut Bed,
    pieces: usize,
    (rows, columns): (usize, usize),
) -> Result<(), DeviceError> {
    let len = rows * columns;
    let mut values = normal::<f32>(bed, pieces, len)?.values;
    values.iter_mut().flatten().for_each(|x| *x = *x * *x * *x * 1e-9);
    if let [_, broken, ..] = &mut values[..] {
        broken.fill(f32::NAN);
    }
    let x = Pieces::up(bed, values)?;
    let words = words_of(bed, &x.views(), columns)?;
    let words = bed.down(&words)?;
    let name = format!("squares {pieces} [{rows}, {columns}]");
    for (words, values) in words.chunks_exact(on_squares::RESULT).zip(&x.values) {
        let sum = Squares::from_words(words.try_into().expect("as many words"));
        let expected = Squares::of_rows(values, columns);
        let are_infinite = sum.value().is_infinite() && expected.value().is_infinite();
        bed.holds(&name, sum == expected || are_infinite);
    }
    Ok(())
}

fn words_of(
    bed: &Bed,
    views: &[View<'_, f32>],
    columns: usize,
) -> Result<Buffer<u64>, DeviceError> {
    let count = on_squares::scratch(views.first().map_or(0, View::len), columns);
    let mut parts = bed.poisoned(views.len() * count)?;
    let mut words = bed.poisoned(views.len() * on_squares::RESULT)?;
    on_squares::of_rows(&bed.stream, views, columns, parts.view_mut(), words.view_mut())?;
    Ok(words)
}

/// There and back again.
fn transposed(
    bed: &mut Bed,
    pieces: usize,
    (rows, cols): (usize, usize),
) -> Result<(), DeviceError> {
    let x = normal::<f32>(bed, pieces, rows * cols)?;
    let mut out = Pieces::poisoned(bed, pieces, rows * cols)?;
    newton_schulz::transposed(&bed.stream, &x.views(), rows, cols, &mut out.views_mut())?;
    let places = || (0..cols).flat_map(|c| (0..rows).map(move |r| r * cols + c));
    out.values = x.values.iter().map(|x| places().map(|at| x[at]).collect()).collect();
    out.same(bed, &format!("transposed [{rows}, {cols}]"))?;
    let mut back = Pieces::poisoned(bed, pieces, rows * cols)?;
    let (s, to) = (&bed.stream, &mut back.views_mut());
    newton_schulz::transposed_back::<f32>(s, &out.views(), cols, rows, to)?;
    back.values = x.values;
    back.same(bed, &format!("transposed back [{rows}, {cols}]"))
}

/// Over the norm, which takes another root than the CPU: in company as alone.
fn over_norm<N: Float + Same>(
    bed: &mut Bed,
    pieces: usize,
    (rows, cols): (usize, usize),
) -> Result<(), DeviceError> {
    let values = normal(bed, pieces, rows * cols)?;
    let mut together = Pieces::<N>::poisoned(bed, pieces, rows * cols)?;
    let words = words_of(bed, &values.views(), cols)?;
    let (views, to) = (values.views(), &mut together.views_mut());
    newton_schulz::over_norm(&bed.stream, &views, words.view(), to)?;
    for (i, view) in views.iter().enumerate() {
        let words = words_of(bed, &[*view], cols)?;
        let mut alone = bed.poisoned(rows * cols)?;
        newton_schulz::over_norm(&bed.stream, &[*view], words.view(), &mut [alone.view_mut()])?;
        together.values[i] = bed.down(&alone)?;
    }
    together.same(bed, &named::<N>("over_norm", (rows, cols)))
}

/// No piece is no launch.
fn none(bed: &mut Bed) -> Result<(), DeviceError> {
    let words = words_of(bed, &[], 3)?;
    bed.same("squares of nothing", &words.into_bytes(), &[])?;
    elementwise::nearest::<bf16>(&bed.stream, &[], &mut [])
}
