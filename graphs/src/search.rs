//! A search for better plans: meshes, schedules, microbatches, policies and credits, priced and
//! compared.
//!
//! It walks in rounds, each the same on every machine. First every mesh and microbatch is tried
//! under one schedule, by a short step; then the best meshes under every schedule, by a short step;
//! last the best of those, with more and fewer credits, by the whole step. If policies are to be
//! varied, a plan that does not fit is also tried with all that saves memory, one whose rows travel
//! with passes in pairs; and before the last round the best of the single changes of the first plan
//! becomes the first, until none is better.

use crate::{
    mesh::Mesh,
    spec::{Credits, PlanSpec},
};

mod policies;
mod space;

pub use crate::search::space::Space;

/// Credits of a channel beyond the fewest, as they are tried in the last round.
const SLACKS: [usize; 3] = [1, 0, 3];

/// What a plan costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Seconds of a step.
    pub seconds: f64,
    /// Bytes of the fullest rank.
    pub bytes: u64,
}

/// What came of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It can run, within the limit of memory.
    Fits(Price),
    /// It can run, but not within the limit of memory.
    TooBig(Price),
    /// It cannot run, and why.
    Refused(String),
}

impl Verdict {
    fn new(price: Result<Price, String>, limit: u64) -> Self {
        match price {
            Ok(price) if price.bytes <= limit => Verdict::Fits(price),
            Ok(price) => Verdict::TooBig(price),
            Err(reason) => Verdict::Refused(reason),
        }
    }

    /// The price, if there is one.
    pub fn price(&self) -> Option<Price> {
        match self {
            Verdict::Fits(price) | Verdict::TooBig(price) => Some(*price),
            Verdict::Refused(_) => None,
        }
    }

    /// What fits before what does not, the faster first and of equals the smaller; of what does not
    /// fit, the smaller first.
    fn order(&self, other: &Verdict) -> std::cmp::Ordering {
        let key = |verdict: &Verdict| match verdict {
            Verdict::Fits(price) => (0, price.seconds, price.bytes),
            Verdict::TooBig(price) => (1, 0.0, price.bytes),
            Verdict::Refused(_) => (2, 0.0, 0),
        };
        let ((kind, seconds, bytes), (other, later, more)) = (key(self), key(other));
        kind.cmp(&other).then(seconds.total_cmp(&later)).then(bytes.cmp(&more))
    }
}

/// A plan and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The plan.
    pub spec: PlanSpec,
    /// What it costs, or why it is out.
    pub verdict: Verdict,
    /// Whether the whole step was priced.
    pub is_exact: bool,
}

/// Something that prices plans.
pub trait Pricing {
    /// Prices a plan by short steps, from which the whole is reckoned.
    ///
    /// # Errors
    ///
    /// Why the plan cannot run.
    fn roughly(&self, spec: &PlanSpec) -> Result<Price, String>;

    /// Prices a plan by its whole step.
    ///
    /// # Errors
    ///
    /// Why the plan cannot run.
    fn exactly(&self, spec: &PlanSpec) -> Result<Price, String>;
}

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reach {
    /// Bytes that a rank may hold.
    pub limit: u64,
    /// Meshes, with their microbatch, that are tried under every schedule.
    pub meshes: usize,
    /// Plans that are priced by the whole step.
    pub finalists: usize,
    /// Whether policies are varied: recompute, offload, ZeRO, overlap; what changes no bit.
    pub policies: bool,
}

/// All candidates, the best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Those priced by their whole step before all others, each part the best first.
    pub candidates: Vec<Candidate>,
}

/// Most steps downhill.
const STEPS: usize = 12;

