//! Running a program: one instruction after another, as far as messages and credits allow.

use std::{ops::Range, time::Instant};

use graphs::{
    flight::{Made, Task, reads_unit},
    model::{NodeId, Port},
    plan::{Instruction, Side},
};
use ops::{Observed, Tensor};

use crate::{
    board::Doing,
    flights::FlightKey,
    moments::Moments,
    report::Seen,
    worker::{Trail, Worker},
};

impl Worker {
    /// Begins a step.
    pub(crate) fn start_step(&mut self) {
        self.counter = Some(0);
        self.seen = Seen::default();
        self.trail = Trail::default();
        self.observed.clear();
        self.moments = Moments::begin(self.brief.place(self.me));
        self.flights.begin();
        self.mailbox.begin();
        kernels::gemm::time::take();
    }

    /// Runs instructions until one has to wait or the program is done.
    pub(crate) fn advance(&mut self) {
        while self.counter.is_some() {
            let Some(instruction) = self.instruction() else {
                self.counter = None;
                self.note_observed();
                self.note_moments();
                self.seen.product_seconds = kernels::gemm::time::take().as_secs_f64();
                return self.finish_program();
            };
            if let Some(wanted) = self.wanted(instruction) {
                self.waiting.get_or_insert_with(Instant::now);
                return self.write_board(Doing::Waiting(wanted));
            }
            self.flights.tide.start(self.counter.unwrap_or(0));
            self.flights.host.start(self.counter.unwrap_or(0));
            self.note_wait(instruction);
            if let Some(recorder) = &mut self.recorder {
                recorder.begin();
            }
            self.run(instruction);
            if let Some(recorder) = &mut self.recorder {
                recorder.end();
            }
            self.note_memory();
            if !self.claim_memory() {
                self.counter = None;
                return;
            }
            self.brief.board.moved();
            self.counter = self.counter.map(|counter| counter + 1);
        }
    }

    /// Adds up how long an instruction that runs now has waited for copies.
    fn note_wait(&mut self, instruction: Instruction) {
        if let (Some(since), Instruction::Copy { .. }) = (self.waiting.take(), instruction) {
            self.seen.copy_wait_seconds += since.elapsed().as_secs_f64();
        }
    }

    /// Writes down what the instruction left in memory, if the cluster audits.
    fn note_memory(&mut self) {
        if self.brief.audit {
            self.trail.levels.push(self.flights.tide.level());
            self.trail.classes.push(*self.flights.tide.live());
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
            Instruction::Copy { step, chunk, segment, microbatch } => {
                let missing = self.missing_copy(step, (chunk, segment, microbatch));
                missing.then(|| format!("the copy lane to {}", self.describe(instruction)))
            }
            Instruction::Restore { .. }
            | Instruction::BackwardInput { .. }
            | Instruction::BackwardWeight { .. }
            | Instruction::Reduce { .. } => None,
        }
    }

