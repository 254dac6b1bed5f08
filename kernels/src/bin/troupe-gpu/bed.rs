//! What a check needs: random inputs, poisoned outputs, comparisons.

use half::bf16;
use kernels::{
    cuda::{
        Buffer, Device, DeviceError, Element, Float, Gpu, Stream,
        program::{Format, Program, Source, Widths},
    },
    number::Number,
    random,
};

/// Bytes of the arena: the workspace of products, and the little that checks need.
const ARENA_BYTES: u64 = 192 << 20;

/// Widths of heads: K2's, k2-nano's, one that is a multiple of nothing, one without rotary part.
pub const WIDTHS: [Widths; 4] = [
    Widths { nope: 128, rope: 64, value: 128 },
    Widths { nope: 32, rope: 16, value: 32 },
    Widths { nope: 6, rope: 4, value: 5 },
    Widths { nope: 4, rope: 0, value: 3 },
];

/// Rows and widths of tensors: none, one element, ragged, whole groups of eight, wide.
const EXTENTS: [(usize, usize); 8] =
    [(0, 8), (1, 1), (3, 5), (2, 8), (7, 33), (5, 256), (66, 40), (3, 2056)];

/// What a sanitizer looks at, since it is slow: more than a warp and more than a block's threads.
const FEW_EXTENTS: [(usize, usize); 2] = [(3, 261), (1, 2056)];

/// A device with random inputs, and what the comparisons said.
pub struct Bed {
    pub gpu: Gpu,
    /// Where it computes.
    pub stream: Stream,
    /// Whether there is no time for all extents.
    pub is_brief: bool,
    seed: u64,
    tensors: u64,
    comparisons: usize,
    wrong: usize,
    outputs: blake3::Hasher,
}

impl Bed {
    /// Compiles all kernels.
    pub fn new(device: &Device, seed: u64, is_brief: bool) -> Result<Self, DeviceError> {
        load_all(device)?;
        Self::without_kernels(device, seed, is_brief)
    }

    /// Compiles what is used, when it is.
    pub fn without_kernels(
        device: &Device,
        seed: u64,
        is_brief: bool,
    ) -> Result<Self, DeviceError> {
        let gpu = Gpu::new(device, ARENA_BYTES)?;
        let stream = gpu.stream().clone();
        Ok(Bed {
            gpu,
            stream,
            is_brief,
            seed,
            tensors: 0,
            comparisons: 0,
            wrong: 0,
            outputs: blake3::Hasher::new(),
        })
    }

