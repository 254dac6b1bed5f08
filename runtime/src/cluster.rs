//! Starts the actors of a plan, drives steps and stops them: the conductor.
//!
//! All traps of actix are met here. Arbiters are kept and joined, since stopping a `System` does
//! not wait for them; every actor has an arbiter, and so a thread, of its own, since a computing
//! actor starves its neighbours; no timer runs in a computing actor, since it would fire late.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Arbiter, System};
use graphs::{
    address::Address, cluster::Machine, mesh::Mesh, model::ModelGraph, plan::Plan, share,
};
use ops::{DType, Place, Tensor, optim::Optimizer};

use crate::{
    arena::Arenas,
    board::Board,
    brief::Brief,
    error::RunError,
    feed::Feed,
    init::Initial,
    lanes::Lanes,
    loader::{Load, Loader},
    message::Message,
    pace::Pace,
    post::{Connect, Post},
    rate::Rate,
    report::{Report, StepReport},
    snapshot::{self, Pieces, Snapshot},
    tally::Tally,
    trace::Recording,
    worker::Worker,
};

/// Everything a cluster is started from.
#[derive(Debug)]
pub struct Setup {
    /// What the actors do.
    pub plan: Plan,
    /// The model that the plan was lowered from.
    pub graph: ModelGraph,
    /// Update rules.
    pub optimizer: Optimizer,
    /// Learning rate by tokens.
    pub rate: Rate,
    /// Norm to which the gradients of AdamW parameters are clipped; Muon ignores scale.
    pub clip: Option<f64>,
    /// Format of activations and compute weights.
    pub dtype: DType,
    /// Key of all random numbers.
    pub seed: u64,
    /// Whether every step reports hashes.
    pub audit: bool,
    /// Values and optimizer states to continue from; empty for a fresh start.
    pub tensors: BTreeMap<String, Tensor>,
    /// Steps already done.
    pub step: u64,
    /// Tokens already trained on.
    pub tokens: u64,
    /// How long nothing may move before the watchdog speaks.
    pub patience: Duration,
    /// Where each rank lives and computes.
    pub places: Vec<Place>,
    /// Links, buses, memories and speeds that are emulated; nothing if left out.
    pub machine: Option<Machine>,
}

/// Running actors.
pub struct Cluster {
    brief: Arc<Brief>,
    post: Arc<Post>,
    loader: Addr<Loader>,
    reports: Receiver<Report>,
    rate: Rate,
    clip: Option<f64>,
    step: u64,
    tokens: u64,
    position: serde_json::Value,
    patience: Duration,
    /// Whether the next step is to be recorded.
    records: bool,
    /// Whether messages or copies take a way that computation may hide.
    travels: bool,
    /// The step recorded last, until it is asked for.
    recording: Option<Recording>,
    arbiters: Vec<Arbiter>,
    /// Keeps actix's registry alive as long as the arbiters.
    _system: actix::SystemRunner,
}

impl Cluster {
    /// Starts one thread and actor for each stage, expert group and the loader.
    ///
    /// # Errors
    ///
    /// [`RunError::Weights`] if the tensors to start from do not fit the model.
    pub fn start(setup: Setup, feed: Box<dyn Feed>) -> Result<Self, RunError> {
        let addresses = Address::all(&setup.plan.mesh);
        let machine = setup.machine.clone();
        let brief = Arc::new(Brief {
            shares: share::shares(&setup.plan, &setup.graph),
            hosted: share::hosted(&setup.plan, &setup.graph, &setup.optimizer),
            bus: machine.as_ref().and_then(|it| it.host),
            board: Board::new(addresses.len()),
            arenas: Arenas::new(machine.as_ref().and_then(|it| it.device), &setup.plan.mesh),
            pace: machine.as_ref().and_then(|it| Pace::new(it, &setup)),
            plan: setup.plan,
            graph: setup.graph,
            optimizer: setup.optimizer,
            dtype: setup.dtype,
            audit: setup.audit,
            places: setup.places,
        });
        let initial = Initial::new(&brief.graph, &brief.optimizer, setup.seed, &setup.tensors)?;
        let system = System::new();
        let mut arbiters = Vec::new();
        let mut workers = Vec::new();
        for address in addresses {
            let worker = Worker::new(address, brief.clone(), &initial);
            let arbiter = Arbiter::new();
            let own = cores(address, &brief.plan.mesh);
            workers.push(Worker::start_in_arbiter(&arbiter.handle(), |_| {
                own.into_iter().for_each(kernels::cores::keep_to);
                worker
            }));
            arbiters.push(arbiter);
        }
        let link = machine.as_ref().and_then(|it| it.link);
        let travels = link.is_some() || brief.plan.policies.offloads().is_some();
        let lanes = Lanes::start(machine.as_ref(), &brief, &mut arbiters);
        let (conductor, reports) = mpsc::channel();
        let queues = workers.iter().map(|worker| worker.clone().recipient()).collect();
        let transport = lanes.transport(queues);
        let post = Arc::new(Post::new(brief.plan.mesh, transport, conductor));
        lanes.connect(&post);
        workers.iter().for_each(|worker| worker.do_send(Connect(post.clone())));
        let position = feed.position();
        let loader = Loader::new(brief.clone(), post.clone(), feed);
        let arbiter = Arbiter::new();
        let loader = Loader::start_in_arbiter(&arbiter.handle(), |_| loader);
        arbiters.push(arbiter);
        Ok(Cluster {
            brief,
            post,
            loader,
            reports,
            rate: setup.rate,
            clip: setup.clip,
            step: setup.step,
            tokens: setup.tokens,
            position,
            patience: setup.patience,
            records: false,
            travels,
            recording: None,
            arbiters,
            _system: system,
        })
    }

