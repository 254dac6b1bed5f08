//! Every kind of instructions against the plain sum in f64.

use half::bf16;
use proptest::prelude::*;

use super::*;
use crate::random::normal;

fn random(key: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| normal(key, i)).collect()
}

fn narrow(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|x| bf16::from_f32(*x)).collect()
}

/// All that can be tested here: AMX is emulated where the processor does not have it.
fn all() -> Vec<Isa> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    super::amx::emulate::install();
    Isa::available()
}

/// Extents of a product, and the ways in which its factors lie.
#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    /// Whether `a` and `b` are stored transposed.
    turned: (bool, bool),
    /// Numbers between the rows of all three matrices.
    gap: usize,
}

/// Factors as numbers, row-major and without gaps, and as they are stored.
struct Factors {
    case: Case,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Factors {
    /// Random ones that BF16 can hold.
    fn new(case: Case, seed: u64) -> Self {
        let values = |key: u64, n: usize| {
            random(key, n).iter().map(|x| crate::cast::widened(bf16::from_f32(*x))).collect()
        };
        Factors {
            case,
            a: values(2 * seed, case.m * case.k),
            b: values(2 * seed + 1, case.k * case.n),
        }
    }

    /// The sum and the sum of the magnitudes of its terms, in f64.
    fn truth(&self, row: usize, col: usize) -> (f64, f64) {
        let Case { n, k, .. } = self.case;
        let terms = (0..k).map(|x| f64::from(self.a[row * k + x]) * f64::from(self.b[x * n + col]));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }
}

/// Values with gaps full of NaN between rows, transposed if asked.
fn stored(values: &[f32], rows: usize, cols: usize, is_turned: bool, gap: usize) -> Vec<f32> {
    let (outer, inner) = if is_turned { (cols, rows) } else { (rows, cols) };
    let mut out = vec![f32::NAN; outer * (inner + gap)];
    for (at, value) in values.iter().enumerate() {
        let (row, col) = (at / cols, at % cols);
        let (outer, inner_at) = if is_turned { (col, row) } else { (row, col) };
        out[outer * (inner + gap) + inner_at] = *value;
    }
    out
}

fn view(values: Values<'_>, rows: usize, cols: usize, is_turned: bool, gap: usize) -> Matrix<'_> {
    if is_turned {
        Matrix::of(values, cols, rows, rows + gap).transposed()
    } else {
        Matrix::of(values, rows, cols, cols + gap)
    }
}

/// `3 a b`, once written as `2 a b` and then added; what lies between the rows of `c` stays.
fn run(isa: Isa, factors: &Factors, is_bf16: bool, is_packed: bool) -> Vec<f32> {
    let Factors { case: Case { m, n, k, turned, gap }, a, b } = factors;
    let (a, b) = (stored(a, *m, *k, turned.0, *gap), stored(b, *k, *n, turned.1, *gap));
    let (narrow_a, narrow_b) = (narrow(&a), narrow(&b));
    let values = |wide, narrow| if is_bf16 { Values::Bf16(narrow) } else { Values::F32(wide) };
    let a = view(values(&a, &narrow_a), *m, *k, turned.0, *gap);
    let b = view(values(&b, &narrow_b), *k, *n, turned.1, *gap);
    let packed = is_packed.then(|| Packed::with(isa, b));
    let b = packed.as_ref().map_or(Right::Plain(b), Right::from);
    let mut c = vec![7.0; m * (n + gap)];
    for (output, alpha) in [(Output::Write, 2.0), (Output::Add, 1.0)] {
        let c = MatrixMut::strided(&mut c, *m, *n, n + gap);
        walk::product(isa, Area::Whole, c, output, alpha, a, b);
    }
    for row in c.chunks_exact((n + gap).max(1)) {
        assert!(row[*n..].iter().all(|x| *x == 7.0), "numbers between the rows were touched");
    }
    c.chunks_exact((n + gap).max(1)).flat_map(|row| row[..*n].to_vec()).collect()
}

/// Products of BF16 numbers are exact in F32; what is left is the rounding of `k` additions.
fn check(isa: Isa, factors: &Factors, is_bf16: bool, is_packed: bool) {
    let c = run(isa, factors, is_bf16, is_packed);
    let Case { n, k, .. } = factors.case;
    for (at, c) in c.iter().enumerate() {
        let (sum, size) = factors.truth(at / n, at % n);
        let error = (f64::from(*c) - 3.0 * sum).abs();
        let allowed = 3.0 * size * (k + 4) as f64 * f64::from(f32::EPSILON) + 1e-30;
        assert!(error <= allowed, "{isa} {:?} at {at}: {c} for {}", factors.case, 3.0 * sum);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn products_are_right_for_any_extents_layout_format_and_instructions(
        (m, n, k) in (0..70usize, 0..70usize, 0..70usize),
        turned in any::<(bool, bool)>(),
        gap in 0..5usize,
        is_bf16 in any::<bool>(),
        is_packed in any::<bool>(),
        seed in any::<u32>(),
    ) {
        let factors = Factors::new(Case { m, n, k, turned, gap }, u64::from(seed));
        for isa in all() {
            check(isa, &factors, is_bf16, is_packed);
        }
    }
}

#[test]
fn a_product_over_no_depth_is_zero_in_every_layout() {
    for turned in [(false, false), (true, false), (false, true), (true, true)] {
        let factors = Factors::new(Case { m: 40, n: 70, k: 0, turned, gap: 0 }, 1);
        for isa in all() {
            for is_bf16 in [false, true] {
                check(isa, &factors, is_bf16, false);
                check(isa, &factors, is_bf16, true);
            }
        }
    }
}

#[test]
fn products_are_right_beyond_the_parts_and_groups() {
    for (m, n, k) in [(3, 40, 1100), (30, 700, 700), (1, 33, 513), (64, 32, 1024)] {
        for turned in [(false, false), (true, false), (false, true), (true, true)] {
            let factors = Factors::new(Case { m, n, k, turned, gap: 1 }, 7);
            for isa in all() {
                for is_bf16 in [false, true] {
                    check(isa, &factors, is_bf16, m % 2 == 0);
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_whatever_its_neighbours() {
    let bits = |c: &[f32]| c.iter().map(|c| c.to_bits()).collect::<Vec<_>>();
    for isa in all() {
        for is_bf16 in [false, true] {
            let whole_case = Case { m: 45, n: 70, k: 600, turned: (false, true), gap: 0 };
            let factors = Factors::new(whole_case, 3);
            let whole = run(isa, &factors, is_bf16, false);
            for (first, rows) in [(0, 1), (44, 1), (7, 20)] {
                let case = Case { m: rows, gap: 3, ..whole_case };
                let a = factors.a[first * whole_case.k..][..rows * whole_case.k].to_vec();
                let some = Factors { case, a, b: factors.b.clone() };
                let part = run(isa, &some, is_bf16, true);
                let expected = &whole[first * whole_case.n..][..rows * whole_case.n];
                assert_eq!(bits(&part), bits(expected), "{isa}, rows from {first}");
            }
            let turned = Factors { case: Case { turned: (true, false), ..whole_case }, ..factors };
            assert_eq!(bits(&run(isa, &turned, is_bf16, false)), bits(&whole), "{isa}");
        }
    }
}

#[test]
fn a_symmetric_product_has_the_bits_of_the_whole_one() {
    for n in [1, 31, 64, 130] {
        let values = random(5, n * 40);
        let a = Matrix::new(&values, n, 40);
        let whole: Vec<f32> = multiply(a, a.transposed());
        let mut half = vec![0.0; n * n];
        symmetric_product(&mut half, Output::Write, 1.0, a, a.transposed());
        assert_eq!(whole, half, "{n}");
    }
}

#[test]
fn a_rounded_output_is_the_nearest_of_the_sum() {
    let (m, n, k) = (20, 45, 33);
    let (a, b) = (random(1, m * k), random(2, k * n));
    let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
    let exact: Vec<f32> = multiply(a, b);
    let mut c = vec![bf16::ONE; m * n];
    product(MatrixMut::rounded(&mut c, m, n, n), Output::Write, 1.0, a, b);
    assert_eq!(c, narrow(&exact));
    product(MatrixMut::rounded(&mut c, m, n, n), Output::Add, 1.0, a, b);
    let twice: Vec<f32> = exact.iter().zip(&narrow(&exact)).map(|(x, c)| c.to_f32() + x).collect();
    assert_eq!(c, narrow(&twice));
}

#[test]
fn a_part_of_a_packed_factor_is_as_if_there_were_nothing_else() {
    for is_bf16 in [false, true] {
        let (rows, cols, all) =
            (37, 41, Case { m: 20, n: 70, k: 600, turned: (false, true), gap: 0 });
        for isa in self::all() {
            let factors = Factors::new(all, 11);
            let narrow = (narrow(&factors.a), narrow(&factors.b));
            let values =
                |wide, narrow| if is_bf16 { Values::Bf16(narrow) } else { Values::F32(wide) };
            let a = Matrix::of(values(&factors.a, &narrow.0), all.m, rows, all.k);
            let b = Matrix::of(values(&factors.b, &narrow.1), all.k, all.n, all.n);
            let packed = Packed::with(isa, b);
            let run = |b: Right<'_>| {
                let mut c = vec![0.0; all.m * cols];
                let out = MatrixMut::new(&mut c, all.m, cols);
                walk::product(isa, Area::Whole, out, Output::Write, 1.0, a, b);
                c
            };
            let part = Matrix::of(values(&factors.b, &narrow.1), rows, cols, all.n);
            assert_eq!(run(packed.part(rows, cols)), run(part.into()), "{isa}");
        }
    }
}

#[test]
fn groups_of_rows_have_their_own_factors_and_may_be_empty() {
    let (a, b) = (random(1, 9 * 5), random(2, 4 * 5 * 40));
    let (a, b) = (Matrix::new(&a, 9, 5), Matrix::new(&b, 4 * 5, 40));
    let factor = |group: usize| b.rows(group * 5..(group + 1) * 5);
    let c: Vec<f32> = multiply_grouped(a, &[2, 0, 6, 1], 40, |group| factor(group).into());
    let parts = [(0, 0..2), (2, 2..8), (3, 8..9)];
    let truth = parts.map(|(group, rows)| multiply::<f32>(a.rows(rows), factor(group)));
    assert_eq!(c, truth.concat());
    let none = Matrix::new(&[], 0, 5);
    assert!(multiply_grouped::<bf16>(none, &[0, 0], 40, |group| factor(group).into()).is_empty());
}

#[test]
fn what_is_not_a_number_stays_none() {
    for isa in all() {
        for is_bf16 in [false, true] {
            let case = Case { m: 2, n: 3, k: 4, turned: (false, false), gap: 0 };
            let mut factors = Factors::new(case, 1);
            factors.a[1] = f32::NAN;
            let c = run(isa, &factors, is_bf16, false);
            assert!(c[..3].iter().all(|c| c.is_nan()) && c[3..].iter().all(|c| c.is_finite()));
        }
    }
}

#[test]
#[should_panic(expected = "[3, 2] at row stride 2 in 5 values")]
fn a_slice_that_is_too_short_is_refused() {
    Matrix::new(&[0.0; 5], 3, 2);
}

#[test]
#[should_panic(expected = "[2, 2] from")]
fn extents_that_do_not_fit_are_refused() {
    let values = [0.0; 6];
    let a = Matrix::new(&values, 2, 3);
    product(MatrixMut::new(&mut [0.0; 4], 2, 2), Output::Write, 1.0, a, a);
}