    fn run(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::Receive { channel, microbatch } => self.take_in(channel, microbatch),
            Instruction::Send { channel, microbatch } => self.send_out(channel, microbatch),
            Instruction::Copy { step, chunk, segment, microbatch } => {
                for source in self.sources() {
                    self.copy(step, self.key(chunk, segment, microbatch, source));
                }
            }
            Instruction::Reduce { chunk, segment } => self.reduce(chunk, segment),
            compute => {
                self.write_board(Doing::Working(self.describe(compute)));
                let brief = self.brief.clone();
                let rank = self.me.index(&brief.plan.mesh) / 2;
                let device = brief.pace.as_ref().map(|pace| pace.begin(rank, self.me, compute));
                if let Some(recorder) = &mut self.recorder {
                    recorder.start();
                }
                let marked = self.moments.as_ref().map(Moments::mark);
                let begin = Instant::now();
                for source in self.sources() {
                    self.compute(compute, source);
                }
                if let Some(device) = device {
                    device.end();
                }
                match (&mut self.moments, marked) {
                    (Some(moments), Some(marked)) => {
                        moments.end(self.counter.unwrap_or(0), marked);
                    }
                    _ => self.seen.busy_seconds += begin.elapsed().as_secs_f64(),
                }
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

    pub(crate) fn key(
        &self,
        chunk: usize,
        segment: usize,
        microbatch: usize,
        source: usize,
    ) -> FlightKey {
        let visit = if self.me.side == Side::Experts { segment } else { 0 };
        (chunk, visit, microbatch, source)
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
            Instruction::Restore { chunk, segment, microbatch } => {
                self.restore(self.key(chunk, segment, microbatch, source), segment);
            }
            Instruction::Receive { .. }
            | Instruction::Send { .. }
            | Instruction::Copy { .. }
            | Instruction::Reduce { .. } => {}
        }
    }

    fn forward(&mut self, key: FlightKey, segment: usize) {
        let (chunk, visit, microbatch, source) = key;
        let unit = self.units.get(&microbatch).filter(|_| self.reads_unit(chunk, segment));
        let unit = unit.cloned();
        let (brief, at) = (&self.brief, self.brief.context());
        let ends = self.me.side == Side::Stage && segment == brief.plan.chunks[chunk].visits.len();
        let handed = self.boundaries.get(chunk).filter(|_| ends && brief.plan.is_local(chunk));
        let (tasks, holdings) = (&self.tasks[&(chunk, segment)], &self.holdings);
        let keeping = &self.keepings[&(chunk, visit)];
        let mut observed = Vec::new();
        let mut run = |task: &Task, inputs: &[Tensor]| {
            let mut done = task.op.operator().forward(&at, &holdings.values(task.node), inputs);
            observed.extend(done.observed.take().map(|seen| (task.node, seen)));
            Made::from(done)
        };
        let output = self.flights.edit(key, |flight| {
            if let Some(unit) = unit {
                flight.set_unit(unit);
            }
            flight.forward(&brief.graph, keeping, tasks, &mut run);
            handed.map(|port| {
                let output = flight.value(*port).clone();
                flight.read(&brief.graph, keeping, *port);
                output
            })
        });
        if let (Some(&port), Some(output)) = (handed, output) {
            let next = (chunk + 1, visit, microbatch, source);
            let keeping = &self.keepings[&(chunk + 1, visit)];
            self.flights.edit(next, |flight| flight.put(&brief.graph, keeping, port, output));
        }
        let unit = self.unit(microbatch, source);
        self.observed.extend(observed.into_iter().map(|(node, seen)| (node, seen, unit)));
    }

    fn backward_input(&mut self, key: FlightKey, segment: usize) {
        let (chunk, visit, microbatch, source) = key;
        let (brief, at) = (&self.brief, self.brief.context());
        let first = self.me.side == Side::Stage && segment == 0;
        let before = chunk.checked_sub(1).filter(|before| first && brief.plan.is_local(*before));
        let handed = before.map(|before| self.boundaries[before]);
        let (tasks, holdings) = (&self.tasks[&(chunk, segment)], &self.holdings);
        let keeping = &self.keepings[&(chunk, visit)];
        let mut run = |task: &Task, saved: &[Tensor], dy: &[Tensor]| {
            task.op.operator().backward_input(&at, &holdings.values(task.node), saved, dy)
        };
        let gradient = self.flights.edit(key, |flight| {
            flight.backward_input(&brief.graph, keeping, tasks, &mut run);
            handed.map(|port| (port, flight.take_gradient(port)))
        });
        if let (Some(before), Some((port, gradient))) = (before, gradient) {
            let next = (before, visit, microbatch, source);
            self.flights.edit(next, |flight| flight.add_gradient(port, gradient));
        }
    }

    fn backward_weight(&mut self, key: FlightKey, segment: usize) {
        let (chunk, visit, microbatch, source) = key;
        let (brief, at) = (&self.brief, self.brief.context());
        let keeping = &self.keepings[&(chunk, visit)];
        let unit = self.unit(microbatch, source);
        let lane = self.me.lane(&brief.plan.mesh, &brief.plan.batch, unit);
        let tasks = self.tasks[&(chunk, segment)].iter().rev();
        let trained = |task: &&Task| !brief.graph.node(task.node).parameters.is_empty();
        let tasks: Vec<&Task> = tasks.filter(trained).collect();
        for task in &tasks {
            self.flights.open_lanes(self.holdings.open_lane(task.node, lane));
        }
        let holdings = &mut self.holdings;
        self.flights.edit(key, |flight| {
            for task in tasks {
                let values = holdings.values(task.node);
                let mut sums = holdings.take_lane(task.node, lane);
                flight.backward_weight(keeping, task.node, |saved, dy| {
                    task.op.operator().backward_weight(&at, &values, saved, dy, &mut sums);
                });
                holdings.put_lane(task.node, lane, sums);
            }
        });
    }

    /// Decodes and runs again what the backward pass of a segment reads; what that observes has
    /// been noted the first time.
    fn restore(&mut self, key: FlightKey, segment: usize) {
        let (chunk, visit, ..) = key;
        let (brief, at) = (&self.brief, self.brief.context());
        let (tasks, holdings) = (&self.tasks[&(chunk, segment)], &self.holdings);
        let keeping = &self.keepings[&(chunk, visit)];
        let mut run = |task: &Task, inputs: &[Tensor]| {
            Made::from(task.op.operator().forward(&at, &holdings.values(task.node), inputs))
        };
        self.flights.edit(key, |flight| flight.restore(&brief.graph, keeping, tasks, &mut run));
    }

    /// The unit of the step that a microbatch of a source rank is.
    pub(crate) fn unit(&self, microbatch: usize, source: usize) -> usize {
        let mesh = &self.brief.plan.mesh;
        let rank = self.me.replica * mesh.ep + source;
        self.brief.plan.batch.unit(mesh.data_ranks(), rank, microbatch)
    }

    /// Adds up what forward passes observed, in their order; waits for a GPU.
    fn note_observed(&mut self) {
        if self.moments.is_some() {
            self.write_board(Doing::Working("waiting for the GPU".into()));
        }
        for (node, observed, unit) in std::mem::take(&mut self.observed) {
            self.note(node, observed.known(), unit);
        }
    }

    /// Notes when its GPU did what has been queued.
    fn note_moments(&mut self) {
        let Some(moments) = &mut self.moments else { return };
        let ran = moments.take();
        let seconds = ran.iter().map(|(_, begin, end)| (*end - *begin).as_secs_f64());
        self.seen.busy_seconds += seconds.sum::<f64>();
        if let Some(recorder) = &mut self.recorder {
            recorder.ran(&ran);
        }
    }

    fn note(&mut self, node: NodeId, observed: Observed, unit: usize) {
        match observed {
            Observed::Waiting(_) => unreachable!("what is known waits for nothing"),
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
        let tasks = &self.tasks[&(chunk, segment)];
        self.me.side == Side::Stage && reads_unit(&self.brief.graph, tasks)
    }

    /// The one output that crosses from a chunk to the next.
    pub(crate) fn boundary(&self, chunk: usize) -> Port {
        self.boundaries[chunk]
    }
}
