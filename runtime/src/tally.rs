//! Adds up what the actors of a step report, in an order that no plan changes.

use std::{collections::BTreeMap, time::Duration};

use graphs::{address::Address, plan::Side, share::Exchange};
use kernels::squares::Squares;
use ops::Op;

use crate::{
    brief::Brief,
    digest,
    error::RunError,
    report::{Audit, Hash, Joined, Measured, MemoryReport, Seen, StepReport, Updated},
    verdict::Verdict,
};

/// Reports of one step so far.
pub(crate) struct Tally<'a> {
    brief: &'a Brief,
    step: u64,
    /// Whether the loader has sent everything.
    pub loaded: bool,
    /// Loss sum and tokens by unit.
    losses: BTreeMap<usize, (f64, usize)>,
    max_logits: Vec<Vec<f32>>,
    loads: Vec<Vec<u64>>,
    computed: usize,
    /// Gradients by parameter, as far as slices are reported.
    joined: BTreeMap<usize, Joined>,
    actors_joined: usize,
    busy_seconds: f64,
    product_seconds: f64,
    copy_wait_seconds: f64,
    compute_span: Duration,
    memory: BTreeMap<Address, Measured>,
    parameters: Vec<Option<Hash>>,
    exchange: BTreeMap<Address, Exchange>,
    newton_schulz: usize,
}

impl<'a> Tally<'a> {
    pub fn new(brief: &'a Brief, step: u64) -> Self {
        Tally {
            brief,
            step,
            loaded: false,
            losses: BTreeMap::new(),
            max_logits: vec![Vec::new(); brief.graph.clips().len()],
            loads: vec![Vec::new(); brief.graph.len()],
            computed: 0,
            joined: BTreeMap::new(),
            actors_joined: 0,
            busy_seconds: 0.0,
            product_seconds: 0.0,
            copy_wait_seconds: 0.0,
            compute_span: Duration::ZERO,
            memory: BTreeMap::new(),
            parameters: vec![None; brief.graph.parameters().len()],
            exchange: BTreeMap::new(),
            newton_schulz: 0,
        }
    }

    pub fn computed(&mut self, from: Address, seen: Seen, memory: Measured, elapsed: Duration) {
        self.losses.extend(seen.losses.into_iter().map(|(unit, sum, n)| (unit, (sum, n))));
        for (clip, logits) in seen.max_logits {
            let most = &mut self.max_logits[clip];
            most.resize(logits.len(), f32::NEG_INFINITY);
            most.iter_mut().zip(logits).for_each(|(most, s)| *most = most.max(s));
        }
        for (node, load) in seen.loads {
            let sum = &mut self.loads[node];
            sum.resize(load.len(), 0);
            sum.iter_mut().zip(load).for_each(|(sum, n)| *sum += n);
        }
        self.busy_seconds += seen.busy_seconds;
        self.product_seconds += seen.product_seconds;
        self.copy_wait_seconds += seen.copy_wait_seconds;
        self.memory.insert(from, memory);
        self.computed += 1;
        if from.side == Side::Stage {
            self.compute_span = elapsed;
        }
    }

    pub fn joined(&mut self, gradients: Vec<Joined>) {
        for slice in gradients {
            match self.joined.get_mut(&slice.parameter) {
                Some(whole) => whole.add(&slice),
                None => drop(self.joined.insert(slice.parameter, slice)),
            }
        }
        self.actors_joined += 1;
    }

    pub fn updated(&mut self, from: Address, done: &Updated) {
        let Exchange { gradients, momentum, updates, values } = done.received;
        if let Some(memory) = self.memory.get_mut(&from) {
            memory.actor.reserve.reduction = gradients;
            memory.actor.reserve.update = done.joined + momentum + updates + values;
        }
        for (parameter, hash) in &done.parameters {
            digest::add(self.parameters[*parameter].get_or_insert_default(), hash);
        }
        self.exchange.insert(from, done.sent);
        self.newton_schulz += done.newton_schulz;
    }

    /// Whether nothing more comes before the verdict.
    pub fn is_complete(&self) -> bool {
        let actors = 2 * self.brief.plan.mesh.ranks();
        self.loaded && self.computed == actors && self.actors_joined == actors
    }

