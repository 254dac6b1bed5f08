//! A search for better plans: every mesh, schedule and microbatch that fits, priced and compared.
//!
//! The space is small enough to be walked whole, so the answer does not depend on luck. Each
//! candidate is first priced on a short step; those near the front are priced in full.

use crate::spec::PlanSpec;

mod space;

pub use crate::search::space::Space;

/// What a plan costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Seconds of a step.
    pub seconds: f64,
    /// Bytes on the fullest rank.
    pub bytes: u64,
}

/// What came of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It can run.
    Priced(Price),
    /// It can run, but not within the limit of memory.
    TooBig(Price),
    /// It cannot run, and why.
    Refused(String),
}

impl Verdict {
    /// The price of a candidate that can run within the limit.
    pub fn price(&self) -> Option<Price> {
        match self {
            Verdict::Priced(price) => Some(*price),
            Verdict::TooBig(_) | Verdict::Refused(_) => None,
        }
    }
}

/// A plan and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The plan.
    pub spec: PlanSpec,
    /// What it costs, or why it is out.
    pub verdict: Verdict,
}

/// All candidates, the fastest first; what is too big or refused stands behind, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The candidates.
    pub candidates: Vec<Candidate>,
}

/// Something that prices plans.
pub trait Pricing {
    /// Prices a plan by a step of a few microbatches, scaled to the whole.
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

/// Prices every plan of a space, and the `finalists` fastest of them exactly.
pub fn search(space: &Space, pricing: &impl Pricing, limit: u64, finalists: usize) -> Found {
    let verdict = |price: Result<Price, String>| match price {
        Ok(price) if price.bytes <= limit => Verdict::Priced(price),
        Ok(price) => Verdict::TooBig(price),
        Err(reason) => Verdict::Refused(reason),
    };
    let rough = |spec: PlanSpec| {
        let verdict = verdict(pricing.roughly(&spec));
        Candidate { spec, verdict }
    };
    let mut candidates: Vec<Candidate> = space.plans().into_iter().map(rough).collect();
    // A plan that does not fit may do so exactly, so the nearest of those are looked at again too.
    candidates.sort_by(order);
    for candidate in candidates.iter_mut().take(finalists) {
        if candidate.verdict.price().is_some() {
            candidate.verdict = verdict(pricing.exactly(&candidate.spec));
        }
    }
    candidates.sort_by(order);
    Found { candidates }
}

/// The fastest first, then those too big, then the refused; equals keep their order.
fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    let key = |candidate: &Candidate| match &candidate.verdict {
        Verdict::Priced(price) => (0, price.seconds),
        Verdict::TooBig(price) => (1, price.seconds),
        Verdict::Refused(_) => (2, 0.0),
    };
    let ((a, fast), (b, faster)) = (key(a), key(b));
    a.cmp(&b).then(fast.total_cmp(&faster))
}

impl Found {
    /// The plans that no other beats in both time and memory, the fastest first.
    pub fn front(&self) -> Vec<&Candidate> {
        let mut least = u64::MAX;
        let mut front = Vec::new();
        for candidate in &self.candidates {
            if let Some(price) = candidate.verdict.price().filter(|price| price.bytes < least) {
                least = price.bytes;
                front.push(candidate);
            }
        }
        front
    }

    /// The candidates that differ from a plan in one thing only: mesh, virtual stages, microbatch
    /// or schedule.
    pub fn neighbours(&self, spec: &PlanSpec) -> Vec<&Candidate> {
        let differences = |other: &PlanSpec| {
            let virtual_stages = other.mesh.vpp != spec.mesh.vpp;
            let (a, b) = (other.mesh, spec.mesh);
            let mesh = (a.pp, a.ep, a.dp) != (b.pp, b.ep, b.dp);
            let schedule = other.schedule() != spec.schedule();
            let microbatch = other.microbatch != spec.microbatch;
            [virtual_stages, mesh, schedule, microbatch].into_iter().filter(|&it| it).count()
        };
        self.candidates.iter().filter(|candidate| differences(&candidate.spec) == 1).collect()
    }
}
