//! The phases of a run: a job for each stretch of it, one after the other.
//!
//! A phase is a job of its own, in which the learner, the rotation and the plan are those of the
//! phase; so it is checked, lowered, priced and trained as any other. Weights and optimizer states
//! go from each phase to the next. A job without phases is one phase.

use runtime::rate::Rate;

use crate::{
    job::{Actor, Job, PhaseSpec, Stop, Stretch, Train},
    quantity::{Count, Extent},
};

/// One phase of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name; none if the job has no phases.
    pub name: Option<String>,
    /// The job as this phase trains it, without phases; it stops where the phase ends.
    pub job: Job,
    /// Steps of the run before it.
    pub begin: u64,
    /// Steps of the run at its end.
    pub end: u64,
    /// Tokens of the run before it.
    pub tokens: u64,
    /// Tokens of one of its steps.
    pub batch: u64,
    /// Learning rate by tokens of the run.
    pub rate: Rate,
}

impl Phase {
    /// Steps that it takes.
    pub fn steps(&self) -> u64 {
        self.end - self.begin
    }

    /// Tokens of the run at its end.
    pub fn tokens_at_end(&self) -> u64 {
        self.tokens.saturating_add(self.steps().saturating_mul(self.batch))
    }

    /// Learning rates at its beginning and at its end.
    pub fn rates(&self) -> (f64, f64) {
        (self.rate.at(self.tokens), self.rate.at(self.tokens_at_end()))
    }

    /// Steps of the run after which so many tokens have been seen, if that is in this phase.
    fn reaches(&self, tokens: u64) -> Option<u64> {
        let left = tokens.saturating_sub(self.tokens);
        (tokens <= self.tokens_at_end())
            .then(|| self.begin + Extent::Tokens(left).steps(self.batch))
    }
}

impl Job {
    /// The phases of the run, the first one first; none if nothing learns.
    pub fn phases(&self) -> Vec<Phase> {
        let learner = self.learners().next();
        learner.map_or_else(Vec::new, |(name, train)| self.phases_of(name, train))
    }

    /// Whether the run is made of phases that have names.
    pub fn has_phases(&self) -> bool {
        self.learners().any(|(_, train)| !train.phases.is_empty())
    }

    /// The phases of one learner.
    pub(crate) fn phases_of(&self, learner: &str, train: &Train) -> Vec<Phase> {
        let batch = train.batch.0;
        if train.phases.is_empty() {
            let end = self.stop.map_or(0, |stop| stop.steps(batch));
            let stretch =
                Stretch { begin: 0, tokens: end.saturating_mul(batch), batch, before: 0.0 };
            let rate = train.lr.during(stretch);
            let (name, job) = (None, self.clone());
            return vec![Phase { name, job, begin: 0, end, tokens: 0, batch, rate }];
        }
        let mut phases: Vec<Phase> = Vec::new();
        for spec in &train.phases {
            let phase = self.following(phases.last(), (learner, train), spec);
            phases.push(phase);
        }
        phases
    }

    /// The phase after another, or the first one.
    fn following(
        &self,
        last: Option<&Phase>,
        (learner, train): (&str, &Train),
        spec: &PhaseSpec,
    ) -> Phase {
        let during = train.during(spec);
        let batch = during.batch.0;
        let (begin, tokens) = last.map_or((0, 0), |last| (last.end, last.tokens_at_end()));
        let steps = Extent::Tokens(spec.tokens.0).steps(batch);
        let before = last.map_or(0.0, |last| last.rate.at(tokens));
        let stretch = Stretch { begin: tokens, tokens: steps.saturating_mul(batch), batch, before };
        let rate = match (&spec.lr, last) {
            (Some(lr), _) => lr.during(stretch),
            (None, Some(last)) => last.rate.clone(),
            (None, None) => train.lr.during(whole(train)),
        };
        let job = self.alone(learner, during, spec, steps);
        let name = Some(spec.name.clone());
        Phase { name, job, begin, end: begin.saturating_add(steps), tokens, batch, rate }
    }

    /// This job with one phase for its whole.
    fn alone(&self, learner: &str, during: Train, spec: &PhaseSpec, steps: u64) -> Job {
        let mut job = self.clone();
        job.actors.insert(learner.into(), Actor::Train(Box::new(during)));
        job.stop = Some(Stop::Steps(Count(steps)));
        if let Some(plan) = &spec.plan {
            job.plan = plan.clone();
        }
        job
    }

    /// Steps of the whole run: to the end of the last phase, or to `stop` if that comes first.
    pub fn steps(&self) -> u64 {
        let phases = self.phases();
        let end = phases.last().map_or(0, |phase| phase.end);
        match self.stop {
            None => end,
            Some(Stop::Steps(steps)) => steps.0.min(end),
            Some(Stop::Tokens(tokens)) => {
                phases.iter().find_map(|phase| phase.reaches(tokens.0)).unwrap_or(end)
            }
        }
    }
}

