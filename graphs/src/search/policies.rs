//! Policies that a search may vary: what saves memory or hides messages, and changes no bit.
//!
//! FP8 storage changes numbers, so that is the job's to ask for: a search takes it as it finds it.

use crate::{
    policy::{Activations, Offload, Recompute},
    spec::{Overlap, PlanSpec, Zero},
};

/// The plan with all that saves memory.
pub(super) fn lean(spec: &PlanSpec) -> PlanSpec {
    let Activations { to, prefetch, .. } = spec.policies().offloads().unwrap_or_default();
    let offload = Offload::Activations(Activations { to, prefetch, stored: true });
    PlanSpec {
        recompute: Recompute::ALL.to_vec(),
        offload: Some(offload),
        offload_states: 1.0,
        zero: Zero::Stage1,
        ..spec.clone()
    }
}

/// The plan with forward and backward passes in pairs, if rows travel and they are not.
pub(super) fn paired(spec: &PlanSpec) -> Option<PlanSpec> {
    let overlap = [spec.overlap.clone(), vec![Overlap::ExpertAllToAll]].concat();
    (spec.mesh.ep > 1 && !spec.pairs()).then(|| PlanSpec { overlap, ..spec.clone() })
}

/// Plans that differ from one in a single policy.
pub(super) fn changes(spec: &PlanSpec) -> Vec<PlanSpec> {
    let mut plans = Vec::new();
    let mut add = |changed: PlanSpec| {
        if changed != *spec {
            plans.push(changed);
        }
    };
    let kept = |what: &Recompute| spec.recompute.iter().copied().filter(|it| it != what).collect();
    for what in &spec.recompute {
        add(PlanSpec { recompute: kept(what), ..spec.clone() });
    }
    add(PlanSpec { recompute: Vec::new(), ..spec.clone() });
    add(PlanSpec { recompute: Recompute::ALL.to_vec(), ..spec.clone() });
    let how = spec.policies().offloads().unwrap_or_default();
    for stored in [false, true] {
        let offload = Some(Offload::Activations(Activations { stored, ..how }));
        add(PlanSpec { offload, ..spec.clone() });
    }
    add(PlanSpec { offload: None, ..spec.clone() });
    for offload_states in [0.0, 0.5, 1.0] {
        add(PlanSpec { offload_states, ..spec.clone() });
    }
    for zero in [Zero::Owners, Zero::Stage1] {
        add(PlanSpec { zero, ..spec.clone() });
    }
    for what in [Overlap::ExpertAllToAll, Overlap::GradReduce] {
        let mut overlap = spec.overlap.clone();
        match overlap.iter().position(|it| *it == what) {
            Some(at) => drop(overlap.remove(at)),
            None => overlap.push(what),
        }
        add(PlanSpec { overlap, ..spec.clone() });
    }
    plans
}

/// In how many policies two plans differ.
pub(super) fn differences(a: &PlanSpec, b: &PlanSpec) -> usize {
    let differs = [
        a.recompute != b.recompute,
        a.policies().store != b.policies().store,
        a.policies().offloads() != b.policies().offloads(),
        a.offload_states != b.offload_states,
        a.zero != b.zero,
        a.overlap != b.overlap,
    ];
    differs.into_iter().filter(|&it| it).count()
}
