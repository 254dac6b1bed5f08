//! `bench --storage`: how fast activations go into FP8 and come back, beside plain copies.
//!
//! Rates are bytes read and written in a second. A copy of as many bytes is the floor.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use half::bf16;
use kernels::{fp8, number::Number, random};
use serde_json::json;

use crate::report::SCHEMA;

/// Rows and widths: what stays in a near cache, and what does not stay in any.
const SHAPES: [[usize; 2]; 2] = [[64, 1024], [4096, 7168]];

/// Time of a burst, and bursts, of which the best counts.
const BURST: Duration = Duration::from_millis(20);
const BURSTS: usize = 8;

/// Gigabytes in a second, all threads together.
#[derive(Clone, Copy)]
struct Rates {
    copy: f64,
    encode: f64,
    decode: f64,
}

/// Prints the rates of all shapes, in F32 and BF16, on one thread and on all cores.
pub fn storage(as_json: bool) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if !as_json {
        println!("GB/s read and written, best burst of {BURSTS}; times: of a copy's time");
        println!(" rows  width  threads  format    copy  encode  times  decode  times");
    }
    for shape in SHAPES {
        let mut counts = vec![1, cores];
        counts.dedup();
        for threads in counts {
            print(shape, threads, "F32", rates::<f32>(shape, threads), as_json);
            print(shape, threads, "Bf16", rates::<bf16>(shape, threads), as_json);
        }
    }
}

fn print([rows, width]: [usize; 2], threads: usize, format: &str, rates: Rates, as_json: bool) {
    let Rates { copy, encode, decode } = rates;
    if as_json {
        let line = json!({
            "schema": SCHEMA, "rows": rows, "width": width, "threads": threads,
            "precision": format, "copy": copy, "encode": encode, "decode": decode,
        });
        return println!("{line}");
    }
    let (slower, back) = (copy / encode, copy / decode);
    print!("{rows:5} {width:6} {threads:8}  {format:6} {copy:7.1} {encode:7.1} {slower:6.2}");
    println!(" {decode:7.1} {back:6.2}");
}

fn rates<N: Number>(shape: [usize; 2], threads: usize) -> Rates {
    let barrier = Barrier::new(threads);
    let runs: Vec<Vec<Rates>> = thread::scope(|scope| {
        let run = || bursts::<N>(shape, &barrier);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|it| it.join().expect("storage does not panic")).collect()
    });
    let best = |of: fn(&Rates) -> f64| {
        let sums = (0..BURSTS).map(|burst| runs.iter().map(|run| of(&run[burst])).sum());
        sums.fold(0.0, f64::max)
    };
    Rates { copy: best(|it| it.copy), encode: best(|it| it.encode), decode: best(|it| it.decode) }
}

/// One thread's rates, burst by burst.
fn bursts<N: Number>([rows, width]: [usize; 2], barrier: &Barrier) -> Vec<Rates> {
    let count = rows * width;
    let mut x: Vec<N> =
        (0..count as u64).map(|i| N::nearest(random::normal(1, i % 100_003))).collect();
    let (mut codes, mut scales) = (vec![0_u8; count], vec![0.0; rows * fp8::tiles(width)]);
    let bytes = size_of_val(&x[..]) + codes.len() + size_of_val(&scales[..]);
    let (from, mut to) = (vec![1_u8; bytes / 2], vec![0_u8; bytes / 2]);
    let burst = |_| Rates {
        copy: rate(bytes, barrier, || std::hint::black_box(&mut to).copy_from_slice(&from)),
        encode: rate(bytes, barrier, || fp8::encode(&x, width, &mut codes, &mut scales)),
        decode: rate(bytes, barrier, || fp8::decode(&codes, &scales, width, &mut x)),
    };
    (0..BURSTS).map(burst).collect()
}

/// Gigabytes in a second of calls that move so many bytes, begun by all threads at once.
fn rate(bytes: usize, barrier: &Barrier, mut call: impl FnMut()) -> f64 {
    let mut calls = 0;
    barrier.wait();
    let begin = Instant::now();
    while begin.elapsed() < BURST || calls == 0 {
        call();
        calls += 1;
    }
    f64::from(calls) * 1e-9 * bytes as f64 / begin.elapsed().as_secs_f64()
}