/// Searches a space.
pub fn search(space: &Space, pricing: &impl Pricing, reach: Reach) -> Found {
    let rough = |spec: PlanSpec| {
        let first = roughly(pricing, reach, spec);
        let again = (reach.policies && matches!(first.verdict, Verdict::TooBig(_)))
            .then(|| roughly(pricing, reach, policies::lean(&first.spec)));
        let paired = policies::paired(&again.as_ref().unwrap_or(&first).spec);
        let paired = paired.filter(|_| reach.policies).map(|it| roughly(pricing, reach, it));
        [Some(first), again, paired].into_iter().flatten()
    };
    let mut meshes: Vec<Candidate> = space.meshes().into_iter().flat_map(rough).collect();
    sort(&mut meshes);
    let mut tried: Vec<(Mesh, usize)> = Vec::new();
    for Candidate { spec, .. } in &meshes {
        let mesh = (Mesh { vpp: 1, ..spec.mesh }, spec.microbatch);
        if tried.len() < reach.meshes && !tried.contains(&mesh) {
            tried.push(mesh);
        }
    }
    let scheduled = tried.iter().flat_map(|&(mesh, unit)| space.scheduled(mesh, unit));
    let mut candidates: Vec<Candidate> = scheduled.flat_map(rough).collect();
    sort(&mut candidates);
    if reach.policies {
        go_downhill(pricing, reach, &mut candidates);
    }
    meshes.retain(|it| candidates.iter().all(|other| other.spec != it.spec));
    let finalists = candidates.drain(..reach.finalists.min(candidates.len()));
    let exact = |spec: PlanSpec| {
        let verdict = Verdict::new(pricing.exactly(&spec), reach.limit);
        Candidate { spec, verdict, is_exact: true }
    };
    let mut found: Vec<Candidate> = finalists.map(|it| exact(it.spec)).collect();
    sort(&mut found);
    if let Some(first) = found.first().map(|it| it.spec.clone()) {
        let slacks = SLACKS.map(|slack| Credits::Least { slack }).into_iter();
        let others = slacks.filter(|credits| *credits != first.credits);
        let plans = others.map(|credits| PlanSpec { credits, ..first.clone() });
        found.extend(plans.map(exact).collect::<Vec<_>>());
        sort(&mut found);
    }
    found.extend(candidates);
    found.extend(meshes);
    Found { candidates: found }
}

/// Adds the plans that differ from the first in a single policy, by a short step, and so on from
/// the best of them, until none is better.
fn go_downhill(pricing: &impl Pricing, reach: Reach, found: &mut Vec<Candidate>) {
    for _ in 0..STEPS {
        let Some(first) = found.first().map(|it| it.spec.clone()) else { return };
        let new = policies::changes(&first).into_iter();
        let new = new.filter(|spec| found.iter().all(|it| it.spec != *spec));
        let new: Vec<Candidate> = new.map(|spec| roughly(pricing, reach, spec)).collect();
        found.extend(new);
        sort(found);
        if found.first().is_none_or(|it| it.spec == first) {
            return;
        }
    }
}

fn roughly(pricing: &impl Pricing, reach: Reach, spec: PlanSpec) -> Candidate {
    let verdict = Verdict::new(pricing.roughly(&spec), reach.limit);
    Candidate { spec, verdict, is_exact: false }
}

/// The best first; equals keep their order.
fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| a.verdict.order(&b.verdict));
}