/// All phases of a learner as one stretch, for which the learner's own rate is.
fn whole(train: &Train) -> Stretch {
    let tokens = |spec: &PhaseSpec| {
        let batch = spec.batch.unwrap_or(train.batch).0;
        Extent::Tokens(spec.tokens.0).steps(batch).saturating_mul(batch)
    };
    let tokens = train.phases.iter().map(tokens).fold(0, u64::saturating_add);
    Stretch { begin: 0, tokens, batch: train.batch.0, before: 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, load, prepare};

    fn phases(job: &str, sets: &[&str]) -> Vec<Phase> {
        let sets = sets.iter().map(|set| set.to_string()).collect();
        let request = Request { job: job.into(), sets, ..Request::default() };
        load(&request).unwrap_or_else(|report| panic!("{report}")).phases
    }

    #[test]
    fn the_phases_of_kimi_k2_have_its_rates_and_lengths() {
        let phases = phases("k2-pretrain", &[]);
        let batch = 1_u64 << 26;
        let at = |step: u64| {
            let phase = phases.iter().find(|it| step <= it.end).unwrap();
            phase.rate.at(step * batch)
        };
        for (step, expected) in [(0, 0.0), (500, 2e-4), (149_012, 2e-4), (230_968, 2e-5)] {
            assert!((at(step) - expected).abs() < 1e-12, "{step}: {}", at(step));
        }
        let ends: Vec<u64> = phases.iter().map(|it| it.end).collect();
        assert_eq!(ends, [230_968, 230_968 + 5961, 230_968 + 5961 + 895]);
        assert!((at(ends[1]) - 7e-6).abs() < 1e-15 && (at(ends[2]) - 7e-6).abs() < 1e-15);
        let contexts = phases.iter().map(|it| it.job.learner().1.context.0);
        assert_eq!(contexts.collect::<Vec<_>>(), [4096, 4096, 32768]);
        assert!(phases.iter().all(|it| it.batch == batch));
    }

    #[test]
    fn a_job_without_phases_is_one_phase_of_the_whole_job() {
        let [phase] = &phases("k2-nano", &[])[..] else { panic!("one phase") };
        assert_eq!((&phase.name, phase.begin, phase.end), (&None, 0, 200));
        assert_eq!(phase.job.steps(), 200);
        let tokens = |step: u64| step * 4096;
        assert_eq!([10, 20, 150, 200].map(|s| phase.rate.at(tokens(s))), [1e-3, 2e-3, 2e-3, 2e-4]);
    }

    #[test]
    fn a_rate_that_is_left_out_goes_on_and_one_that_is_said_begins_anew() {
        let rates = |lr: &str| {
            let lr = format!("actors.learner.phases=[(name: \"a\", tokens: 40960), {lr}]");
            let phases = phases("k2-nano", &[&lr]);
            phases.iter().map(Phase::rates).collect::<Vec<_>>()
        };
        let on = rates("(name: \"b\", tokens: 40960), (name: \"c\", tokens: 40960)");
        assert_eq!(on, [(0.0, 1e-3), (1e-3, 2e-3), (2e-3, 2e-3)]);
        let anew = rates("(name: \"b\", tokens: 40960, lr: Linear(to: 0, over: \"20 steps\"))");
        assert_eq!(anew[1], (1e-3, 5e-4));
        let whole = rates("(name: \"b\", tokens: 40960, lr: Cosine(from: 3e-3, to: 1e-3))");
        assert_eq!(whole[1], (3e-3, 1e-3));
        let stay = rates("(name: \"b\", tokens: 40960, lr: Constant())");
        assert_eq!(stay[1], (1e-3, 1e-3));
        let warm = rates("(name: \"b\", tokens: 81920, lr: Wsd(peak: 1e-3, warmup: \"10 steps\"))");
        assert_eq!(warm[1], (0.0, 1e-3));
    }

    #[test]
    fn the_learners_own_fall_takes_the_whole_run() {
        let sets = [
            "actors.learner.lr=Linear(from: 3e-3, to: 0)",
            "actors.learner.phases=[(name: \"a\", tokens: 40960), (name: \"b\", tokens: 40960)]",
        ];
        let rates: Vec<_> = phases("k2-nano", &sets).iter().map(Phase::rates).collect();
        assert_eq!(rates.iter().map(|it| it.0).collect::<Vec<_>>(), [3e-3, 1.5e-3]);
        assert_eq!(rates[1].1, 0.0);
        assert_eq!(phases("k2-nano", &sets[..1])[0].rates(), (3e-3, 0.0));
    }

    #[test]
    fn the_rotation_of_a_phase_goes_before_the_learners_and_that_before_the_models() {
        let yarn = |factor: u32| {
            format!(
                "(factor: {factor}, original: 256, beta_fast: 32, beta_slow: 1, mscale: 1, \
                 mscale_all_dim: 1)"
            )
        };
        let sets = [
            format!("model.yarn={}", yarn(2)),
            format!("actors.learner.yarn={}", yarn(4)),
            format!(
                "actors.learner.phases=[(name: \"a\", tokens: 1), (name: \"b\", tokens: 1, yarn: {})]",
                yarn(8)
            ),
        ];
        let factors = |sets: &[&str]| {
            let decoder = |phase: &Phase| prepare::shape(&phase.job).unwrap().decoder.unwrap();
            let factor = |phase: &Phase| decoder(phase).yarn.unwrap().factor;
            phases("k2-nano", sets).iter().map(factor).collect::<Vec<_>>()
        };
        assert_eq!(factors(&[&sets[0]]), [2.0]);
        assert_eq!(factors(&[&sets[0], &sets[1]]), [4.0]);
        assert_eq!(factors(&[&sets[0], &sets[1], &sets[2]]), [4.0, 8.0]);
    }

    #[test]
    fn a_plan_in_place_changes_single_fields_of_the_jobs_plan() {
        let set = "actors.learner.phases=[(name: \"a\", tokens: 1, plan: (microbatch: 2)), \
                   (name: \"b\", tokens: 1, plan: Named(\"pp4\")), (name: \"c\", tokens: 1)]";
        let phases = phases("k2-nano", &[set, "plan.mesh.dp=2"]);
        let plans: Vec<_> = phases.iter().map(|it| it.job.plan()).collect();
        assert_eq!((plans[0].mesh, plans[0].microbatch), (plans[2].mesh, 2));
        assert_eq!((plans[2].mesh.dp, plans[2].microbatch), (2, 1));
        assert_eq!((plans[1].mesh.pp, plans[1].mesh.dp), (4, 1));
    }
}
