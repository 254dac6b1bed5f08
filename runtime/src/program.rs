//! Running a program: one instruction after another, as far as messages and credits allow.

use std::{ops::Range, time::Instant};

use graphs::{
    model::{NodeId, Source},
    plan::{Instruction, Side},
};
use ops::Observed;

use crate::{
    board::Doing,
    flight::{Flight, Port},
    report::Seen,
    worker::{FlightKey, Worker},
};

impl Worker {
    /// Begins a step.
    pub(crate) fn start_step(&mut self) {
        self.counter = Some(0);
        self.seen = Seen::default();
        kernels::gemm::time::take();
    }

    /// Runs instructions until one has to wait or the program is done.
    pub(crate) fn advance(&mut self) {
        while self.counter.is_some() {
            let Some(instruction) = self.instruction() else {
                self.counter = None;
                self.seen.product_seconds = kernels::gemm::time::take().as_secs_f64();
                return self.finish_program();
            };
            if let Some(wanted) = self.wanted(instruction) {
                return self.write_board(Doing::Waiting(wanted));
            }
            if let Some(recorder) = &mut self.recorder {
                recorder.begin();
            }
            self.run(instruction);
            if let Some(recorder) = &mut self.recorder {
                recorder.end();
            }
            self.brief.board.moved();
            self.counter = self.counter.map(|counter| counter + 1);
        }
    }

    /// What the instruction still waits for, in words; `None` if it can run.
    fn wanted(&self, instruction: Instruction) -> Option<String> {
        match instruction {
            Instruction::Receive { channel, microbatch } => {
                let missing = self.mailbox.missing(channel, microbatch, self.peers(channel))?;
                let from = self.peer(channel, missing, true);
                Some(format!("{} from {from}", self.describe(instruction)))
            }
            Instruction::Send { channel, .. } => {
                let full = self.mailbox.full(channel, self.peers(channel))?;
                let to = self.peer(channel, full, false);
                Some(format!("a free buffer at {to} to {}", self.describe(instruction)))
            }
            Instruction::Forward { chunk, segment, microbatch } => {
                let reads = self.reads_unit(chunk, segment);
                let missing = reads && !self.units.contains_key(&microbatch);
                missing.then(|| format!("tokens of microbatch {microbatch} from the loader"))
            }
            Instruction::BackwardInput { .. } | Instruction::BackwardWeight { .. } => None,
        }
    }

