//! Attention against the plain formula, and its gradient against central differences.

use super::*;
use crate::random::normal;

const HEADS: Heads = Heads { heads: 2, nope: 4, rope: 2, value: 3, scale: 0.6 };

struct Case {
    sequence: usize,
    q: Vec<f32>,
    kv: Vec<f32>,
    k_rope: Vec<f32>,
}

fn case(tokens: usize, sequence: usize) -> Case {
    let random = |key, width| (0..(tokens * width) as u64).map(|i| normal(key, i)).collect();
    let (q, kv) = (HEADS.heads * HEADS.key(), HEADS.kv_width());
    Case { sequence, q: random(1, q), kv: random(2, kv), k_rope: random(3, HEADS.rope) }
}

fn rotation(sequence: usize) -> Rotation {
    Rotation::new(&[0.3], 1.0, 0, sequence)
}

/// The formula of the module, word by word, in f64.
fn truth(case: &Case) -> (Vec<f64>, Vec<f64>) {
    let Heads { heads, nope, rope, value, scale } = HEADS;
    let (tokens, rotation) = (case.k_rope.len() / rope, rotation(case.sequence));
    let turned = |x: &[f32], token: usize| {
        let mut x = x.to_vec();
        rotation.turn(token % case.sequence, &mut x);
        x
    };
    let logit = |t: usize, u: usize, h: usize| {
        let q = &case.q[(t * heads + h) * HEADS.key()..][..HEADS.key()];
        let k = &case.kv[u * HEADS.kv_width() + h * (nope + value)..][..nope];
        let (q_rope, k_rope) = (turned(&q[nope..], t), turned(&case.k_rope[u * rope..][..rope], u));
        let pairs = q[..nope].iter().zip(k).chain(q_rope.iter().zip(&k_rope));
        pairs.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() * f64::from(scale)
    };
    let (mut y, mut largest) = (Vec::new(), vec![f64::NEG_INFINITY; heads]);
    for t in 0..tokens {
        let start = t / case.sequence * case.sequence;
        for (h, largest) in largest.iter_mut().enumerate() {
            let logits: Vec<f64> = (start..=t).map(|u| logit(t, u, h)).collect();
            *largest = logits.iter().fold(*largest, |a, &b| a.max(b));
            let sum: f64 = logits.iter().map(|x| x.exp()).sum();
            for c in 0..value {
                let v = |u: usize| case.kv[u * HEADS.kv_width() + h * (nope + value) + nope + c];
                let terms = logits.iter().zip(start..);
                y.push(terms.map(|(x, u)| x.exp() / sum * f64::from(v(u))).sum());
            }
        }
    }
    (y, largest)
}

fn run(case: &Case) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let tokens = case.k_rope.len() / HEADS.rope;
    let mut y = vec![0.0; tokens * HEADS.heads * HEADS.value];
    let (mut log_sums, mut largest) = (vec![0.0; tokens * HEADS.heads], vec![0.0; HEADS.heads]);
    let x = Inputs { q: &case.q, kv: &case.kv, k_rope: &case.k_rope };
    let rotation = rotation(case.sequence);
    forward(&HEADS, &rotation, case.sequence, x, &mut y, &mut log_sums, &mut largest);
    (y, log_sums, largest)
}

#[test]
fn the_tiles_agree_with_the_formula() {
    // One tile, several tiles of which the last is not full, and two sequences.
    for (tokens, sequence) in [(5, 5), (150, 150), (140, 70)] {
        let case = case(tokens, sequence);
        let ((y, _, largest), (true_y, true_largest)) = (run(&case), truth(&case));
        for (y, truth) in y.iter().zip(&true_y).chain(largest.iter().zip(&true_largest)) {
            assert!((f64::from(*y) - truth).abs() < 2e-5, "{tokens} {sequence}: {y} {truth}");
        }
    }
}

#[test]
fn later_tokens_and_other_sequences_do_not_matter() {
    let mut case = case(140, 70);
    let before = run(&case).0;
    case.kv[100 * HEADS.kv_width()..].fill(5.0);
    case.k_rope[100 * HEADS.rope..].fill(5.0);
    let width = HEADS.heads * HEADS.value;
    let after = run(&case).0;
    assert_eq!(before[..100 * width], after[..100 * width]);
    assert_ne!(before[100 * width..], after[100 * width..]);
}

#[test]
fn the_gradient_agrees_with_central_differences_across_tiles() {
    let case = case(70, 70);
    let (y, log_sums, _) = run(&case);
    let dy: Vec<f32> = (0..y.len() as u64).map(|i| normal(4, i)).collect();
    let (mut q, mut kv) = (vec![0.0; case.q.len()], vec![0.0; case.kv.len()]);
    let mut k_rope = vec![0.0; case.k_rope.len()];
    let x = Inputs { q: &case.q, kv: &case.kv, k_rope: &case.k_rope };
    let dx = Gradients { q: &mut q, kv: &mut kv, k_rope: &mut k_rope };
    backward(&HEADS, &rotation(70), 70, x, &log_sums, &dy, dx);

    let loss = |case: &Case| -> f64 {
        truth(case).0.iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum()
    };
    let check = |name: &str, i: usize, got: f32, nudge: &dyn Fn(&mut Case, f32)| {
        let at = |h: f32| {
            let (q, kv, k_rope) = (case.q.clone(), case.kv.clone(), case.k_rope.clone());
            let mut moved = Case { sequence: 70, q, kv, k_rope };
            nudge(&mut moved, h);
            loss(&moved)
        };
        let slope = (at(1.0 / 256.0) - at(-1.0 / 256.0)) * 128.0;
        assert!((slope - f64::from(got)).abs() < 2e-3, "{name}[{i}]: {got} and {slope}");
    };
    for i in (0..q.len()).step_by(97) {
        check("q", i, q[i], &|case, h| case.q[i] += h);
    }
    for i in (0..kv.len()).step_by(97) {
        check("kv", i, kv[i], &|case, h| case.kv[i] += h);
    }
    for i in (0..k_rope.len()).step_by(13) {
        check("k_rope", i, k_rope[i], &|case, h| case.k_rope[i] += h);
    }
}
