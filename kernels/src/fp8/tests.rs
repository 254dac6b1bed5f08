//! FP8 against the definition of E4M3, a search through all its numbers, and PyTorch.

use half::bf16;

use super::*;
use crate::random::{bits, key, normal};

/// Key of all random data here.
const SEED: u64 = 2507;

fn random(name: &str, n: usize) -> Vec<f32> {
    println!("seed {SEED}");
    (0..n as u64).map(|i| normal(key(SEED, name), i)).collect()
}

fn encoded<N: Number>(x: &[N], width: usize) -> (Vec<u8>, Vec<f32>) {
    let rows = x.len().checked_div(width).unwrap_or(0);
    let (mut codes, mut scales) = (vec![0x55; x.len()], vec![-1.0; rows * tiles(width)]);
    encode(x, width, &mut codes, &mut scales);
    (codes, scales)
}

fn decoded<N: Number>(codes: &[u8], scales: &[f32], width: usize) -> Vec<N> {
    let mut x = vec![N::nearest(-1.0); codes.len()];
    decode(codes, scales, width, &mut x);
    x
}

fn there_and_back<N: Number>(x: &[N], width: usize) -> Vec<N> {
    let (codes, scales) = encoded(x, width);
    decoded(&codes, &scales, width)
}

fn narrow(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|x| bf16::from_f32(*x)).collect()
}

/// The definition, with powers of two instead of bits.
fn defined(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa / 8.0 * 2.0_f64.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2.0_f64.powi(exponent - 7),
    };
    if code < 0x80 { magnitude } else { -magnitude }
}

/// The nearest of all positive numbers, of two the one with an even code.
fn searched(x: f32) -> u8 {
    let away = |code: u8| (defined(code) - f64::from(x.abs())).abs();
    let order = |a: &u8, b: &u8| away(*a).total_cmp(&away(*b)).then((a & 1).cmp(&(b & 1)));
    let code = (0..NAN).min_by(order).unwrap();
    if x.is_sign_negative() { code | 0x80 } else { code }
}

/// Codes of numbers up to 448 at a scale of one, which a further element sees to.
fn codes_at_scale_one(x: &[f32]) -> Vec<u8> {
    let mut rows = vec![LARGEST; x.len().div_ceil(TILE - 1) * TILE];
    for (row, x) in rows.chunks_mut(TILE).zip(x.chunks(TILE - 1)) {
        row[1..=x.len()].copy_from_slice(x);
    }
    let (codes, scales) = encoded(&rows, TILE);
    assert!(scales.iter().all(|scale| *scale == 1.0));
    let rest = codes.chunks(TILE).flat_map(|codes| &codes[1..]);
    rest.take(x.len()).copied().collect()
}

/// Root of the mean square and cosine of what is stored, against what comes back.
fn likeness<N: Number>(x: &[N], back: &[N]) -> (f64, f64) {
    let sum = |term: fn(f64, f64) -> f64| -> f64 {
        let terms = x.iter().zip(back);
        terms.map(|(x, back)| term(f64::from(x.wide()), f64::from(back.wide()))).sum()
    };
    let (own, other) = (sum(|x, _| x * x), sum(|_, back| back * back));
    let error = (sum(|x, back| (x - back).powi(2)) / own).sqrt();
    (error, sum(|x, back| x * back) / (own * other).sqrt())
}

#[test]
fn every_code_is_the_number_of_its_definition() {
    let codes: Vec<u8> = (0..=255).collect();
    let values: Vec<f32> = decoded(&codes, &[1.0; 2], 256);
    for (code, value) in codes.iter().zip(values) {
        let defined = defined(*code);
        assert_eq!(value.is_nan(), defined.is_nan(), "{code:#x}");
        let same = f64::from(value).to_bits() == defined.to_bits();
        assert!(same || value.is_nan(), "{code:#x}: {value}, not {defined}");
    }
    assert_eq!(defined(0x7E), f64::from(LARGEST));
}

#[test]
fn every_number_of_the_format_keeps_its_code() {
    let codes: Vec<u8> = (0..=255).filter(|code| code & NAN != NAN).collect();
    let values: Vec<f32> = codes.iter().map(|code| defined(*code) as f32).collect();
    assert_eq!(codes_at_scale_one(&values), codes);
}

#[test]
fn codes_are_those_of_the_nearest_numbers_and_ties_go_to_the_even_one() {
    println!("seed {SEED}");
    let ties = (0..0x7E).map(|code| ((defined(code) + defined(code + 1)) / 2.0) as f32);
    let beside = ties.flat_map(|tie| [tie, tie.next_down(), tie.next_up()]);
    let tiny = [f32::from_bits(1), f32::MIN_POSITIVE, 2.0_f32.powi(-10), LARGEST.next_down()];
    let any = (0..60_000).map(|i| f32::from_bits(bits(SEED, i) as u32));
    let near = (0..60_000).map(|i| normal(SEED, i) * 2.0_f32.powi(bits(SEED, i) as i32 % 12));
    let x: Vec<f32> = beside.chain(tiny).chain(any).chain(near).collect();
    let x: Vec<f32> = x.into_iter().flat_map(|x| [x, -x]).filter(|x| x.abs() <= LARGEST).collect();
    for (x, code) in x.iter().zip(codes_at_scale_one(&x)) {
        assert_eq!(code, searched(*x), "{x:e}");
    }
}

