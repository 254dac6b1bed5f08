//! Learning rates: numbers that are rates, and points that follow each other.

use super::{Places, parts::not_positive, paths::Paths};
use crate::{
    code,
    job::{Fall, LearningRate, Wsd},
    quantity::Extent,
    report::Finding,
};

/// The learning rate of a phase.
pub fn rate(paths: &Paths<'_>, places: Places<'_>) -> Vec<Finding> {
    match &paths.train.lr {
        LearningRate::Wsd(wsd) => of_wsd(wsd, paths, places),
        LearningRate::Constant(_) => first(paths, places).into_iter().collect(),
        LearningRate::Cosine(Fall { to, .. }) | LearningRate::Linear(Fall { to, .. }) => {
            first(paths, places).into_iter().chain(is_rate("to", *to, paths, places)).collect()
        }
    }
}

/// A rate of 0 or more.
fn is_rate(field: &str, rate: f64, paths: &Paths<'_>, places: Places<'_>) -> Option<Finding> {
    let message = format!("`{field}` is {rate}; expected a rate of 0 or more");
    let place = places.of(&paths.of(&format!("lr.{field}")));
    (!(rate.is_finite() && rate >= 0.0)).then(|| Finding::new(code::RATE, message).at(place, ""))
}

/// The first rate, which must be said where there is no phase before.
fn first(paths: &Paths<'_>, places: Places<'_>) -> Option<Finding> {
    if let Some(from) = paths.train.lr.from() {
        return is_rate("from", from, paths, places);
    }
    if paths.phase.begin > 0 {
        return None;
    }
    let message = "`from` is left out, but there is no phase before whose last rate could go on";
    let finding = Finding::new(code::RATE, message).at(places.of(&paths.of("lr")), "");
    Some(finding.help("write the first rate, such as `from: 2e-4`"))
}

fn of_wsd(wsd: &Wsd, paths: &Paths<'_>, places: Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = |field: &str| places.of(&paths.of(&format!("lr.{field}")));
    if !(wsd.peak.is_finite() && wsd.peak > 0.0) {
        findings.push(not_positive(&paths.of("lr.peak"), &wsd.peak.to_string(), places));
    }
    let steps = |extent: Extent| extent.steps(paths.train.batch.0);
    match (&wsd.decay, wsd.stable) {
        (Some(_), None) => {
            let finding = Finding::new(code::RATE, "`decay` needs `stable`, where it begins");
            findings.push(finding.at(place("decay"), "").help("add `stable: \"1000 steps\",`"));
        }
        (_, Some(stable)) if steps(stable) < steps(wsd.warmup) => {
            let finding = Finding::new(code::RATE, "`stable` ends before `warmup` does");
            let finding = finding.at(place("stable"), "counted from the start of the run");
            findings.push(finding.at(place("warmup"), "`warmup` is from here"));
        }
        _ => {}
    }
    let to = wsd.decay.as_ref().map_or(0.0, |decay| decay.end().0);
    if !(0.0..=wsd.peak).contains(&to) {
        let message = format!("the rate decays to {to}; expected 0 to the peak of {}", wsd.peak);
        findings.push(Finding::new(code::RATE, message).at(place("decay.to"), ""));
    }
    findings
}
