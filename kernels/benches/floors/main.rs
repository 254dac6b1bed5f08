//! Each kernel beside its floor, at the shapes of k2-nano, on one core.
//!
//! `cargo bench -p troupe-kernels --bench floors [-- WORD]` shows the kernels whose names have the
//! word. A floor is the greater of the operations over the best rate of any product and the bytes
//! over the rate at which the second cache copies. Each is measured in bursts, and the fastest one
//! counts: what else the machine does can only add. (Frameworks for benchmarks print times, but
//! know no floors.)

mod cases;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use half::bf16;
use kernels::{
    gemm::{Matrix, multiply},
    number::Number,
    random::normal,
};

/// Bursts of which the fastest counts.
const BURSTS: usize = 12;

/// How long a burst takes.
const BURST: Duration = Duration::from_millis(12);

/// One kernel with all that it needs.
struct Case {
    name: &'static str,
    /// Floating-point operations of products.
    flops: f64,
    /// Bytes read and written.
    bytes: f64,
    is_bf16: bool,
    run: Box<dyn FnMut()>,
}

/// What this core does at best.
struct Rates {
    f32_flops: f64,
    bf16_flops: f64,
    bytes: f64,
}

fn main() {
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let rates = Rates { f32_flops: peak::<f32>(), bf16_flops: peak::<bf16>(), bytes: copying() };
    println!(
        "products: {:.1} GFLOP/s in F32, {:.1} in BF16; copies: {:.1} GB/s\n",
        1e-9 * rates.f32_flops,
        1e-9 * rates.bf16_flops,
        1e-9 * rates.bytes
    );
    let header = ["MFLOP", "MB", "floor, us", "measured", "ratio"];
    print!("{:<44}", "kernel");
    header.iter().for_each(|word| print!(" {word:>10}"));
    println!();
    for mut case in cases::all() {
        if word.as_ref().is_none_or(|word| case.name.contains(word.as_str())) {
            show(&mut case, &rates);
        }
    }
}

fn show(case: &mut Case, rates: &Rates) {
    let flops = if case.is_bf16 { rates.bf16_flops } else { rates.f32_flops };
    let floor = f64::max(case.flops / flops, case.bytes / rates.bytes);
    let measured = seconds(&mut case.run);
    println!(
        "{:<44} {:>10.2} {:>10.3} {:>10.1} {:>10.1} {:>10.2}",
        case.name,
        1e-6 * case.flops,
        1e-6 * case.bytes,
        1e6 * floor,
        1e6 * measured,
        measured / floor
    );
}

/// Seconds of one call in the fastest burst.
fn seconds(run: &mut dyn FnMut()) -> f64 {
    run();
    let burst = || {
        let (start, mut calls) = (Instant::now(), 0);
        while start.elapsed() < BURST {
            run();
            calls += 1;
        }
        start.elapsed().as_secs_f64() / f64::from(calls)
    };
    std::iter::repeat_with(burst).take(BURSTS).fold(f64::INFINITY, f64::min)
}

/// Operations in a second of the fastest of some products.
fn peak<N: Number>() -> f64 {
    let rate = |(m, n, k): (usize, usize, usize)| {
        let (a, b) = (random::<N>(m * k), random::<N>(n * k));
        let a = Matrix::of(N::values(&a), m, k, k);
        let b = kernels::gemm::Packed::new(Matrix::of(N::values(&b), n, k, k).transposed());
        let each = seconds(&mut || drop(black_box(multiply::<N>(a, &b))));
        (2 * m * n * k) as f64 / each
    };
    [(512, 512, 512), (256, 1408, 512)].into_iter().map(rate).fold(0.0, f64::max)
}

/// Bytes read and written in a second where both sides fit the second cache.
fn copying() -> f64 {
    let (from, mut to) = (random::<f32>(1 << 15), vec![0.0_f32; 1 << 15]);
    2.0 * 4.0 * from.len() as f64 / seconds(&mut || black_box(&mut to).copy_from_slice(&from))
}

/// So many numbers around zero.
fn random<N: Number>(count: usize) -> Vec<N> {
    (0..count as u64).map(|i| N::nearest(normal(1, i % 100_003))).collect()
}
