//! The optimizer phase of one actor: join gradients, update its rows, exchange new values.
//!
//! `reduce` brings the sums of lanes to the holders of slices, `update` moves the slices and sends
//! them round; [`graphs::share`] says whose is what. The order of messages does not matter: a sum
//! goes on in the order of lanes, and an update needs nothing but the gradient of its rows, the
//! verdict and, for Muon, its rows of the result of Newton-Schulz.

mod batches;
mod reduce;
mod update;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use graphs::{
    address::Address,
    memory::{ActorMemory, Fixed, Reserve},
    model::NodeId,
};
use ops::{Floats, Rule, Tensor};

pub(crate) use self::batches::Batches;
use self::reduce::{Joining, Passing};
use crate::{
    board::Doing,
    message::Message,
    report::{Measured, Report, Updated},
    trace::Part,
    verdict::Verdict,
    worker::Worker,
};

/// What an actor has collected so far in this phase; empty during the program, but for what
/// quicker actors have sent.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    /// Sums that a chain leads through this actor, by parameter and holder of the slice.
    passing: BTreeMap<(usize, usize), Passing>,
    /// Parts of the own slice of a parameter, by holder.
    parts: BTreeMap<usize, BTreeMap<usize, Floats>>,
    /// Parameters whose own lanes have left before the end of the program.
    sent: BTreeSet<usize>,
    /// Own slices whose gradients are not joined; known from the end of the program until all are
    /// reported.
    unjoined: Option<usize>,
    /// Gradients of own slices over all lanes; dropped by the update.
    joined: BTreeMap<usize, Floats>,
    /// Those whose squares nobody has begun to sum: of what is joined at one time they are summed
    /// together.
    unmeasured: Vec<usize>,
    /// Reports of the joined gradients, sent when all are there.
    reports: Vec<Joining>,
    /// What the update waits for.
    verdict: Option<Arc<Verdict>>,
    /// Directions of matrices that this actor runs Newton-Schulz on, by holder.
    directions: BTreeMap<usize, BTreeMap<usize, Floats>>,
    /// Own slices that the update has not moved yet.
    unmoved: usize,
    /// New values of a parameter, by holder, until all slices are there.
    values: BTreeMap<usize, BTreeMap<usize, Tensor>>,
    /// Parameters whose new value is in place.
    installed: usize,
    /// What is reported at the end.
    pub(crate) done: Updated,
}

impl Worker {
    /// After the last instruction: reports what was seen and sends gradients on to the holders of
    /// slices.
    pub(crate) fn finish_program(&mut self) {
        let memory = Box::new(self.measured());
        self.units.clear();
        let seen = std::mem::take(&mut self.seen);
        self.post().report(Report::Computed { from: self.me, seen, memory });
        self.write_board(Doing::Working("sending gradients to the holders of slices".into()));
        let trained = self.trained();
        let own = trained.iter().filter(|it| self.holdings.parameters[it].owned.is_some()).count();
        self.phase.unjoined = Some(own - self.phase.joined.len());
        let left = trained.into_iter().filter(|it| !self.phase.sent.contains(it));
        let left: Vec<usize> = left.collect();
        left.into_iter().for_each(|parameter| self.send_gradient(parameter));
        self.report_joined();
        self.write_board(Doing::Waiting("gradients of others and the verdict".into()));
    }

    /// What the program held, in the plan's terms.
    fn measured(&mut self) -> Measured {
        let units = self.units.values().flat_map(|(tokens, targets)| [tokens, targets]);
        let inputs = units.map(|tensor| tensor.byte_len() as u64).sum();
        let trail = std::mem::take(&mut self.trail);
        let peak = self.flights.tide.peak();
        let first = self.brief.plan.first_number(self.me.stage, self.me.side);
        let actor = ActorMemory {
            address: self.me,
            fixed: Fixed { inputs, ..self.holdings.fixed() },
            reserve: Reserve { messages: self.mailbox.most(), ..Reserve::default() },
            peak,
            host: self.flights.host.peak(),
            number: first + peak.instruction,
            alive: Vec::new(),
            levels: trail.levels,
        };
        Measured { actor, trail: trail.classes, rows: trail.rows }
    }

    /// Parameters held here that a gradient trains.
    fn trained(&self) -> Vec<usize> {
        let parameters = self.brief.graph.parameters();
        let held = self.holdings.parameters.keys();
        held.filter(|index| parameters[**index].spec.rule != Rule::Balance).copied().collect()
    }

    /// Lets go of the gradients of a segment, which are complete, while the program goes on.
    pub(crate) fn reduce(&mut self, chunk: usize, segment: usize) {
        let brief = self.brief.clone();
        let nodes: Vec<NodeId> = self.tasks[&(chunk, segment)].iter().map(|it| it.node).collect();
        let parameters =
            nodes.into_iter().flat_map(|node| brief.graph.node(node).parameters.clone());
        let trained = self.trained();
        for parameter in parameters.filter(|it| trained.contains(it)) {
            self.phase.sent.insert(parameter);
            self.send_gradient(parameter);
        }
        self.report_joined();
    }

    /// Sends a message of the phase, over the link of the rank if there is one, and counts its
    /// bytes.
    fn pass(&mut self, to: Address, message: Message) {
        self.phase.done.sent.add(message.exchange());
        self.post().carry(self.me, to, message);
    }

    fn note_part(&mut self, part: Part) {
        if let Some(recorder) = &mut self.recorder {
            recorder.end_part(part);
        }
    }
}
