//! Tests of the blocks, on real tiles where there are any and else on emulated ones.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    sync::Barrier,
    thread,
};

use super::*;
use crate::random::normal;

/// Rows and columns of a block, and its depth.
const SIDE: usize = 32;

/// What stands in `c` before, at each row and column.
fn before(row: usize, column: usize) -> f32 {
    normal(3, (row * SIDE + column) as u64)
}

/// An `a` whose rows are followed by values that must not be read, at random.
fn random_a(blocks: usize, stride: usize) -> Vec<bf16> {
    let value = |at: usize| match at % stride < SIDE * blocks {
        true => normal(1, at as u64),
        false => f32::NAN,
    };
    (0..SIDE * stride).map(|at| bf16::from_f32(value(at))).collect()
}

/// A random `b` in order of rows, `[32 * blocks][32]`.
fn random_b(blocks: usize) -> Vec<bf16> {
    (0..SIDE * SIDE * blocks).map(|at| bf16::from_f32(normal(2, at as u64))).collect()
}

/// The panel of a matrix in order of rows.
fn panel(b: &[bf16]) -> Vec<bf16> {
    let place = |at: usize| {
        let (block, tile, pair) = (at / 1024, at / 512 % 2, at / 32 % 16);
        let (column, half) = (at / 2 % 16, at % 2);
        (32 * block + 2 * pair + half) * SIDE + 16 * tile + column
    };
    (0..b.len()).map(|at| b[place(at)]).collect()
}

/// The block itself, on slices. `b` is in order of rows.
fn block(blocks: usize, a: &[bf16], b: &[bf16], c: &mut [f32], c_stride: usize, add: bool) {
    emulate::install();
    let stride = a.len() / SIDE;
    assert!(SIDE * blocks <= stride && b.len() == SIDE * SIDE * blocks);
    assert!((SIDE - 1) * c_stride + SIDE <= c.len());
    let b = panel(b);
    // SAFETY: the extents were checked above, and slices that are borrowed mutably are alone.
    unsafe {
        Tiles::configure().block(
            blocks,
            a.as_ptr(),
            stride,
            b.as_ptr(),
            c.as_mut_ptr(),
            c_stride,
            add,
        );
    }
}

/// One block product of the given matrices, into rows that follow each other.
fn product(a: &[bf16], b: &[bf16], c: f32) -> Vec<f32> {
    let mut all = vec![c; SIDE * SIDE];
    block(1, a, b, &mut all, SIDE, true);
    all
}

/// Compares one product of random values with the truth in f64, and what stands beside `c`.
fn check(blocks: usize, stride: usize, c_stride: usize, add: bool) {
    let poison = f32::from_bits(0x7FC1_2345);
    let (a, b) = (random_a(blocks, stride), random_b(blocks));
    let inside = |at: usize| at / c_stride < SIDE && at % c_stride < SIDE;
    let mut c: Vec<f32> = (0..(SIDE + 1) * c_stride)
        .map(|at| if inside(at) { before(at / c_stride, at % c_stride) } else { poison })
        .collect();
    block(blocks, &a, &b, &mut c, c_stride, add);
    for (at, c) in c.into_iter().enumerate() {
        if !inside(at) {
            assert_eq!(c.to_bits(), poison.to_bits(), "{at} was touched");
            continue;
        }
        let (row, column) = (at / c_stride, at % c_stride);
        let start = if add { f64::from(before(row, column)) } else { 0.0 };
        let term = |k: usize| a[row * stride + k].to_f64() * b[k * SIDE + column].to_f64();
        let truth = start + (0..SIDE * blocks).map(term).sum::<f64>();
        let size = start.abs() + (0..SIDE * blocks).map(|k| term(k).abs()).sum::<f64>();
        // A rounding errs by 2^-24 of a partial sum at most. There are 16 in each half of a block's
        // sum and two more a block, of either sign, and partial sums are well below `size`.
        let tolerance = size * 2.0_f64.powi(-22);
        let error = (f64::from(c) - truth).abs();
        assert!(error <= tolerance, "[{row}, {column}] is {c}, not {truth}");
    }
}

#[test]
fn products_are_right_for_any_number_of_blocks() {
    for blocks in [0, 1, 2, 5] {
        check(blocks, (SIDE * blocks).max(1), SIDE, false);
        check(blocks, (SIDE * blocks).max(1), SIDE, true);
    }
}

#[test]
fn strided_rows_are_read_and_written_in_place() {
    check(2, 2 * SIDE + 7, SIDE + 5, false);
    check(1, 3 * SIDE, 3 * SIDE + 1, true);
}

#[test]
fn whole_numbers_are_multiplied_exactly() {
    let a: Vec<bf16> = (0..SIDE * SIDE).map(|at| bf16::from_f32((at % 7) as f32)).collect();
    let b: Vec<bf16> = (0..SIDE * SIDE).map(|at| bf16::from_f32((at % 11) as f32)).collect();
    for (at, c) in product(&a, &b, 5.0).into_iter().enumerate() {
        let term = |k: usize| (at / SIDE * SIDE + k) % 7 * ((k * SIDE + at % SIDE) % 11);
        assert_eq!(c, 5.0 + (0..SIDE).map(term).sum::<usize>() as f32);
    }
}