    fn loss(&self) -> f64 {
        let sum: f64 = self.losses.values().map(|(sum, _)| sum).sum();
        let tokens: usize = self.losses.values().map(|(_, tokens)| tokens).sum();
        sum / tokens as f64
    }

    fn squares(&self) -> f64 {
        let mut sum = Squares::default();
        self.joined.values().for_each(|joined| sum.add(&joined.squares));
        sum.value()
    }

    /// Decides learning rate and clipping for all who update.
    pub fn verdict(&mut self, lr: f64, clip: Option<f64>) -> Result<Verdict, RunError> {
        self.refuse_what_is_not_finite()?;
        let norm = self.squares().sqrt();
        let scale = clip.map_or(1.0, |clip| (clip / norm).min(1.0));
        Ok(Verdict {
            lr: lr as f32,
            scale: scale as f32,
            max_logits: self.max_logits.clone(),
            loads: self.loads.clone(),
        })
    }

    fn refuse_what_is_not_finite(&self) -> Result<(), RunError> {
        let not_finite = |what: String| RunError::NotFinite { step: self.step, what };
        if !self.loss().is_finite() {
            return Err(not_finite("the loss".into()));
        }
        match self.joined.values().find(|joined| !joined.squares.value().is_finite()) {
            None => Ok(()),
            Some(joined) => {
                let name = &self.brief.graph.parameters()[joined.parameter].name;
                Err(not_finite(format!("the gradient of `{name}`")))
            }
        }
    }

    /// The figures of the finished step.
    pub fn report(mut self, step: u64, tokens: u64, lr: f64, elapsed: Duration) -> StepReport {
        let seconds = elapsed.as_secs_f64();
        let span = self.compute_span.as_secs_f64() * self.brief.plan.mesh.ranks() as f64;
        let memory = self.memory_report();
        let heads = || self.max_logits.iter().flatten().copied();
        let tau = self.brief.optimizer.qk_clip();
        StepReport {
            step,
            phase: None,
            tokens,
            loss: self.loss(),
            lr,
            grad_norm: self.squares().sqrt(),
            max_logit: heads().fold(f32::NEG_INFINITY, f32::max),
            max_logits: self.max_logits.clone(),
            clipped_heads: tau.map_or(0, |tau| heads().filter(|s| tau < *s).count()),
            tokens_per_second: self.brief.plan.batch.tokens() as f64 / seconds,
            step_seconds: seconds,
            bubble: (1.0 - self.busy_seconds / span).max(0.0),
            matmul_share: self.product_seconds / self.busy_seconds.max(f64::MIN_POSITIVE),
            memory_bytes: memory.actors.iter().map(|actor| actor.total() as usize).sum(),
            overlap: None,
            copy_wait_seconds: self.copy_wait_seconds,
            load_max_over_mean: self.imbalance(),
            memory,
            exchange: std::mem::take(&mut self.exchange).into_iter().collect(),
            audit: self.audit(),
        }
    }

    fn memory_report(&mut self) -> MemoryReport {
        let mut report = MemoryReport::default();
        for (address, measured) in std::mem::take(&mut self.memory) {
            report.actors.push(measured.actor);
            report.trails.push(measured.trail);
            for (visit, by_source) in measured.rows {
                report.rows.insert(address, visit, by_source);
            }
        }
        report
    }

    fn imbalance(&self) -> f64 {
        let routers = self.brief.graph.nodes().enumerate();
        let routers = routers.filter(|(_, node)| matches!(node.op, Op::Router(_)));
        let ratio = |(node, _)| {
            let load: &Vec<u64> = &self.loads[node];
            let mean = load.iter().sum::<u64>() as f64 / load.len() as f64;
            load.iter().max().map_or(0.0, |most| *most as f64 / mean)
        };
        routers.map(ratio).fold(0.0, f64::max)
    }

    fn audit(&self) -> Audit {
        let hash = |parameter| self.joined.get(&parameter).and_then(|joined: &Joined| joined.hash);
        Audit {
            loss: self.loss().to_bits(),
            gradients: (0..self.parameters.len()).map(hash).collect(),
            parameters: self.parameters.clone(),
            newton_schulz: self.newton_schulz,
        }
    }
}
