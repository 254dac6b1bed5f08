//! What the optimizer's updates cost.

use std::{collections::BTreeMap, time::Instant};

use graphs::{
    ModelGraph,
    price::{Update, muon_flops},
};
use ops::{DType, Floats, Rule, optim::Optimizer};

use super::least;

/// Updates of one shape, of which the least counts.
const REPEATS: usize = 5;

/// Learning rate of the measured updates; no time depends on it.
const RATE: f32 = 1e-3;

/// Elements of the sums that are measured.
const SUM: usize = 1 << 18;

/// Measures an update of each shape of the model, weighted by how often it occurs.
pub fn update(graph: &ModelGraph, optimizer: &Optimizer, dtype: DType) -> Update {
    let mut shapes: BTreeMap<(bool, &[usize]), usize> = BTreeMap::new();
    let trained = graph.parameters().iter().filter(|it| it.spec.rule != Rule::Balance);
    for parameter in trained {
        let is_muon = parameter.spec.rule == Rule::Muon && parameter.spec.shape.len() == 2;
        *shapes.entry((is_muon, &parameter.spec.shape)).or_default() += 1;
    }
    let (mut muon, mut adamw) = ((0.0, 0.0), (0.0, 0.0));
    for ((is_muon, shape), count) in shapes {
        let rule = if is_muon { Rule::Muon } else { Rule::AdamW };
        let seconds = count as f64 * seconds(optimizer, rule, shape, dtype);
        let sum = if is_muon { &mut muon } else { &mut adamw };
        let work = match shape {
            &[rows, columns] if is_muon => muon_flops(rows, columns),
            _ => shape.iter().product::<usize>() as f64,
        };
        *sum = (sum.0 + seconds, sum.1 + count as f64 * work);
    }
    let rate = |(seconds, work): (f64, f64)| if work > 0.0 { seconds / work } else { 0.0 };
    Update { muon_flop: rate(muon), adamw_element: rate(adamw), join_element: joining() }
}

/// Seconds of one update of such a parameter, its new value rounded and all.
fn seconds(optimizer: &Optimizer, rule: Rule, shape: &[usize], dtype: DType) -> f64 {
    let elements = shape.iter().product();
    let key = kernels::random::key(0, "measure.update");
    let mut gradient = vec![0.0; elements];
    kernels::random::fill_normal(&mut gradient, key, 0, 1.0);
    let gradient = Floats::from(gradient);
    let mut master = gradient.clone();
    let mut state = optimizer.state(rule, shape);
    let mut once = || {
        let begin = Instant::now();
        optimizer.update(rule, shape, dtype, RATE, &gradient, &mut master, &mut state);
        std::hint::black_box(Floats::nearest(&[&master], shape, dtype));
        begin.elapsed().as_secs_f64()
    };
    least((0..REPEATS).map(|_| once()))
}

/// Seconds for each element that an owner adds to its sum.
fn joining() -> f64 {
    let part = vec![1.0_f32; SUM];
    let mut sum = vec![0.0_f32; SUM];
    let mut once = || {
        let begin = Instant::now();
        sum.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part);
        std::hint::black_box(&sum);
        begin.elapsed().as_secs_f64() / SUM as f64
    };
    least((0..REPEATS).map(|_| once()))
}