    fn run(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::Receive { channel, microbatch } => self.take_in(channel, microbatch),
            Instruction::Send { channel, microbatch } => self.send_out(channel, microbatch),
            compute => {
                self.write_board(Doing::Working(self.describe(compute)));
                let begin = Instant::now();
                for source in self.sources() {
                    self.compute(compute, source);
                }
                self.seen.busy_seconds += begin.elapsed().as_secs_f64();
            }
        }
    }

    /// Ranks whose rows are computed one after the other: all on the experts' side.
    pub(crate) fn sources(&self) -> Range<usize> {
        match self.me.side {
            Side::Stage => self.me.rank..self.me.rank + 1,
            Side::Experts => 0..self.brief.plan.mesh.ep,
        }
    }

    fn key(&self, chunk: usize, segment: usize, microbatch: usize, source: usize) -> FlightKey {
        let visit = if self.me.side == Side::Experts { segment } else { 0 };
        (chunk, visit, microbatch, source)
    }

    pub(crate) fn flight(&mut self, key: FlightKey) -> &mut Flight {
        self.flights.entry(key).or_default()
    }

    fn compute(&mut self, instruction: Instruction, source: usize) {
        match instruction {
            Instruction::Forward { chunk, segment, microbatch } => {
                self.forward(self.key(chunk, segment, microbatch, source), segment);
            }
            Instruction::BackwardInput { chunk, segment, microbatch } => {
                self.backward_input(self.key(chunk, segment, microbatch, source), segment);
            }
            Instruction::BackwardWeight { chunk, segment, microbatch } => {
                self.backward_weight(self.key(chunk, segment, microbatch, source), segment);
            }
            Instruction::Receive { .. } | Instruction::Send { .. } => {}
        }
    }

    fn forward(&mut self, key: FlightKey, segment: usize) {
        let (chunk, _, microbatch, source) = key;
        let mut flight = self.flights.remove(&key).unwrap_or_default();
        if self.reads_unit(chunk, segment) {
            flight.unit = self.units.get(&microbatch).cloned();
        }
        let brief = &self.brief;
        let tasks = &self.tasks[&(chunk, segment)];
        let values = |node| self.holdings.values(node);
        let observed = flight.forward(&brief.graph, &brief.context(), tasks, &values);
        let unit = self.unit(microbatch, source);
        observed.into_iter().for_each(|(node, seen)| self.note(node, seen, unit));
        self.flights.insert(key, flight);
        if self.me.side == Side::Stage && segment == self.brief.plan.chunks[chunk].visits.len() {
            self.leave_chunk(key);
        }
        let bytes = self.flights.values().map(Flight::bytes).sum::<usize>();
        let bytes = bytes + self.mailbox.bytes() + self.holdings.bytes();
        self.seen.peak_bytes = self.seen.peak_bytes.max(bytes);
    }

    /// After the last node of a chunk: keeps its output, drops the rest, hands the output over if
    /// the next chunk is here too.
    fn leave_chunk(&mut self, key: FlightKey) {
        let (chunk, visit, microbatch, source) = key;
        let last = chunk + 1 == self.brief.plan.chunks.len();
        let output = (!last).then(|| self.boundary(chunk));
        let value = output.map(|port| self.flight(key).value(port).clone());
        self.flight(key).clear_values();
        if let (Some(port), Some(value)) = (output, value) {
            let next = if self.is_local(chunk) { chunk + 1 } else { chunk };
            self.flight((next, visit, microbatch, source)).put(port, value);
        }
    }

    fn backward_input(&mut self, key: FlightKey, segment: usize) {
        let (chunk, visit, microbatch, source) = key;
        let mut flight = self.flights.remove(&key).expect("F runs before I");
        let brief = &self.brief;
        let values = |node| self.holdings.values(node);
        let tasks = &self.tasks[&(chunk, segment)];
        flight.backward_input(&brief.graph, &brief.context(), tasks, &values);
        self.flights.insert(key, flight);
        let first = self.me.side == Side::Stage && segment == 0 && chunk > 0;
        if first && self.is_local(chunk - 1) {
            let port = self.boundary(chunk - 1);
            let gradient = self.flight(key).take_gradient(port);
            self.flight((chunk - 1, visit, microbatch, source)).add_gradient(port, gradient);
        }
    }

    fn backward_weight(&mut self, key: FlightKey, segment: usize) {
        let (chunk, _, microbatch, source) = key;
        let mut flight = self.flights.remove(&key).expect("F runs before W");
        let lane = self.brief.plan.batch.lane(self.unit(microbatch, source));
        let context = self.brief.context();
        for task in self.tasks[&(chunk, segment)].iter().rev() {
            if self.brief.graph.node(task.node).parameters.is_empty() {
                continue;
            }
            let values = self.holdings.values(task.node);
            let mut sums = self.holdings.take_lane(task.node, lane);
            flight.backward_weight(&context, task, &values, &mut sums);
            self.holdings.put_lane(task.node, lane, sums);
        }
        self.keep_if_alive(key, flight);
    }

    pub(crate) fn keep_if_alive(&mut self, key: FlightKey, flight: Flight) {
        if !flight.is_empty() {
            self.flights.insert(key, flight);
        }
    }

    /// The unit of the step that a microbatch of a source rank is.
    pub(crate) fn unit(&self, microbatch: usize, source: usize) -> usize {
        let mesh = &self.brief.plan.mesh;
        let rank = self.me.replica * mesh.ep + source;
        self.brief.plan.batch.unit(mesh.data_ranks(), rank, microbatch)
    }

    fn note(&mut self, node: NodeId, observed: Observed, unit: usize) {
        match observed {
            Observed::Loss { sum, tokens } => self.seen.losses.push((unit, sum, tokens)),
            Observed::MaxLogits(logits) => {
                let clip = self.brief.graph.clips().iter().position(|c| c.attention == node);
                let clip = clip.expect("every attention node has a clip");
                match self.seen.max_logits.iter_mut().find(|(index, _)| *index == clip) {
                    None => self.seen.max_logits.push((clip, logits)),
                    Some((_, most)) => {
                        most.iter_mut().zip(logits).for_each(|(most, s)| *most = most.max(s));
                    }
                }
            }
            Observed::Load(load) => match self.seen.loads.iter_mut().find(|(n, _)| *n == node) {
                None => self.seen.loads.push((node, load)),
                Some((_, sum)) => sum.iter_mut().zip(load).for_each(|(sum, n)| *sum += n),
            },
        }
    }

    fn reads_unit(&self, chunk: usize, segment: usize) -> bool {
        let inputs = |node: NodeId| self.brief.graph.node(node).inputs.iter();
        let unit = |source: &Source| matches!(source, Source::Tokens | Source::Targets);
        self.me.side == Side::Stage
            && self.tasks[&(chunk, segment)].iter().any(|task| inputs(task.node).any(unit))
    }

    /// The one output that crosses from a chunk to the next.
    pub(crate) fn boundary(&self, chunk: usize) -> Port {
        self.boundaries[chunk]
    }

    fn is_local(&self, chunk: usize) -> bool {
        let chunks = &self.brief.plan.chunks;
        chunks[chunk].stage == chunks[chunk + 1].stage
    }
}