    /// The model that is being trained.
    pub fn graph(&self) -> &ModelGraph {
        &self.brief.graph
    }

    /// Steps done since the start of training.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Tokens trained on since the start of training.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Records the next step; [`Cluster::recording`] has it afterwards.
    pub fn record(&mut self) {
        self.records = true;
    }

    /// The step that was recorded last, once.
    pub fn recording(&mut self) -> Option<Recording> {
        self.recording.take()
    }

    /// Trains on the next batch.
    ///
    /// # Errors
    ///
    /// The first failure of any actor; the cluster is of no more use then.
    pub fn step(&mut self) -> Result<StepReport, RunError> {
        let begin = Instant::now();
        self.tokens += self.brief.plan.batch.tokens() as u64;
        self.step += 1;
        self.loader.do_send(Load);
        let keeps = std::mem::take(&mut self.records);
        let records = keeps || self.travels;
        if records {
            self.tell_all(&Message::Record { since: begin });
        }
        self.tell_all(&Message::Step);
        let mut tally = Tally::new(&self.brief, self.step);
        while !tally.is_complete() {
            match self.receive()? {
                Report::Loaded { position } => {
                    self.position = position;
                    tally.loaded = true;
                }
                Report::Computed { from, seen, memory } => {
                    tally.computed(from, seen, *memory, begin.elapsed());
                }
                Report::Joined { gradients, .. } => tally.joined(gradients),
                other => unreachable!("{other:?} before the verdict"),
            }
        }
        let lr = self.rate.at(self.tokens);
        let verdict = tally.verdict(lr, self.clip)?;
        self.tell_all(&Message::Verdict(Arc::new(verdict)));
        let mut waiting = self.actors();
        let mut actors = Vec::new();
        while waiting > 0 {
            if let Report::Updated { from, done, notes } = self.receive()? {
                tally.updated(from, &done);
                actors.extend(notes);
                waiting -= 1;
            }
        }
        let mut report = tally.report(self.step, self.tokens, lr, begin.elapsed());
        let recording = Recording { step: self.step, actors };
        report.overlap = self.travels.then(|| recording.overlap(&self.brief.plan));
        if keeps {
            self.recording = Some(recording);
        }
        Ok(report)
    }

    /// Copies all values and optimizer states; call between steps.
    ///
    /// # Errors
    ///
    /// As [`Cluster::step`].
    pub fn snapshot(&mut self) -> Result<Snapshot, RunError> {
        self.tell_all(&Message::Snapshot);
        let mut all = Pieces::new();
        for _ in 0..self.actors() {
            if let Report::Snapshot { pieces, .. } = self.receive()? {
                all.extend(pieces);
            }
        }
        let tensors = snapshot::joined(&self.brief.graph, all);
        Ok(Snapshot { tensors, feed: self.position.clone() })
    }

    fn actors(&self) -> usize {
        2 * self.brief.plan.mesh.ranks()
    }

    fn tell_all(&self, message: &Message) {
        for address in Address::all(&self.brief.plan.mesh) {
            self.post.send(address, message.clone());
        }
    }

    /// Waits for the next report; the watchdog is the patience of this wait.
    fn receive(&self) -> Result<Report, RunError> {
        let mut moves = self.brief.board.moves();
        loop {
            match self.reports.recv_timeout(self.patience) {
                Ok(Report::Failed { actor, action, cause, is_full: false }) => {
                    return Err(RunError::Actor { actor, action, cause });
                }
                Ok(Report::Failed { actor, action, cause, is_full: true }) => {
                    return Err(RunError::Room { actor, action, cause });
                }
                Ok(Report::Full { from, action, class, grown, held, limit }) => {
                    let actor = from.to_string();
                    return Err(RunError::Memory { actor, action, class, grown, held, limit });
                }
                Ok(report) => return Ok(report),
                Err(RecvTimeoutError::Disconnected) => unreachable!("the cluster holds a sender"),
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.brief.board.moves();
                    if now == moves && !self.brief.board.anyone_works() {
                        return Err(self.stuck());
                    }
                    moves = now;
                }
            }
        }
    }

    fn stuck(&self) -> RunError {
        let story = self.brief.board.story(&Address::all(&self.brief.plan.mesh));
        RunError::Stuck { seconds: self.patience.as_secs(), story }
    }
}

/// The cores of an actor's rank, an equal share each; `None` if there are fewer cores than ranks,
/// and the system had better decide.
///
/// The two actors of a rank work in turns, so they share its cores and what its caches hold.
fn cores(address: Address, mesh: &Mesh) -> Option<Range<usize>> {
    let (rank, ranks) = (address.index(mesh) / 2, mesh.ranks());
    let each = std::thread::available_parallelism().map_or(1, usize::from) / ranks;
    (0 < each && 1 < ranks).then(|| rank * each..(rank + 1) * each)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for arbiter in self.arbiters.drain(..) {
            arbiter.stop();
            // An arbiter whose thread panicked has been reported already.
            let _ = arbiter.join();
        }
    }
}
