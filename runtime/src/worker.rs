//! The compute actor: a stage or an expert group, on a thread of its own.
//!
//! Both kinds are the same actor with different programs. Its state changes only in `handle`, one
//! message at a time: a message is stored where it belongs, then the actor goes on with its
//! program as far as it can. It never blocks on anybody, so what it waits for can always be named.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use actix::{Actor, Context, Handler};
use graphs::{
    address::Address,
    flight::{self, Batch, Keeping, Task},
    memory::{Bytes, Fixed, Level},
    model::{NodeId, Port},
    plan::{CopyStep, Instruction, Side},
};
use kernels::cuda::DeviceError;
use ops::{Observed, Tensor};

use crate::{
    arena::Claim,
    board::Doing,
    brief::Brief,
    flights::{FlightKey, Flights},
    holdings::Holdings,
    init::Initial,
    mailbox::Mailbox,
    message::Message,
    moments::Moments,
    phase::{Batches, Phase},
    post::{Connect, Post},
    report::{Report, Seen},
    trace::Recorder,
};

/// One compute actor. Every field is written and read by this actor's thread alone.
pub struct Worker {
    pub(crate) me: Address,
    pub(crate) brief: Arc<Brief>,
    /// Set by the first message.
    pub(crate) post: Option<Arc<Post>>,
    pub(crate) mailbox: Mailbox,
    pub(crate) holdings: Holdings,
    /// Nodes of each chunk and segment (or visit), as this actor runs them.
    pub(crate) tasks: BTreeMap<(usize, usize), Vec<Task>>,
    /// What its flights keep, by chunk and, on the experts' side, visit.
    pub(crate) keepings: BTreeMap<(usize, usize), Keeping>,
    /// Copies that the copy lane has done and the program has not taken yet.
    pub(crate) copies: BTreeMap<(FlightKey, CopyStep), Batch<Tensor>>,
    /// What it holds of its rank's device.
    pub(crate) claim: Claim,
    /// Since when the next instruction waits.
    pub(crate) waiting: Option<Instant>,
    /// The output that crosses from each chunk to the next, all but the last.
    pub(crate) boundaries: Vec<Port>,
    /// Tokens and targets by microbatch, from the loader; at most one step of them.
    pub(crate) units: BTreeMap<usize, (Tensor, Tensor)>,
    /// Microbatches between their first `F` and their last `W`.
    pub(crate) flights: Flights,
    /// Row offsets of the groups, for visits under way: written by dispatch, dropped by its
    /// gradients' return.
    pub(crate) splits: BTreeMap<FlightKey, Vec<usize>>,
    /// Next instruction; `None` between steps.
    pub(crate) counter: Option<usize>,
    /// What forward passes observed, by node, with its unit; added up at the end of the program.
    pub(crate) observed: Vec<(NodeId, Observed, usize)>,
    /// The clock of its GPU, if it has one.
    pub(crate) moments: Option<Moments>,
    /// Collected during the program, reported at its end.
    pub(crate) seen: Seen,
    /// What an auditing cluster wants to know of each instruction of the step.
    pub(crate) trail: Trail,
    /// The optimizer phase.
    pub(crate) phase: Phase,
    /// What its updates take together; never changed.
    pub(crate) batches: Batches,
    /// Notes of the step, if it is recorded; handed over with the last report of the step.
    pub(crate) recorder: Option<Recorder>,
}

/// The memory of an actor, instruction by instruction; written only by a cluster that audits.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    /// Most bytes of what comes and goes, and those left.
    pub(crate) levels: Vec<Level>,
    /// What is left, by class.
    pub(crate) classes: Vec<Bytes>,
    /// Rows of each source, by chunk, visit and microbatch.
    pub(crate) rows: Vec<((usize, usize, usize), Vec<u64>)>,
}

impl Worker {
    /// Builds an actor of the plan; it begins to work when it is connected.
    pub fn new(me: Address, brief: Arc<Brief>, initial: &Initial) -> Self {
        let holdings = Holdings::new(&brief, me, initial);
        let Fixed { parameters, masters, states, .. } = holdings.fixed();
        let claim = Claim::new(parameters + masters + states);
        let tasks = tasks(&brief, me);
        let mailbox = Mailbox::new(&brief.plan);
        let batches = Batches::new(&brief, me);
        let keepings = flight::keepings(&brief.plan, &brief.graph, me.stage, me.side);
        let boundaries = flight::boundaries(&brief.plan, &brief.graph);
        Worker {
            me,
            brief,
            post: None,
            mailbox,
            holdings,
            tasks,
            keepings,
            copies: BTreeMap::new(),
            claim,
            waiting: None,
            boundaries,
            units: BTreeMap::new(),
            flights: Flights::default(),
            splits: BTreeMap::new(),
            counter: None,
            observed: Vec::new(),
            moments: None,
            seen: Seen::default(),
            trail: Trail::default(),
            phase: Phase::default(),
            batches,
            recorder: None,
        }
    }

