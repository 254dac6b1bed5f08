//! Numbers in single precision that change in place: gradient sums, masters, optimizer states.

use std::ops::Range;

use kernels::{
    cuda::{Buffer, Gpu, View, ViewMut, grouped::Sum, reduce as on_gpu, squares},
    gemm::{Matrix, Output, accumulate},
    reduce,
    squares::Squares,
};

use crate::{
    DType, Place, Tensor,
    grouped_linear::experts,
    on_gpu::{done, make, products, rows::nearest},
    tensor::in_format,
};

/// A vector of f32 on the host or on a GPU.
///
/// As with a vector, there may be room for more numbers than there are: a gradient sum begins
/// empty, and its first product is written there and not added.
#[derive(Debug)]
pub enum Floats {
    /// On the host.
    Host(Vec<f32>),
    /// On a GPU.
    Gpu(OnGpu),
}

/// The numbers of [`Floats`] on a GPU: the first of those that there is room for.
#[derive(Debug)]
pub struct OnGpu {
    gpu: Gpu,
    room: Buffer<f32>,
    len: usize,
}

impl OnGpu {
    /// The GPU.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// To read.
    pub(crate) fn view(&self) -> View<'_, f32> {
        self.room.view().part(0..self.len)
    }

    /// To write.
    pub(crate) fn view_mut(&mut self) -> ViewMut<'_, f32> {
        self.room.view_mut().part(0..self.len)
    }

    /// All that there is room for.
    pub(crate) fn of(gpu: &Gpu, room: Buffer<f32>) -> Self {
        OnGpu { gpu: gpu.clone(), len: room.len(), room }
    }
}

impl Floats {
    /// No number, with room for some.
    pub fn with_capacity(place: &Place, capacity: usize) -> Self {
        match place {
            Place::Host => Floats::Host(Vec::with_capacity(capacity)),
            Place::Gpu(gpu) => {
                Floats::Gpu(OnGpu { gpu: gpu.clone(), room: make(gpu, capacity), len: 0 })
            }
        }
    }

    /// Numbers of the host, brought to a place.
    pub fn at(place: &Place, values: Vec<f32>) -> Self {
        match place {
            Place::Host => Floats::Host(values),
            Place::Gpu(gpu) => Floats::Gpu(OnGpu::of(gpu, done(gpu.up(&values)))),
        }
    }

    /// Where they are.
    pub fn place(&self) -> Place {
        match self {
            Floats::Host(_) => Place::Host,
            Floats::Gpu(own) => Place::Gpu(own.gpu.clone()),
        }
    }