#[test]
fn numbers_and_rows_have_the_codes_of_pytorch() {
    let digits = |text: &str, size: usize| -> Vec<u32> {
        let parts = (0..text.len()).step_by(size);
        parts.map(|at| u32::from_str_radix(&text[at..at + size], 16).unwrap()).collect()
    };
    for line in include_str!("golden.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (kind, rest) = fields.split_first().unwrap();
        if *kind == "numbers" {
            let of = |at: usize| rest.iter().skip(at).step_by(2);
            let x: Vec<f32> = of(0).map(|text| f32::from_bits(digits(text, 8)[0])).collect();
            let codes: Vec<u8> = of(1).map(|text| digits(text, 2)[0] as u8).collect();
            assert_eq!(codes_at_scale_one(&x), codes, "{x:?}");
            continue;
        }
        let x: Vec<bf16> =
            digits(rest[0], 4).iter().map(|bits| bf16::from_bits(*bits as u16)).collect();
        let (codes, scales) = encoded(&x, x.len());
        let scales: Vec<u32> = scales.iter().map(|scale| scale.to_bits()).collect();
        assert_eq!(scales, digits(rest[1], 8));
        assert_eq!(codes.iter().map(|it| u32::from(*it)).collect::<Vec<_>>(), digits(rest[2], 2));
    }
}

#[test]
fn normal_data_come_back_with_an_error_of_two_and_a_half_percent() {
    fn check<N: Number>(x: &[N]) {
        let (error, cosine) = likeness(x, &there_and_back(x, 2048));
        println!("error {:.3} %, cosine {cosine:.6}", 100.0 * error);
        assert!((error - 0.0257).abs() < 0.0005, "{error}");
        assert!((cosine - 0.99967).abs() < 2e-5, "{cosine}");
    }
    let x = random("normal", 1 << 19);
    check(&x);
    check(&narrow(&x));
}

#[test]
fn an_element_is_off_by_a_seventeenth_of_itself_or_half_a_smallest_step() {
    // A division and a product in F32, and the rounding of what comes back.
    fn check<N: Number>(x: &[N], rounding: f64) {
        let (codes, scales) = encoded(x, TILE);
        let (back, mut worst): (Vec<N>, f64) = (decoded(&codes, &scales, TILE), 0.0);
        for (i, (x, back)) in x.iter().zip(&back).enumerate() {
            let (x, scale) = (f64::from(x.wide()), f64::from(scales[i / TILE]));
            let off = (x - f64::from(back.wide())).abs();
            if x.abs() < scale / 64.0 {
                assert!(off <= scale / 1024.0 * (1.0 + 1e-6) + rounding * x.abs(), "{x:e}");
            } else {
                worst = worst.max(off / x.abs());
            }
        }
        println!("at most {:.3} % of an element", 100.0 * worst);
        assert!((0.058..=1.0 / 17.0 + rounding).contains(&worst), "{worst}");
    }
    let x = random("worst", 1 << 19);
    check(&x, 3e-7);
    check(&narrow(&x), 2.0_f64.powi(-8));
}

#[test]
fn codes_and_scales_take_little_more_than_half_of_bf16() {
    let (codes, scales) = encoded(&narrow(&random("bytes", 4 * 1024)), 1024);
    let bytes = codes.len() + 4 * scales.len();
    assert_eq!(bytes as f64 / (2.0 * 4.0 * 1024.0), (128.0 + 4.0) / 256.0);
}

#[test]
fn an_outlier_harms_its_own_tile_alone() {
    let mut x = random("outlier", 4 * TILE);
    let calm = there_and_back(&x, 2 * TILE);
    let outlier = LARGEST * 65536.0;
    x[TILE + 5] = outlier;
    let back = there_and_back(&x, 2 * TILE);
    for tile in 0..4 {
        let part = tile * TILE..(tile + 1) * TILE;
        assert_eq!(back[part.clone()] == calm[part], tile != 1, "tile {tile}");
    }
    assert_eq!(back[TILE + 5], outlier);
    let others = (TILE..2 * TILE).filter(|i| *i != TILE + 5);
    assert!(others.into_iter().all(|i| back[i] == 0.0), "below the smallest step of the tile");
}