    pub(crate) fn post(&self) -> &Arc<Post> {
        self.post.as_ref().expect("connected by the first message")
    }

    /// An instruction in words, as failures and the watchdog tell it.
    pub(crate) fn describe(&self, instruction: Instruction) -> String {
        graphs::text::instruction(&self.brief.plan, instruction)
    }

    pub(crate) fn write_board(&self, doing: Doing) {
        self.brief.board.write(self.me.index(&self.brief.plan.mesh), doing);
    }

    fn receive(&mut self, message: Message) {
        self.phase.done.received.add(message.exchange());
        match message {
            Message::Record { since } => self.recorder = Some(Recorder::new(since, self.me)),
            Message::Step => self.start_step(),
            Message::Unit { microbatch, tokens, targets } => {
                let place = self.brief.place(self.me);
                self.units.insert(microbatch, (tokens.at(place), targets.at(place)));
            }
            Message::Cargo { channel, microbatch, peer, tensors, travelled } => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.arrived(channel, microbatch, peer, travelled);
                }
                self.mailbox.put(channel, microbatch, peer, tensors);
            }
            Message::Credit { channel, peer } => self.mailbox.refund(channel, peer),
            Message::Gradient { parameter, slice, from, sum, travelled } => {
                if let (Some(recorder), Some(interval)) = (&mut self.recorder, travelled) {
                    recorder.summed(interval);
                }
                self.collect(parameter, slice, from, sum);
            }
            Message::Verdict(verdict) => self.update(verdict),
            Message::Momentum { parameter, from, direction } => {
                self.gather_direction(parameter, from, direction);
            }
            Message::Update { parameter, rows } => self.turn(&[parameter], &[rows]),
            Message::Weight { parameter, from, value } => self.install(parameter, from, value),
            Message::Copied { key, step, batch, interval } => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.copied(key, step, interval);
                }
                self.copies.insert((key, step), batch);
            }
            Message::Snapshot => self.snapshot(),
        }
        self.advance();
    }

    /// What the actor was about to do, for a failure's report.
    pub(crate) fn action(&self) -> String {
        match self.instruction() {
            Some(instruction) => self.describe(instruction),
            None => "the optimizer phase".into(),
        }
    }

    pub(crate) fn instruction(&self) -> Option<Instruction> {
        let program = &self.brief.plan.programs[self.me.stage][self.me.side as usize];
        program.instructions.get(self.counter?).copied()
    }
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<Connect> for Worker {
    type Result = ();

    fn handle(&mut self, Connect(post): Connect, _: &mut Context<Self>) {
        self.post = Some(post);
    }
}

impl Handler<Message> for Worker {
    type Result = ();

    /// A panic would end this actor silently; it is caught and becomes the step's failure.
    fn handle(&mut self, message: Message, _: &mut Context<Self>) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.receive(message)));
        if let (Err(panic), Some(post)) = (outcome, &self.post) {
            post.report(failure(self.me.to_string(), self.action(), panic.as_ref()));
            self.counter = None;
        }
    }
}

/// What the panic of an actor is to the conductor.
pub(crate) fn failure(actor: String, action: String, panic: &(dyn Any + Send)) -> Report {
    let error = panic.downcast_ref::<DeviceError>();
    let is_full = matches!(error, Some(DeviceError::OutOfMemory { .. }));
    let cause = error.map_or_else(|| words(panic), DeviceError::to_string);
    Report::Failed { actor, action, cause, is_full }
}

/// The message of a panic.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}

fn tasks(brief: &Brief, me: Address) -> BTreeMap<(usize, usize), Vec<Task>> {
    let (plan, graph) = (&brief.plan, &brief.graph);
    let mut tasks = BTreeMap::new();
    for (number, chunk) in plan.chunks.iter().enumerate().filter(|(_, c)| c.stage == me.stage) {
        let segments = match me.side {
            Side::Stage => chunk.segments.len(),
            Side::Experts => chunk.visits.len(),
        };
        for segment in 0..segments {
            let nodes = flight::tasks(plan, graph, me.side, number, segment);
            tasks.insert((number, segment), nodes);
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_keeps_its_words_and_a_full_gpu_is_told_apart() {
        let told = |panic: Box<dyn Any + Send>| match failure("a".into(), "b".into(), &*panic) {
            Report::Failed { cause, is_full, .. } => (cause, is_full),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(Box::new("plain")), ("plain".into(), false));
        assert_eq!(told(Box::new(String::from("made"))), ("made".into(), false));
        assert_eq!(told(Box::new(7)), ("a panic".into(), false));
        let full = DeviceError::OutOfMemory { place: "the arena", asked: 9, free: 4, total: 8 };
        assert_eq!(told(Box::new(full.clone())), (full.to_string(), true));
        let other = DeviceError::NoDevice;
        assert_eq!(told(Box::new(other.clone())), (other.to_string(), false));
    }
}