    /// The same on the way to a rank; see [`Tensor::sent`].
    pub fn sent(self, to: &Place) -> Self {
        match (&self, to) {
            (Floats::Gpu(own), Place::Gpu(to)) if !to.is(&own.gpu) => {
                let mut arrived = done(to.receive(&own.gpu, &[own.view().into_bytes()]));
                Floats::Gpu(OnGpu::of(to, arrived.remove(0).cast()))
            }
            _ => self,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Floats::Host(values) => values.len(),
            Floats::Gpu(own) => own.len,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of them.
    pub fn bytes(&self) -> u64 {
        (self.len() * DType::F32.size()) as u64
    }

    /// A copy on the host; waits for a GPU.
    pub fn to_host(&self) -> Vec<f32> {
        match self {
            Floats::Host(values) => values.clone(),
            Floats::Gpu(own) => done(own.gpu.down(own.view())),
        }
    }

    /// The numbers, which have to be on the host.
    ///
    /// # Panics
    ///
    /// If they are on a GPU.
    pub fn host(&self) -> &[f32] {
        match self {
            Floats::Host(values) => values,
            Floats::Gpu(_) => panic!("numbers of a GPU are read on the host without a copy"),
        }
    }

    /// The numbers, which have to be on the host, to write.
    ///
    /// # Panics
    ///
    /// If they are on a GPU.
    pub(crate) fn host_mut(&mut self) -> &mut [f32] {
        match self {
            Floats::Host(values) => values,
            Floats::Gpu(_) => panic!("numbers of a GPU are written on the host without a copy"),
        }
    }

    /// The numbers, which have to be on a GPU.
    ///
    /// # Panics
    ///
    /// If they are on the host.
    pub(crate) fn on_gpu(&self) -> &OnGpu {
        match self {
            Floats::Gpu(own) => own,
            Floats::Host(_) => panic!("numbers of the host are read on a GPU without a copy"),
        }
    }

    /// The numbers, which have to be on a GPU, to write.
    ///
    /// # Panics
    ///
    /// If they are on the host.
    pub(crate) fn on_gpu_mut(&mut self) -> &mut OnGpu {
        match self {
            Floats::Gpu(own) => own,
            Floats::Host(_) => panic!("numbers of the host are written on a GPU without a copy"),
        }
    }

    /// Zeros behind them, until there are so many; does nothing if there are.
    pub fn fill_up(&mut self, len: usize) {
        match self {
            Floats::Host(values) => values.resize(len, 0.0),
            Floats::Gpu(own) => {
                if own.room.len() < len {
                    let mut room = make(&own.gpu, len);
                    let to = room.view_mut().part(0..own.len);
                    done(own.gpu.stream().copy(own.view(), to));
                    own.room = room;
                }
                let first = own.len;
                own.len = len;
                done(own.gpu.stream().fill(own.room.view_mut().part(first..len), 0));
            }
        }
    }

    /// Some of them, in memory of their own.
    pub fn part(&self, range: Range<usize>) -> Self {
        match self {
            Floats::Host(values) => Floats::Host(values[range].to_vec()),
            Floats::Gpu(own) => {
                Floats::Gpu(OnGpu::of(&own.gpu, done(own.gpu.copied(own.view().part(range)))))
            }
        }
    }

    /// All of several, one behind the other.
    ///
    /// # Panics
    ///
    /// If they are in different places.
    pub fn joined(parts: impl IntoIterator<Item = Floats>) -> Self {
        let mut parts: Vec<Floats> = parts.into_iter().collect();
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let size = parts.iter().map(Floats::len).sum();
        let place = parts.first().map_or(Place::Host, Floats::place);
        let mut all = Floats::with_capacity(&place, size);
        parts.iter().for_each(|part| all.append(part));
        all
    }

    fn append(&mut self, next: &Floats) {
        match (self, next) {
            (Floats::Host(values), Floats::Host(next)) => values.extend_from_slice(next),
            (Floats::Gpu(own), Floats::Gpu(next)) => {
                let to = own.len..own.len + next.len;
                own.len = to.end;
                done(own.gpu.stream().copy(next.view(), own.room.view_mut().part(to)));
            }
            _ => panic!("numbers of two places are not joined"),
        }
    }

    /// `self[i] += other[i]`.
    ///
    /// # Panics
    ///
    /// If the places or lengths differ.
    pub fn add(&mut self, other: &Floats) {
        match (self, other) {
            (Floats::Host(sum), Floats::Host(other)) => reduce::add(sum, other),
            (Floats::Gpu(sum), Floats::Gpu(other)) => {
                let stream = sum.gpu.stream().clone();
                done(on_gpu::add(&stream, sum.view_mut(), other.view()));
            }
            _ => panic!("numbers of two places are not added"),
        }
    }

    /// `self[i] *= factor` within a range.
    pub fn scale(&mut self, range: Range<usize>, factor: f32) {
        match self {
            Floats::Host(values) => reduce::scale(&mut values[range], factor),
            Floats::Gpu(own) => {
                let stream = own.gpu.stream().clone();
                done(on_gpu::scale(&stream, own.view_mut().part(range), factor));
            }
        }
    }

    /// Adds `a^T b` of `a [t, o]` and `b [t, i]` to the numbers from `at` on, or writes it behind
    /// them if there are no more.
    ///
    /// # Panics
    ///
    /// If the extents do not fit each other, or the three are in different places.
    pub(crate) fn accumulate(&mut self, at: usize, a: &Tensor, b: &Tensor) {
        match self {
            Floats::Host(sum) => {
                let turned: Matrix<'_> = a.matrix().transposed();
                accumulate(sum, at, turned, b.matrix());
            }
            Floats::Gpu(own) => {
                let end = at + a.shape()[1] * b.shape()[1];
                let output = if at < own.len { Output::Add } else { Output::Write };
                own.len = own.len.max(end);
                let to = own.room.view_mut().part(at..end);
                products::turned(&own.gpu, to, output, a, b);
            }
        }
    }

    /// Adds to each of several sums, one of an expert, `a^T b` of its rows of `a [r, o]` and
    /// `b [r, i]`, or writes it where nothing is yet. An expert without rows stays as it is.
    ///
    /// # Panics
    ///
    /// If the extents do not fit each other, or not all is in one place.
    pub(crate) fn accumulate_grouped(all: &mut [Floats], counts: &[i32], a: &Tensor, b: &Tensor) {
        let (mut gpu, mut sums) = (None, Vec::new());
        for (sum, rows) in experts(all, counts) {
            match sum {
                Floats::Host(_) => sum.accumulate(0, &a.rows(rows.clone()), &b.rows(rows)),
                Floats::Gpu(own) => {
                    let end = a.shape()[1] * b.shape()[1];
                    let output = if own.len == 0 { Output::Write } else { Output::Add };
                    own.len = own.len.max(end);
                    gpu.get_or_insert_with(|| own.gpu.clone());
                    let dw = own.room.view_mut().part(0..end);
                    sums.push(Sum { rows, dw, output });
                }
            }
        }
        if let Some(gpu) = gpu {
            products::grouped_turned(&gpu, a, b, sums);
        }
    }

    /// Begins to sum the squares of each of some, by rows of so many columns.
    ///
    /// # Panics
    ///
    /// If they are in different places, or of different lengths on a GPU.
    pub fn squares(all: &[&Floats], columns: usize) -> SquaresOf {
        match Self::place_of(all) {
            Place::Host => {
                let squares = |values: &&Floats| Squares::of_rows(values.host(), columns);
                SquaresOf::Host(all.iter().map(squares).collect())
            }
            Place::Gpu(gpu) => {
                let parts = all.len() * squares::scratch(all[0].len(), columns);
                let (mut parts, mut words) =
                    (make(&gpu, parts), make(&gpu, all.len() * squares::RESULT));
                let (parts, to) = (parts.view_mut(), words.view_mut());
                done(squares::of_rows(gpu.stream(), &Self::views(all), columns, parts, to));
                SquaresOf::Gpu(gpu, words)
            }
        }
    }

    /// Each of some, rounded to a format.
    ///
    /// # Panics
    ///
    /// If they are in different places, or of different lengths on a GPU.
    pub fn nearest(all: &[&Floats], shape: &[usize], dtype: DType) -> Vec<Tensor> {
        match Self::place_of(all) {
            Place::Host => {
                all.iter().map(|values| Tensor::nearest(shape, values.host(), dtype)).collect()
            }
            Place::Gpu(gpu) => in_format!(dtype, nearest(&gpu, shape, &Self::views(all))),
        }
    }

    /// The place of some; the host's if there is none.
    pub(crate) fn place_of(all: &[&Floats]) -> Place {
        all.first().map_or(Place::Host, |first| first.place())
    }

    /// Those of a GPU, to read.
    pub(crate) fn views<'a>(all: &[&'a Floats]) -> Vec<View<'a, f32>> {
        all.iter().map(|values| values.on_gpu().view()).collect()
    }
}

/// The sums of the squares of some rows each, known or under way on a GPU.
#[derive(Debug)]
pub enum SquaresOf {
    /// Known.
    Host(Vec<Squares>),
    /// The words of all sums, which a GPU writes.
    Gpu(Gpu, Buffer<u64>),
}

impl SquaresOf {
    /// The sums; waits for a GPU.
    pub fn known(self) -> Vec<Squares> {
        match self {
            SquaresOf::Host(squares) => squares,
            SquaresOf::Gpu(gpu, words) => {
                let words = done(gpu.down(words.view()));
                let (each, _) = words.as_chunks::<{ squares::RESULT }>();
                each.iter().map(|words| Squares::from_words(*words)).collect()
            }
        }
    }
}

impl From<Vec<f32>> for Floats {
    fn from(values: Vec<f32>) -> Self {
        Floats::Host(values)
    }
}

impl Default for Floats {
    fn default() -> Self {
        Floats::Host(Vec::new())
    }
}

impl Clone for Floats {
    fn clone(&self) -> Self {
        self.part(0..self.len())
    }
}

impl PartialEq for Floats {
    fn eq(&self, other: &Self) -> bool {
        self.to_host() == other.to_host()
    }
}
