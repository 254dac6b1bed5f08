//! Numbers of the update rule, each within the range in which it means something.

use ops::optim::{MuonClip, Optimizer, PlainAdamW};

use super::Places;
use crate::{
    code,
    job::{Job, Train},
    report::Finding,
};

/// A number by the name of its field, whether it is right, and what was expected.
type Number = (&'static str, f32, bool, &'static str);

/// Every number of the learner's optimizer that is outside its range.
pub fn ranges(job: &Job, places: Places<'_>) -> Vec<Finding> {
    let of = |(name, train): (&str, &Train)| {
        let path = format!("actors.{name}.optimizer");
        let numbers = match &train.optimizer {
            _ if !places.sound(&[&path]) => Vec::new(),
            Optimizer::MuonClip(muon) => of_muon(muon),
            Optimizer::AdamW(adam) => of_adam(adam),
        };
        let wrong = numbers.into_iter().filter(|(_, _, is_right, _)| !is_right);
        wrong.map(|number| finding(&path, number, places)).collect::<Vec<_>>()
    };
    job.learners().flat_map(of).collect()
}

fn finding(path: &str, (field, got, _, expected): Number, places: Places<'_>) -> Finding {
    let name = field.rsplit('.').next().unwrap_or(field);
    let message = format!("`{name}` is {got}; expected {expected}");
    Finding::new(code::VALUE, message).at(places.of(&format!("{path}.{field}")), "")
}

fn of_muon(muon: &MuonClip) -> Vec<Number> {
    let mut numbers = vec![
        decay("momentum", muon.momentum),
        at_least_zero("weight_decay", muon.weight_decay),
        above_zero("update_rms", muon.update_rms),
        above_zero("qk_clip", muon.qk_clip.unwrap_or(1.0)),
        at_least_zero("balance_rate", muon.balance_rate),
        above_zero("rest.eps", muon.rest.eps),
    ];
    numbers.extend(betas("rest.betas", muon.rest.betas));
    numbers
}

fn of_adam(adam: &PlainAdamW) -> Vec<Number> {
    let mut numbers = vec![
        above_zero("eps", adam.eps),
        at_least_zero("weight_decay", adam.weight_decay),
        at_least_zero("balance_rate", adam.balance_rate),
    ];
    numbers.extend(betas("betas", adam.betas));
    numbers
}

fn betas(field: &'static str, (first, second): (f32, f32)) -> [Number; 2] {
    [decay(field, first), decay(field, second)]
}

fn decay(field: &'static str, got: f32) -> Number {
    (field, got, (0.0..1.0).contains(&got), "0 or more, below 1")
}

fn at_least_zero(field: &'static str, got: f32) -> Number {
    (field, got, got >= 0.0 && got.is_finite(), "0 or more")
}

fn above_zero(field: &'static str, got: f32) -> Number {
    (field, got, got > 0.0 && got.is_finite(), "more than 0")
}
