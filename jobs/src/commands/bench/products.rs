//! `bench --products`: rates of matrix products alone.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use half::bf16;
use kernels::{
    gemm::{Matrix, Output, Packed, Right, Values, isa::Isa, product},
    number::Number,
    random,
};
use serde_json::json;

use crate::report::SCHEMA;

/// Rows, columns and depth: those that libraries are usually compared at, then the rows of an
/// expert.
const SHAPES: [[usize; 3]; 8] = [
    [512, 512, 512],
    [1024, 1024, 1024],
    [2048, 512, 2048],
    [256, 1408, 512],
    [64, 512, 256],
    [4096, 4096, 512],
    [37, 128, 256],
    [131, 256, 512],
];

/// Time of a burst, and bursts, of which the best counts.
const BURST: Duration = Duration::from_millis(20);
const BURSTS: usize = 8;

/// How the right factor of `x w^T` comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Factor {
    /// To be packed in each call.
    Plain,
    /// Packed before.
    Packed,
}

/// Prints the rates of all shapes, in F32 and BF16, on one thread and on all cores.
pub fn products(as_json: bool) {
    let isa = Isa::best();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if !as_json {
        println!(
            "GFLOP/s of `x w^T` with {isa}, best burst of {BURSTS}; packed: `w` packed before"
        );
        println!("    m     n     k  threads     F32  packed    BF16  packed");
    }
    for shape in SHAPES {
        let mut counts = vec![1, cores];
        counts.dedup();
        for threads in counts {
            let rates = [Factor::Plain, Factor::Packed].map(|factor| {
                (rate::<f32>(shape, threads, factor), rate::<bf16>(shape, threads, factor))
            });
            let [(f32, bf16), (f32_packed, bf16_packed)] = rates;
            print(shape, threads, [f32, f32_packed, bf16, bf16_packed], isa, as_json);
        }
    }
}

fn print([m, n, k]: [usize; 3], threads: usize, rates: [f64; 4], isa: Isa, as_json: bool) {
    if !as_json {
        let [f32, f32_packed, bf16, bf16_packed] = rates;
        println!(
            "{m:5} {n:5} {k:5} {threads:8} {f32:7.1} {f32_packed:7.1} {bf16:7.1} {bf16_packed:7.1}"
        );
        return;
    }
    for (precision, rates) in [("F32", &rates[..2]), ("Bf16", &rates[2..])] {
        let line = json!({
            "schema": SCHEMA, "precision": precision, "m": m, "n": n, "k": k,
            "threads": threads, "isa": isa.to_string(),
            "gflops": rates[0], "packed_gflops": rates[1],
        });
        println!("{line}");
    }
}

/// Billions of floating-point operations in a second, all threads together.
pub fn rate<N: Number>([m, n, k]: [usize; 3], threads: usize, factor: Factor) -> f64 {
    let barrier = Barrier::new(threads);
    let burst = || {
        let values = |key: u64, len: usize| -> Vec<N> {
            (0..len as u64).map(|i| N::nearest(random::normal(key, i))).collect()
        };
        let (x, w, mut y) = (values(1, m * k), values(2, n * k), vec![0.0_f32; m * n]);
        let (x, w) = (N::values(&x), N::values(&w));
        let w = matrix(w, n, k).transposed();
        let packed = (factor == Factor::Packed).then(|| Packed::new(w));
        let mut calls = 0;
        barrier.wait();
        let begin = Instant::now();
        while begin.elapsed() < BURST || calls == 0 {
            let right = packed.as_ref().map_or(Right::Plain(w), Right::from);
            product(f32::matrix(&mut y, m, n, n), Output::Write, 1.0, matrix(x, m, k), right);
            calls += 1;
        }
        f64::from(calls) * 2e-9 * (m * n * k) as f64 / begin.elapsed().as_secs_f64()
    };
    let sum_of_burst = |_| -> f64 {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(burst)).collect();
            threads.into_iter().map(|it| it.join().expect("products do not panic")).sum()
        })
    };
    (0..BURSTS).map(sum_of_burst).fold(0.0, f64::max)
}

fn matrix(values: Values<'_>, rows: usize, cols: usize) -> Matrix<'_> {
    Matrix::of(values, rows, cols, cols)
}