impl Found {
    /// The plans priced in full that no other such beats in both time and memory, by time.
    pub fn front(&self) -> Vec<&Candidate> {
        let priced = |it: &&Candidate| it.is_exact && it.verdict.price().is_some();
        let mut all: Vec<(Price, &Candidate)> = (self.candidates.iter().filter(priced))
            .filter_map(|it| Some((it.verdict.price()?, it)))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.seconds.total_cmp(&b.seconds).then(a.bytes.cmp(&b.bytes)));
        let mut least = u64::MAX;
        all.retain(|(price, _)| {
            let is_better = price.bytes < least;
            least = least.min(price.bytes);
            is_better
        });
        all.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// The candidates that differ from a plan in one thing only: mesh, virtual stages, microbatch,
    /// schedule, credits or a policy.
    pub fn neighbours(&self, spec: &PlanSpec) -> Vec<&Candidate> {
        let differences = |other: &PlanSpec| {
            let (a, b) = (other.mesh, spec.mesh);
            let differs = [
                (a.pp, a.ep, a.dp) != (b.pp, b.ep, b.dp),
                a.vpp != b.vpp && other.schedule() == spec.schedule(),
                other.schedule() != spec.schedule(),
                other.microbatch != spec.microbatch,
                other.credits != spec.credits,
            ];
            let others = policies::differences(other, spec);
            differs.into_iter().filter(|&it| it).count() + others
        };
        self.candidates.iter().filter(|candidate| differences(&candidate.spec) == 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time falls and memory rises with the microbatch; pipelines are slow and small.
    struct Toy;

    impl Pricing for Toy {
        fn roughly(&self, spec: &PlanSpec) -> Result<Price, String> {
            match spec.mesh.dp {
                8 => Err("eight replicas are too many".into()),
                _ => self.exactly(spec),
            }
        }

        fn exactly(&self, spec: &PlanSpec) -> Result<Price, String> {
            let (pp, unit) = (spec.mesh.pp, spec.microbatch);
            let slack = match spec.credits {
                Credits::Least { slack } => slack,
                Credits::Fixed(credits) => credits,
            };
            let seconds = (10 * pp + spec.mesh.vpp) as f64 / unit as f64 - 0.01 * slack as f64;
            let saved = 1 + spec.recompute.len() as u64;
            let seconds = seconds + 0.5 * spec.recompute.len() as f64;
            Ok(Price { seconds, bytes: (100 * unit / pp + slack) as u64 / saved })
        }
    }

    fn found(limit: u64) -> Found {
        varied(limit, false)
    }

    fn varied(limit: u64, policies: bool) -> Found {
        let space = Space {
            ranks: 8,
            sequences: 64,
            chunks: 8,
            experts: 8,
            microbatches: vec![1, 2],
            like: PlanSpec::default(),
        };
        search(&space, &Toy, Reach { limit, meshes: 4, finalists: 6, policies })
    }

    #[test]
    fn the_fastest_plan_within_the_limit_comes_first() {
        let best = found(101).candidates[0].clone();
        let price = best.verdict.price().unwrap();
        assert!(best.is_exact && matches!(best.verdict, Verdict::Fits(_)));
        assert!(price.bytes <= 101, "{best:?}");
        let fits = |it: &&Candidate| matches!(it.verdict, Verdict::Fits(_)) && it.is_exact;
        let all = found(101);
        let least = all.candidates.iter().filter(fits).filter_map(|it| it.verdict.price());
        assert_eq!(least.map(|it| it.seconds).fold(f64::MAX, f64::min), price.seconds);
    }

    #[test]
    fn policies_make_room_for_what_is_faster_and_no_more_room_than_that_needs() {
        let (plain, varied) = (found(60), varied(60, true));
        let first = |found: &Found| found.candidates[0].clone();
        let seconds = |it: &Candidate| it.verdict.price().unwrap().seconds;
        assert!(seconds(&first(&varied)) < seconds(&first(&plain)));
        let Candidate { spec, verdict, .. } = first(&varied);
        assert!(matches!(verdict, Verdict::Fits(_)), "{verdict:?}");
        assert!(!spec.recompute.is_empty());
        let one_fewer = PlanSpec { recompute: spec.recompute[1..].to_vec(), ..spec };
        assert!(Toy.exactly(&one_fewer).unwrap().bytes > 60, "{one_fewer:?}");
        for (at, candidate) in varied.candidates.iter().enumerate() {
            let same = |it: &Candidate| it.spec == candidate.spec;
            assert!(!varied.candidates[..at].iter().any(same), "{candidate:?} twice");
        }
    }

    #[test]
    fn nobody_on_the_front_is_beaten_in_both_time_and_memory() {
        let found = found(10_000);
        let front: Vec<Price> = found.front().iter().filter_map(|it| it.verdict.price()).collect();
        assert!(!front.is_empty());
        for (at, price) in front.iter().enumerate() {
            let beats = |it: &Price| it.seconds <= price.seconds && it.bytes <= price.bytes;
            let others = front.iter().enumerate().filter(|(other, _)| *other != at);
            assert_eq!(others.filter(|(_, it)| beats(it)).count(), 0, "{front:?}");
        }
    }

    #[test]
    fn refused_plans_stand_last_and_neighbours_differ_in_one_thing() {
        let found = found(10_000);
        let is_refused = |it: &Candidate| matches!(it.verdict, Verdict::Refused(_));
        let refused = found.candidates.iter().position(is_refused);
        assert!(refused.is_some_and(|at| found.candidates[at..].iter().all(is_refused)));
        let best = &found.candidates[0].spec;
        let neighbours = found.neighbours(best);
        assert!(neighbours.iter().any(|it| it.spec.credits != best.credits));
        assert!(neighbours.iter().all(|it| it.spec != *best));
    }
}