    /// Rows and widths of tensors.
    pub fn extents(&self) -> &'static [(usize, usize)] {
        if self.is_brief { &FEW_EXTENTS } else { &EXTENTS }
    }

    /// Comparisons, the hash of all outputs, and how many were wrong.
    pub fn finish(self) -> (usize, String, usize) {
        (self.comparisons, self.outputs.finalize().to_hex()[..16].to_string(), self.wrong)
    }

    /// The key of the next tensor.
    fn key(&mut self) -> u64 {
        self.tensors += 1;
        random::key(self.seed, &self.tensors.to_string())
    }

    /// Normal numbers of a deviation, rounded to the format.
    pub fn normal<N: Number>(&mut self, len: usize, deviation: f32) -> Vec<N> {
        let key = self.key();
        (0..len as u64).map(|i| N::nearest(random::normal(key, i) * deviation)).collect()
    }

    /// Numbers of all sizes, and what is no number.
    pub fn wild(&mut self, len: usize) -> Vec<f32> {
        let mut values: Vec<f32> = self.normal(len, 30.0);
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX, 1e-40];
        let places = values.iter_mut().rev().step_by(3);
        if 8 < len {
            places.zip(special).for_each(|(value, special)| *value = special);
        }
        values
    }

    /// Whole numbers below `end`.
    pub fn below(&mut self, len: usize, end: usize) -> Vec<i32> {
        let key = self.key();
        (0..len as u64).map(|i| (random::bits(key, i) % end as u64) as i32).collect()
    }

    /// For each token, `per_token` different numbers below `end`.
    pub fn choices(&mut self, tokens: usize, per_token: usize, end: usize) -> Vec<i32> {
        let key = self.key();
        let choice = |token: usize| {
            let mut all: Vec<i32> = (0..end as i32).collect();
            all.sort_by_key(|expert| random::bits(key, (token * end) as u64 + *expert as u64));
            all.truncate(per_token);
            all
        };
        (0..tokens).flat_map(choice).collect()
    }

    /// The values on the device.
    pub fn up<T: Element>(&self, values: &[T]) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.gpu.buffer(values.len())?;
        self.stream.upload(values, buffer.view_mut())?;
        Ok(buffer)
    }

    /// Room for an output, full of NaN.
    pub fn poisoned<T: Element>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.gpu.buffer(len)?;
        self.stream.fill(buffer.view_mut(), 0xFF)?;
        Ok(buffer)
    }

    /// The values on the host.
    pub fn down<T: Element>(&mut self, buffer: &Buffer<T>) -> Result<Vec<T>, DeviceError> {
        let mut values = vec![T::zeroed(); buffer.len()];
        self.stream.download(buffer.view(), &mut values)?;
        self.outputs.update(bytemuck::cast_slice(&values));
        Ok(values)
    }

    /// Says so if an output does not have the bits of its CPU twin; one NaN is like another.
    pub fn same<T: Same>(
        &mut self,
        name: &str,
        output: &Buffer<T>,
        expected: &[T],
    ) -> Result<(), DeviceError> {
        let values = self.down(output)?;
        self.same_values(name, &values, expected);
        Ok(())
    }

    /// The same for an output that has come to the host on another way.
    pub fn arrived<T: Same>(&mut self, name: &str, values: &[T], expected: &[T]) {
        self.outputs.update(bytemuck::cast_slice(values));
        self.same_values(name, values, expected);
    }

    fn same_values<T: Same>(&mut self, name: &str, values: &[T], expected: &[T]) {
        let differs = values.iter().zip(expected).position(|(a, b)| !a.is_same(b));
        let text = differs
            .map(|at| format!("element {at} is {:?}, expected {:?}", values[at], expected[at]));
        assert_eq!(values.len(), expected.len(), "{name}");
        self.say(name, text);
    }

    /// Says so if `|output - expected| > tolerance |expected|`, both as vectors, or one is NaN.
    pub fn close<N: Float>(
        &mut self,
        name: &str,
        output: &Buffer<N>,
        expected: &[N],
        tolerance: f64,
    ) -> Result<(), DeviceError> {
        let values = self.down(output)?;
        self.near(name, &values, expected, tolerance);
        Ok(())
    }

    /// The same for an output that is on the host.
    pub fn near<N: Float>(&mut self, name: &str, values: &[N], expected: &[N], tolerance: f64) {
        assert_eq!(values.len(), expected.len(), "{name}");
        let (mut apart, mut size) = (0.0, 0.0);
        for (value, expected) in values.iter().zip(expected) {
            let (value, expected) = (f64::from(value.wide()), f64::from(expected.wide()));
            apart += (value - expected).powi(2);
            size += expected * expected;
        }
        // What ought to vanish, as the gradient of a softmax over one key, may be a last bit of its
        // terms, which are about as large as the random numbers they come from.
        let is_close = apart <= tolerance * tolerance * (size + 0.1 * values.len() as f64);
        let error = (apart / size).sqrt();
        let text = (!is_close).then(|| format!("off by {error:.1e}, expected {tolerance:.1e}"));
        self.say(name, text);
    }

    /// Says so if something that must hold does not.
    pub fn holds(&mut self, name: &str, is_true: bool) {
        self.say(name, (!is_true).then(|| "does not hold".to_string()));
    }

    fn say(&mut self, name: &str, wrong: Option<String>) {
        self.comparisons += 1;
        if let Some(text) = wrong {
            self.wrong += 1;
            println!("WRONG {name}: {text}");
        }
    }
}

fn load_all(device: &Device) -> Result<(), DeviceError> {
    let mut programs = Vec::new();
    for format in [Format::F32, Format::Bf16] {
        for source in WIDTHS.into_iter().flat_map(Source::all) {
            programs.push(Program { source, format });
        }
    }
    programs.sort_unstable();
    programs.dedup();
    device.load(&programs)
}

/// What can be compared by bits.
pub trait Same: Element {
    /// Whether the bits agree, or both are NaN.
    fn is_same(&self, other: &Self) -> bool;
}

impl Same for f32 {
    fn is_same(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

impl Same for bf16 {
    fn is_same(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

impl Same for i32 {
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Same for u8 {
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

/// How far an output may be from the CPU's where sums are taken in another order: a few last bits
/// of F32, or one rounding of BF16 that goes the other way.
pub fn tolerance<N: Float>() -> f64 {
    if size_of::<N>() == 2 { 2e-3 } else { 2e-6 }
}

/// A name with the format.
pub fn named<N: Float>(name: &str, extents: impl std::fmt::Debug) -> String {
    format!("{name} {:?} {extents:?}", N::FORMAT)
}
