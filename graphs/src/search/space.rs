//! What a search may vary, and every plan of it.

use crate::{
    mesh::Mesh,
    schedule::{Interleaved, Pipeline, Schedule},
    spec::PlanSpec,
};

/// The most chunks of a stage that are tried where a schedule takes any number.
const VIRTUAL_STAGES: usize = 4;

/// The plans to be compared: all ways to spread a model over the ranks, times all schedules.
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
    /// All plans, in a fixed order.
    pub fn plans(&self) -> Vec<PlanSpec> {
        let mut plans = Vec::new();
        for pp in divisors(self.ranks).filter(|&pp| pp <= self.chunks) {
            let experts = divisors(self.ranks / pp).filter(|&ep| self.experts.is_multiple_of(ep));
            for ep in experts {
                let mesh = Mesh { pp, vpp: 1, ep, dp: self.ranks / pp / ep };
                let fits =
                    |unit: &&usize| self.sequences.is_multiple_of(**unit * mesh.data_ranks());
                for &microbatch in self.microbatches.iter().filter(fits) {
                    plans.extend(self.scheduled(mesh, microbatch));
                }
            }
        }
        plans
    }

    /// A mesh under every schedule that knows such a pipeline.
    fn scheduled(&self, mesh: Mesh, microbatch: usize) -> Vec<PlanSpec> {
        let microbatches = self.sequences / (microbatch * mesh.data_ranks());
        let fits = |(schedule, virtual_stages): &(Schedule, usize)| {
            let pipeline =
                Pipeline { stages: mesh.pp, virtual_stages: *virtual_stages, microbatches };
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
    for extra_warmup in [0, 1] {
        let rule = Interleaved { extra_warmup, split_backward: true, ..Interleaved::PLAIN };
        rules.push(Schedule::Interleaved1F1B(rule));
    }
    let all = rules.into_iter().flat_map(|rule| {
        let known = rule.virtual_stages();
        let counts = known.map_or(2..=VIRTUAL_STAGES, |known| known..=known);
        counts.map(move |count| (rule.clone(), count)).collect::<Vec<_>>()
    });
    all.collect()
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
        let plans = space.plans();
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