#[test]
fn a_tile_with_a_nan_or_an_infinity_is_nan_and_its_neighbours_are_not() {
    for bad in [f32::NAN, -f32::NAN, f32::from_bits(0x7F80_0001), f32::INFINITY, -f32::INFINITY] {
        let mut x = random("diverged", 3 * TILE);
        let calm = there_and_back(&x, 3 * TILE);
        x[TILE + 77] = bad;
        let check = |wide: Vec<f32>| {
            assert!(wide[TILE..2 * TILE].iter().all(|x| x.is_nan()));
            assert!(wide[..TILE].iter().chain(&wide[2 * TILE..]).all(|x| x.is_finite()));
        };
        let back = there_and_back(&x, 3 * TILE);
        assert_eq!(back[..TILE], calm[..TILE]);
        check(back);
        check(there_and_back(&narrow(&x), 3 * TILE).iter().map(|x| x.wide()).collect());
        let (codes, scales) = encoded(&x, 3 * TILE);
        assert!(codes[TILE..2 * TILE].iter().all(|code| *code == NAN) && scales[1].is_nan());
    }
}

#[test]
fn zeros_keep_their_signs_and_have_a_scale_that_divides() {
    let x: Vec<f32> = (0..200).map(|i| if i % 3 == 0 { -0.0 } else { 0.0 }).collect();
    let (codes, scales) = encoded(&x, 200);
    assert_eq!(scales, [f32::MIN_POSITIVE; 2]);
    assert!(codes.iter().zip(&x).all(|(code, x)| *code == (x.to_bits() >> 24) as u8));
    let back: Vec<f32> = decoded(&codes, &scales, 200);
    assert!(back.iter().zip(&x).all(|(back, x)| back.to_bits() == x.to_bits()));
}

#[test]
fn the_largest_and_the_smallest_numbers_stay_finite_and_near() {
    for largest in [f32::MAX, f32::MAX.next_down(), 3e38, 6e-36, 5e-36, 1e-40, 1e-45] {
        let x: Vec<f32> = random("extreme", TILE).iter().map(|x| x / 7.0 * largest).collect();
        let x = [&x[1..], &[-largest]].concat();
        let (codes, scales) = encoded(&x, TILE);
        assert!(scales[0] >= f32::MIN_POSITIVE && scales[0].is_finite());
        let back: Vec<f32> = decoded(&codes, &scales, TILE);
        for (x, back) in x.iter().zip(&back) {
            let allowed = (x.abs() / 17.0).max(2.0_f32.powi(-136)).max(scales[0] / 1024.0);
            assert!((x - back).abs() <= allowed * 1.0001, "{x:e} became {back:e} of {largest:e}");
        }
    }
    let x = vec![bf16::MAX; TILE];
    assert_eq!(there_and_back(&x, TILE), x);
}

#[test]
fn rows_of_any_width_have_the_tiles_they_would_have_alone() {
    let rows = 3;
    for width in [1, 5, 127, 128, 129, 200, 256, 300, 1024, 1100] {
        let x = random("widths", rows * width);
        let (codes, scales) = encoded(&x, width);
        let tile = |row: usize, tile: usize| {
            let end = width.min((tile + 1) * TILE);
            row * width + tile * TILE..row * width + end
        };
        for (i, scale) in scales.iter().enumerate() {
            let part = tile(i / tiles(width), i % tiles(width));
            let (alone, own) = encoded(&x[part.clone()], part.len());
            assert_eq!((&alone[..], own[0]), (&codes[part], *scale), "width {width}");
        }
        assert_eq!(there_and_back(&x, width).len(), x.len());
    }
}

#[test]
fn no_rows_and_no_width_are_nothing() {
    for width in [0, 1, 128, 300] {
        assert_eq!(encoded::<f32>(&[], width), (Vec::new(), Vec::new()));
        assert!(there_and_back::<bf16>(&[], width).is_empty());
    }
}

#[test]
#[should_panic(expected = "scales")]
fn scales_for_whole_tiles_alone_are_refused() {
    encode(&[0.0_f32; 200], 200, &mut [0; 200], &mut [0.0; 1]);
}

#[test]
fn wide_and_narrow_code_give_the_same_bits() {
    fn check<N: Number>(x: &[N], width: usize) {
        let (codes, scales) = encoded(x, width);
        let (mut narrow_codes, mut narrow_scales) = (codes.clone(), scales.clone());
        narrow_codes.fill(0x55);
        narrow_scales.fill(-1.0);
        encode_rows(x, width, &mut narrow_codes, &mut narrow_scales);
        let same = scales.iter().zip(&narrow_scales).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(codes == narrow_codes && same);
        let back: Vec<N> = decoded(&codes, &scales, width);
        let mut narrow_back = vec![N::ZERO; back.len()];
        decode_rows(&codes, &scales, width, &mut narrow_back);
        let bytes = |x: &[N]| bytemuck::cast_slice::<N, u8>(x).to_vec();
        assert!(bytes(&back) == bytes(&narrow_back));
    }
    println!("seed {SEED}");
    let mut x: Vec<f32> = (0..300 * 200).map(|i| f32::from_bits(bits(SEED, i) as u32)).collect();
    x.iter_mut().step_by(2).for_each(|x| *x = x.clamp(-1e3, 1e3));
    x.extend(random("forms", 300 * 200));
    for width in [300, 200, 75] {
        check(&x, width);
        check(&narrow(&x), width);
    }
}
