//! `verify`: the same job under several plans, one hash.

use std::{collections::BTreeMap, num::NonZeroUsize};

use runtime::Feed;
use serde_json::json;

use crate::{
    commands::run::Options,
    data::Mix,
    device,
    exit::Failure,
    folder,
    job::Job,
    load::Loaded,
    prepare,
    verify::{Difference, Trace, first_difference, trace},
};

/// Trains a few steps of the phase that is looked at under each plan and compares every bit.
///
/// `plans` names some of the job's plans; all of them if it is empty. Gradients are summed in as
/// many lanes as the widest of the plans has data ranks, so that all can give the same bits.
///
/// # Errors
///
/// A plan that does not exist or fit, text that cannot be read, a failing actor.
pub fn verify(
    loaded: &Loaded,
    plans: &[String],
    steps: NonZeroUsize,
    options: &Options,
) -> Result<u8, Failure> {
    let (job, steps) = (&loaded.job, steps.get());
    let names: Vec<String> = match plans {
        [] => job.plans.keys().cloned().collect(),
        some => some.to_vec(),
    };
    if names.is_empty() {
        let message = "the job has no `plans` to compare; add `plans: {\"one\": (), ..}`";
        return Err(Failure::usage(message.into()));
    }
    let lanes = lanes(job, &names)?;
    let network = prepare::network(job)?;
    let data = options.data.as_ref();
    let phases = loaded.phases.iter().map(|phase| &phase.job);
    let (mut mixes, _) = prepare::texts(phases, &network.graph, data, &folder::cache())?;
    let steps_text = steps_of(job, &mut mixes[loaded.at], steps)?;
    let mut traces = Vec::new();
    for name in &names {
        let network = prepare::network(job)?;
        let plan = prepare::plan(job, &network.graph, Some(name), Some(lanes))?;
        device::fits(job, &network.graph, &plan)?;
        let setup = prepare::setup(loaded.phase(), network, plan, None)?;
        let feed = Box::new(Recorded { steps: steps_text.clone(), next: 0 });
        let one = trace(name, setup, feed, steps)?;
        if !options.json {
            println!("{}  {name}", &one.hash()[..16]);
        }
        traces.push(one);
    }
    let difference = first_difference(&network.graph, &traces);
    conclude(&traces, difference, steps, options.json)
}

fn conclude(
    traces: &[Trace],
    difference: Option<Difference>,
    steps: usize,
    as_json: bool,
) -> Result<u8, Failure> {
    if as_json {
        let plans: BTreeMap<&str, String> =
            traces.iter().map(|trace| (trace.plan.as_str(), trace.hash())).collect();
        let mut answer = json!({ "schema": 1, "equal": difference.is_none(), "plans": plans });
        if let Some(difference) = &difference {
            answer["first_difference"] = json!(difference);
        }
        println!("{answer}");
        return Ok(if difference.is_none() { 0 } else { 5 });
    }
    match difference {
        None => {
            let compared = traces[0].steps[0].parameters.iter().flatten().count();
            println!(
                "equal: loss, gradients and values of {compared} parameters over {steps} steps \
                 under {} plans",
                traces.len()
            );
            Ok(0)
        }
        Some(Difference { plan, step, what }) => Err(Failure::differs(format!(
            "plan `{plan}` differs from plan `{}` first in the {what}, step {step}",
            traces[0].plan
        ))),
    }
}

/// The least number of lanes that every plan's data ranks divide.
fn lanes(job: &Job, names: &[String]) -> Result<usize, Failure> {
    let mut lanes = job.learner().1.lanes.unwrap_or(1);
    for name in names {
        let spec = job.plans.get(name).ok_or_else(|| {
            let known = job.plans.keys().cloned().collect::<Vec<_>>().join(", ");
            Failure::usage(format!("the job has no plan `{name}`; it has {known}"))
        })?;
        lanes = least_common_multiple(lanes, spec.mesh.data_ranks());
    }
    Ok(lanes)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let mut divisor = (a, b);
    while divisor.1 != 0 {
        divisor = (divisor.1, divisor.0 % divisor.1);
    }
    a / divisor.0 * b
}

/// Tokens and targets of one step.
type Step = (Vec<i32>, Vec<i32>);

fn steps_of(job: &Job, mix: &mut Mix, steps: usize) -> Result<Vec<Step>, Failure> {
    let batch = job.batch(job.plan());
    let read = |_| mix.next(batch.sequences, batch.context);
    let steps: Result<Vec<Step>, _> = (0..=steps).map(read).collect();
    Ok(steps.map_err(runtime::RunError::from)?)
}

/// Steps read once and given to every plan; begins anew at their end.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What each step gives.
    pub steps: Vec<Step>,
    /// The step to come.
    pub next: usize,
}

impl Feed for Recorded {
    fn next(&mut self, _: usize, _: usize) -> Result<Step, runtime::FeedError> {
        let step = self.steps[self.next % self.steps.len()].clone();
        self.next += 1;
        Ok(step)
    }

    fn position(&self) -> serde_json::Value {
        self.next.into()
    }

    fn seek(&mut self, position: &serde_json::Value) -> Result<(), runtime::FeedError> {
        let next = position.as_u64().ok_or_else(|| runtime::FeedError::Position {
            expected: "a number of steps".into(),
            got: position.to_string(),
        })?;
        self.next = next as usize;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_fit_every_plan() {
        assert_eq!(
            [(1, 4), (4, 6), (2, 2), (3, 5)].map(|(a, b)| least_common_multiple(a, b)),
            [4, 12, 2, 15]
        );
    }
}
