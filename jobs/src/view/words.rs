//! Words and units that several pages share.

use std::collections::BTreeMap;

use graphs::{
    PlanSpec,
    mesh::Mesh,
    overlap::{Carried, Overlap, Travel},
    policy::{Activations, Recompute},
    schedule::Schedule,
    spec::{Credits, Zero},
    timeline::Cause,
};
use serde_json::Value;

/// A cause of idle time in a word or two.
pub fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::WarmUp => "warm-up",
        Cause::Data => "data",
        Cause::Transfer => "transfer",
        Cause::Link => "link",
        Cause::Credit => "credit",
        Cause::HostLink => "host link",
        Cause::Core => "core",
        Cause::CoolDown => "cool-down",
    }
}

/// Seconds in a unit that leaves a number above one.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.3} s"),
        s if s >= 1e-3 => format!("{:.2} ms", 1e3 * s),
        s => format!("{:.1} us", 1e6 * s),
    }
}

/// A plan in one line: mesh, microbatch, schedule, credits; what is as by default is left out.
pub fn short(spec: &PlanSpec) -> String {
    let Mesh { pp, vpp, ep, dp } = spec.mesh;
    let unit = match spec.microbatch {
        1 => String::new(),
        unit => format!(" microbatch {unit}"),
    };
    let credits = match spec.credits {
        Credits::Least { slack: 1 } => String::new(),
        Credits::Least { slack } => format!(" slack {slack}"),
        Credits::Fixed(credits) => format!(" credits {credits}"),
    };
    let schedule = match spec.schedule() {
        plain if Schedule::ALL.contains(&plain) => plain.name().to_string(),
        other => variant(&other),
    };
    let zero = match spec.zero {
        Zero::Owners => "",
        Zero::Stage1 => " zero Stage1",
    };
    let policies = policies(spec);
    format!("pp {pp} x {vpp}  ep {ep}  dp {dp}{unit}  {schedule}{credits}{zero}{policies}")
}

/// What a plan does with activations and messages, in a few words.
fn policies(spec: &PlanSpec) -> String {
    let policies = spec.policies();
    let recompute = match spec.recompute.len() {
        0 => String::new(),
        all if all == Recompute::ALL.len() => " recompute all".into(),
        _ => format!(" recompute {:?}", spec.recompute),
    };
    let store = if policies.stores_nothing() { "" } else { " fp8" };
    let offload = match policies.offloads() {
        Some(Activations { stored: true, .. }) => " offload all",
        Some(_) => " offload",
        None => "",
    };
    let states = match spec.offload_states {
        0.0 => String::new(),
        part => format!(" states {part} on the host"),
    };
    let overlap: String = spec.overlap.iter().map(|it| format!(" {it:?}")).collect();
    recompute + store + offload + &states + &overlap
}

/// A plan as a file that `--plan` takes; the schedule stands there even where it is the usual one.
pub fn plan(spec: &PlanSpec) -> String {
    let spec = PlanSpec { schedule: Some(spec.schedule()), ..spec.clone() };
    let Mesh { pp, vpp, ep, dp } = spec.mesh;
    let mut text = format!("(\n    mesh: (pp: {pp}, vpp: {vpp}, ep: {ep}, dp: {dp}),\n");
    let json = serde_json::to_value(&spec).expect("plans are plain data");
    for (name, value) in json.as_object().into_iter().flatten().filter(|it| it.0 != "mesh") {
        text += &format!("    {name}: {},\n", variant(value));
    }
    text + ")\n"
}

/// A value of an enum as a job file writes it.
pub fn variant(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).expect("plans are plain data");
    match json {
        Value::Object(object) if object.len() == 1 => {
            let (name, inner) = object.into_iter().next().expect("one entry");
            match fields(&inner) {
                Some(fields) if fields.is_empty() => format!("{name}()"),
                Some(fields) => format!("{name}({fields})"),
                None => format!("{name}({})", plain(&inner)),
            }
        }
        other => plain(&other),
    }
}

fn fields(json: &Value) -> Option<String> {
    let fields = json.as_object()?.iter().filter(|(_, value)| !value.is_null());
    let fields: Vec<String> = fields.map(|(name, it)| format!("{name}: {}", plain(it))).collect();
    Some(fields.join(", "))
}

/// A value without enums that have contents. Words stand bare: plans have no other texts.
fn plain(json: &Value) -> String {
    match json {
        Value::String(word) => word.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(_) => format!("({})", fields(json).unwrap_or_default()),
        other => other.to_string(),
    }
}

/// What travelled and how much of it was hidden, a line for each kind; nothing if nothing did.
pub fn overlap(overlap: &Overlap) -> Vec<String> {
    let line = |(carried, whole): (&Carried, &Travel)| {
        let percent = |of: &Travel| format!("{:.1} % hidden", 100.0 * of.part_hidden());
        let part = |of: &BTreeMap<Carried, Travel>, when: &str| {
            let there = of.get(carried).map(|it| format!(", {} {when}", percent(it)));
            there.unwrap_or_default()
        };
        format!(
            "{:<9} {} on its way, {} exposed: {}{}{}",
            carried.name(),
            time(whole.hidden + whole.exposed),
            time(whole.exposed),
            percent(whole),
            part(&overlap.warm, "without the warm-up"),
            part(&overlap.steady, "in the steady phase"),
        )
    };
    overlap.whole.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use graphs::{
        policy::{Offload, Store},
        schedule::Interleaved,
        spec::{Overlap as Hidden, WeightGrad},
    };

    use super::*;
    use crate::{Request, load};

    fn with_policies() -> PlanSpec {
        let stored = Activations { stored: true, ..Activations::default() };
        PlanSpec {
            overlap: vec![Hidden::ExpertAllToAll, Hidden::GradReduce],
            recompute: Recompute::ALL.to_vec(),
            store: Some(Store::k2()),
            offload: Some(Offload::Activations(stored)),
            offload_states: 0.5,
            weight_grad: Some(WeightGrad::Late(2)),
            ..PlanSpec::default()
        }
    }

    #[test]
    fn a_written_plan_is_read_as_the_same_plan() {
        let rule = Interleaved { extra_warmup: 1, split_backward: true, ..Interleaved::PLAIN };
        let mut schedules = Schedule::ALL.to_vec();
        schedules.push(Schedule::Interleaved1F1B(rule));
        let folder = tempfile::tempdir().unwrap();
        for (at, schedule) in schedules.into_iter().enumerate() {
            let vpp = schedule.virtual_stages().unwrap_or(2);
            let mesh = Mesh { pp: 2, vpp, ep: 2, dp: 1 };
            let credits = Credits::Least { slack: at % 3 };
            let zero = [Zero::Owners, Zero::Stage1][at % 2];
            let policies = if at % 3 == 0 { PlanSpec::default() } else { with_policies() };
            let schedule = Some(schedule);
            let spec = PlanSpec { mesh, schedule, credits, zero, ..policies };
            let path = folder.path().join(format!("{at}.ron"));
            std::fs::write(&path, plan(&spec)).unwrap();
            let file = path.display().to_string();
            let request = Request { job: "k2-nano".into(), plan: Some(file), ..Request::default() };
            let loaded = load(&request).unwrap_or_else(|it| panic!("{it}\n{}", plan(&spec)));
            assert_eq!(*loaded.job.plan(), spec);
        }
    }
}
