//! Starts the actors of a plan, drives steps and stops them: the conductor.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use actix::Addr;
use graphs::{address::Address, cluster::Machine, model::ModelGraph, plan::Plan};
use ops::{DType, Place, Tensor, optim::Optimizer};

use crate::{
    board::Sight,
    crew::Crew,
    error::RunError,
    feed::Feed,
    loader::{Load, Loader},
    message::Message,
    processes::{Line, Processes, alike},
    rate::Rate,
    report::{Report, StepReport},
    snapshot::{self, Pieces, Snapshot},
    tally::Tally,
    trace::Recording,
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

/// Running actors, in this process and in those that follow it.
pub struct Cluster {
    crew: Crew,
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
    /// The processes that follow this one, and its line to them.
    over: Option<(Rc<Processes>, Line)>,
}

impl Cluster {
    /// Starts one thread and actor for each stage, expert group and the loader.
    ///
    /// # Errors
    ///
    /// [`RunError::Weights`] if the tensors to start from do not fit the model.
    pub fn start(setup: Setup, feed: Box<dyn Feed>) -> Result<Self, RunError> {
        Cluster::conduct(setup, feed, None)
    }

    /// As [`start`](Self::start), with actors only for the ranks of this process; the other
    /// processes [`follow`](crate::processes::follow).
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and if another process has another plan or cannot go on.
    ///
    /// # Panics
    ///
    /// If there are more processes than ranks.
    pub fn spread(
        setup: Setup,
        feed: Box<dyn Feed>,
        processes: &Rc<Processes>,
    ) -> Result<Self, RunError> {
        Cluster::conduct(setup, feed, Some(processes))
    }

    fn conduct(
        setup: Setup,
        feed: Box<dyn Feed>,
        processes: Option<&Rc<Processes>>,
    ) -> Result<Self, RunError> {
        let (rate, clip, patience) = (setup.rate.clone(), setup.clip, setup.patience);
        let (step, tokens) = (setup.step, setup.tokens);
        let has_link = setup.machine.as_ref().is_some_and(|it| it.link.is_some());
        let travels = has_link || setup.plan.policies.offloads().is_some();
        let over = processes.map(|all| (all.clone(), all.next_line()));
        let alike = over.as_ref().map(|_| alike(&setup));
        let (conductor, reports) = mpsc::channel();
        let lines = over.as_ref().map(|(all, line)| (&**all, line.clone()));
        let mut crew = Crew::start(setup, lines, Some(conductor))?;
        if let (Some((all, line)), Some(alike)) = (&over, alike) {
            all.host(line, &crew.brief, &crew.post);
            all.gather(line, &alike, patience)?;
        }
        let position = feed.position();
        let loader = crew.start_loader(feed);
        Ok(Cluster {
            crew,
            loader,
            reports,
            rate,
            clip,
            step,
            tokens,
            position,
            patience,
            records: false,
            travels,
            recording: None,
            over,
        })
    }

    /// The model that is being trained.
    pub fn graph(&self) -> &ModelGraph {
        &self.crew.brief.graph
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
        self.tokens += self.crew.brief.plan.batch.tokens() as u64;
        self.step += 1;
        self.loader.do_send(Load);
        let keeps = std::mem::take(&mut self.records);
        let records = keeps || self.travels;
        if records {
            self.tell_all(&Message::Record { since: begin });
            if let Some((all, _)) = &self.over {
                // Their answers come when everybody there has the message, too.
                all.ask()?;
            }
        }
        self.tell_all(&Message::Step);
        let mut tally = Tally::new(&self.crew.brief, self.step);
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
        report.overlap = self.travels.then(|| recording.overlap(&self.crew.brief.plan));
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
        let tensors = snapshot::joined(&self.crew.brief.graph, all);
        Ok(Snapshot { tensors, feed: self.position.clone() })
    }

    fn actors(&self) -> usize {
        2 * self.crew.brief.plan.mesh.ranks()
    }

    fn tell_all(&self, message: &Message) {
        for address in Address::all(&self.crew.brief.plan.mesh) {
            self.crew.post.send(address, message.clone());
        }
    }

    /// Waits for the next report; the watchdog is the patience of this wait.
    fn receive(&self) -> Result<Report, RunError> {
        // Looking at other processes takes time, so there the first wait only shows how they are.
        let mut moves = self.over.is_none().then(|| self.crew.brief.sight().moves);
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
                    let sight = self.sight()?;
                    if moves == Some(sight.moves) && !sight.is_working {
                        let story = sight.story.join("\n");
                        return Err(RunError::Stuck { seconds: self.patience.as_secs(), story });
                    }
                    moves = Some(sight.moves);
                }
            }
        }
    }

    /// What all actors are doing, here and elsewhere.
    fn sight(&self) -> Result<Sight, RunError> {
        let mut sight = self.crew.brief.sight();
        if let Some((all, _)) = &self.over {
            all.ask()?.into_iter().for_each(|far| sight.add(far));
        }
        Ok(sight)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((all, line)) = &self.over {
            all.end(line);
        }
    }
}
