//! What a search may vary.

use crate::{
    mesh::Mesh,
    schedule::{Interleaved, Pipeline, Schedule},
    spec::PlanSpec,
};

/// Chunks of a stage that are tried where a schedule takes any number.
const VIRTUAL_STAGES: [usize; 4] = [2, 3, 4, 8];

/// All ways to spread a model over the ranks, and all schedules.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// Ranks, all of which are used.
    pub ranks: usize,
    /// Sequences of a step.
    pub sequences: usize,
    /// Chunks that the model can be cut into.
    pub chunks: usize,
    /// Routed experts of a layer; 1 if there are none.
    pub experts: usize,
    /// Sequences of one unit that are tried.
    pub microbatches: Vec<usize>,
    /// The plan that everything else is taken from.
    pub like: PlanSpec,
}

impl Space {
    /// Every mesh and microbatch under one schedule: the interleaved one if it knows such a
    /// pipeline, or else the first that does.
    pub fn meshes(&self) -> Vec<PlanSpec> {
        let mut plans = Vec::new();
        for pp in divisors(self.ranks).filter(|&pp| pp <= self.chunks) {
            let experts = divisors(self.ranks / pp).filter(|&ep| self.experts.is_multiple_of(ep));
            for ep in experts {
                let mesh = Mesh { pp, vpp: 1, ep, dp: self.ranks / pp / ep };
                let fits =
                    |unit: &&usize| self.sequences.is_multiple_of(**unit * mesh.data_ranks());
                for &microbatch in self.microbatches.iter().filter(fits) {
                    plans.extend(self.first(mesh, microbatch));
                }
            }
        }
        plans
    }

    fn first(&self, mesh: Mesh, microbatch: usize) -> Option<PlanSpec> {
        let plans = self.scheduled(mesh, microbatch);
        let is_plain = |plan: &&PlanSpec| {
            plan.mesh.vpp == 2 && matches!(plan.schedule(), Schedule::Interleaved1F1B(_))
        };
        plans.iter().find(is_plain).or(plans.first()).cloned()
    }

    /// A mesh under every schedule that knows such a pipeline.
    pub fn scheduled(&self, mesh: Mesh, microbatch: usize) -> Vec<PlanSpec> {
        let microbatches = self.sequences / (microbatch * mesh.data_ranks());
        let fits = |(schedule, virtual_stages): &(Schedule, usize)| {
            let virtual_stages = *virtual_stages;
            let pipeline = Pipeline { stages: mesh.pp, virtual_stages, microbatches };
            mesh.pp * virtual_stages <= self.chunks && schedule.fits(pipeline).is_ok()
        };
        let plan = |(schedule, vpp)| PlanSpec {
            mesh: Mesh { vpp, ..mesh },
            microbatch,
            schedule: Some(schedule),
            weight_grad: None,
            ..self.like.clone()
        };
        schedules(mesh.pp).into_iter().filter(fits).map(plan).collect()
    }
}

/// Schedules and numbers of virtual stages; a single stage has nothing to be scheduled.
fn schedules(stages: usize) -> Vec<(Schedule, usize)> {
    if stages == 1 {
        return vec![(Schedule::OneFOneB, 1)];
    }
    let mut rules = Schedule::ALL.to_vec();
    for (extra_warmup, group) in [(0, None), (1, None), (0, Some(2 * stages))] {
        let rule = Interleaved { extra_warmup, split_backward: true, group, ..Interleaved::PLAIN };
        rules.push(Schedule::Interleaved1F1B(rule));
    }
    let counted = |rule: Schedule| {
        let counts = match rule.virtual_stages() {
            Some(known) => vec![known],
            None => VIRTUAL_STAGES.to_vec(),
        };
        counts.into_iter().map(move |count| (rule.clone(), count))
    };
    rules.into_iter().flat_map(counted).collect()
}

fn divisors(number: usize) -> impl Iterator<Item = usize> {
    (1..=number).filter(move |&divisor| number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_uses_all_ranks_and_no_two_are_the_same() {
        let space = Space {
            ranks: 8,
            sequences: 32,
            chunks: 6,
            experts: 12,
            microbatches: vec![1, 2],
            like: PlanSpec::default(),
        };
        let all = space.meshes().into_iter();
        let all = all.flat_map(|plan| space.scheduled(plan.mesh, plan.microbatch));
        let plans: Vec<PlanSpec> = all.collect();
        for (at, plan) in plans.iter().enumerate() {
            assert_eq!(plan.mesh.ranks(), 8);
            assert!(plan.mesh.chunks() <= 6 && 12 % plan.mesh.ep == 0, "{plan:?}");
            assert!(!plans[..at].contains(plan), "{plan:?}");
        }
        let has = |wanted: (usize, usize, usize, usize)| {
            let mesh = |plan: &PlanSpec| {
                (plan.mesh.pp, plan.mesh.vpp, plan.mesh.ep, plan.mesh.dp) == wanted
            };
            plans.iter().any(mesh)
        };
        assert!(has((2, 2, 4, 1)) && has((1, 1, 1, 8)) && has((4, 1, 2, 1)));
        assert!(!has((8, 1, 1, 1)), "the model has six chunks");
        assert!(!has((1, 1, 8, 1)), "eight does not divide twelve experts");
    }
}