#[test]
fn equal_calls_give_equal_bits() {
    let (a, b) = (random_a(1, SIDE), random_b(1));
    let bits = || product(&a, &b, 0.5).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(), bits());
}

#[test]
fn nan_and_infinity_spread_through_their_row_or_column() {
    let ones = vec![bf16::ONE; SIDE * SIDE];
    let (mut a, mut b) = (ones.clone(), ones);
    a[3 * SIDE + 5] = bf16::NAN;
    a[20 * SIDE + 30] = bf16::NEG_INFINITY;
    b[9 * SIDE + 17] = bf16::INFINITY;
    for (at, c) in product(&a, &b, 0.0).into_iter().enumerate() {
        match (at / SIDE, at % SIDE) {
            (3, _) | (20, 17) => assert!(c.is_nan(), "{at} is {c}"),
            (20, _) => assert_eq!(c, f32::NEG_INFINITY),
            (_, 17) => assert_eq!(c, f32::INFINITY),
            _ => assert_eq!(c, 32.0),
        }
    }
}

#[test]
fn numbers_too_small_for_a_normal_f32_count_as_zero() {
    let all = |value: f32| vec![bf16::from_f32(value); SIDE * SIDE];
    let zero = |product: Vec<f32>| assert!(product.into_iter().all(|c| c == 0.0));
    let subnormal = f32::MIN_POSITIVE / 2.0;
    assert!(bf16::from_f32(subnormal).to_f32() == subnormal);
    zero(product(&all(subnormal), &all(1e30), 0.0));
    zero(product(&all(1e30), &all(subnormal), 0.0));
    zero(product(&all(1e-20), &all(1e-20), 0.0));
    zero(product(&all(0.0), &all(0.0), subnormal));
}

#[test]
fn threads_have_tiles_of_their_own() {
    let barrier = Barrier::new(2);
    let run = |number: f32| {
        emulate::install();
        let tiles = Tiles::configure();
        let (ours, mut after) = ([number; 256], [0.0_f32; 256]);
        // SAFETY: the tiles are configured, `ours` has 16 rows of 64 bytes, and compiled code
        // leaves tiles alone until they are stored below.
        unsafe { asm!("tileloadd tmm2, [{} + {}]", in(reg) &ours, in(reg) 64_usize) };
        barrier.wait();
        // SAFETY: as above, and `after` has as many rows, which nobody else uses.
        unsafe { asm!("tilestored [{} + {}], tmm2", in(reg) &mut after, in(reg) 64_usize) };
        assert_eq!(ours, after);
        barrier.wait();
        if number == 1.0 {
            drop(tiles);
            barrier.wait();
        } else {
            barrier.wait();
            let ones = vec![bf16::ONE; 1024];
            let mut c = vec![0.0; 1024];
            let (a, b) = (ones.as_ptr(), ones.as_ptr());
            // SAFETY: each has 32 rows of 32 values, and `c` is used by nobody else.
            unsafe { tiles.block(1, a, SIDE, b, c.as_mut_ptr(), SIDE, false) };
            assert_eq!(c, [32.0; 1024]);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| run(1.0));
        scope.spawn(|| run(2.0));
    });
}

#[test]
#[should_panic(expected = "the tiles of this thread are in use")]
fn a_thread_has_one_set_of_tiles() {
    emulate::install();
    let _tiles = Tiles::configure();
    Tiles::configure();
}

#[test]
fn tiles_are_free_again_once_dropped() {
    emulate::install();
    drop(Tiles::configure());
    drop(Tiles::configure());
    assert!(is_available());
}

#[test]
fn emulated_tiles_are_there_only_where_installed() {
    thread::spawn(|| {
        assert_eq!(is_available(), is_real());
        emulate::install();
        assert!(is_available());
    })
    .join()
    .unwrap();
}

/// Runs one of these tests again in a process of its own, and returns the signal that ended it.
fn signal_that_ends(test: &str) -> Option<i32> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("gemm::amx::tests::{test}"), "--exact", "--test-threads=1"]);
    command.env(CHILD, test).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().signal()
}

/// Set in processes that are to die.
const CHILD: &str = "TROUPE_TEST_DIES";

/// In the child, executes `wrong` after the handler is installed; else sees the child die of it.
fn dies(test: &str, wrong: fn()) {
    if std::env::var_os(CHILD).is_none() {
        return assert_eq!(signal_that_ends(test), Some(libc::SIGILL));
    }
    emulate::install();
    wrong();
}

#[test]
fn illegal_instructions_still_end_the_process() {
    // SAFETY: never returns.
    dies("illegal_instructions_still_end_the_process", || unsafe { asm!("ud2") });
}

#[test]
fn tiles_that_are_not_configured_end_the_process() {
    // SAFETY: a tile that is not configured is refused.
    dies("tiles_that_are_not_configured_end_the_process", || unsafe { asm!("tilezero tmm0") });
}
