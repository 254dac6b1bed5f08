//! One actor's program from its first instruction to its last: what is alive, and the peak.

use std::collections::BTreeMap;

use crate::{
    address::Address,
    edge::Class,
    memory::{
        Alive, Bytes, Level, Peak,
        events::{Event, Events},
        loads::{Loads, Routed},
        sizes::{Sizes, lane_bytes},
        states::{Home, StateId, States},
        tide::Tide,
    },
    plan::{Cargo, Instruction, Side},
};

/// The sums of a segment's weight gradients: they appear when the first microbatch of their lane
/// adds to them, and stay until the end of the program.
struct Lanes {
    /// Bytes of one sum.
    bytes: u64,
    /// Which are there, source by source.
    open: Vec<bool>,
}

/// The walk of one actor.
pub(super) struct Walk<'a> {
    sizes: &'a Sizes<'a>,
    me: Address,
    routed: Routed<'a>,
    states: States<'a>,
    /// State of each microbatch, by chunk and visit.
    flights: BTreeMap<Home, Vec<StateId>>,
    /// Sums of weight gradients, by chunk and segment.
    lanes: BTreeMap<(usize, usize), Lanes>,
    tide: Tide,
    /// The same of the host's pool.
    host: Tide,
}

impl<'a> Walk<'a> {
    pub fn new(sizes: &'a Sizes<'a>, me: Address, loads: &Loads<'a>) -> Self {
        let states = States::new(Events::new(sizes, me.stage, me.side));
        let microbatches = sizes.plan.batch.microbatches(sizes.plan.mesh.data_ranks());
        let homes = states.events.tasks.keys().map(|&(chunk, segment)| match me.side {
            Side::Stage => (chunk, 0),
            Side::Experts => (chunk, segment),
        });
        let flights = homes.map(|home| (home, vec![0; microbatches])).collect();
        let lanes = me.lanes(&sizes.plan.mesh, &sizes.plan.batch).len();
        let lanes = states.events.tasks.iter().map(|(&segment, tasks)| {
            (segment, Lanes { bytes: lane_bytes(tasks), open: vec![false; lanes] })
        });
        let (lanes, routed) = (lanes.collect(), Routed::new(sizes, me, loads));
        let (tide, host) = (Tide::default(), Tide::default());
        Walk { sizes, me, routed, states, flights, lanes, tide, host }
    }

    fn program(&self) -> &'a [Instruction] {
        &self.sizes.plan.programs[self.me.stage][self.me.side as usize].instructions
    }

    /// The most bytes that wait in the actor's mailbox: of each pair at most `credits` tokens,
    /// which belong to the same microbatches for all senders.
    pub fn messages(&self) -> u64 {
        let plan = self.sizes.plan;
        let microbatches = plan.batch.microbatches(plan.mesh.data_ranks());
        let here = (self.me.stage, self.me.side);
        let arriving = plan.channels.iter().filter(|channel| channel.to == here);
        let token = |cargo: Cargo| -> u64 {
            let ports = self.states.events.ports(cargo).0.into_iter();
            let amounts = ports.map(|port| self.sizes.edge(self.me.side, port));
            let (sources, rows) = match (self.me.side, cargo) {
                (Side::Experts, Cargo::Dispatch { chunk, visit })
                | (Side::Experts, Cargo::CombineGradients { chunk, visit }) => {
                    (plan.mesh.ep as u64, self.routed.most(chunk, visit, microbatches))
                }
                _ => (1, 0),
            };
            amounts.map(|amount| sources * amount.fixed + rows * amount.per_row).sum()
        };
        arriving.map(|channel| channel.credits as u64 * token(channel.cargo)).sum()
    }

    /// Walks to the end, telling `after` what each instruction leaves alive.
    ///
    /// Returns the peak of the device, that of the host's pool, and the levels of the device.
    pub fn run(mut self, after: &mut dyn FnMut(&Bytes)) -> (Peak, Peak, Vec<Level>) {
        let mut levels = Vec::with_capacity(self.program().len());
        for (index, &instruction) in self.program().iter().enumerate() {
            self.tide.start(index);
            self.host.start(index);
            self.execute(instruction);
            levels.push(self.tide.level());
            after(self.tide.live());
        }
        (self.tide.peak(), self.host.peak(), levels)
    }

    /// Walks to the peak and says what is alive there.
    pub fn alive(mut self, peak: &Peak) -> Vec<Alive> {
        for &instruction in self.program().iter().take(peak.instruction) {
            self.execute(instruction);
        }
        let held = Class::ALL.into_iter().filter(|&class| peak.by_class.get(class) > 0);
        let alive = held.map(|class| {
            let bytes = peak.by_class.get(class);
            Alive { class, flights: self.holding(class), bytes }
        });
        let mut alive: Vec<Alive> = alive.collect();
        alive.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.class.cmp(&b.class)));
        alive
    }

    fn holding(&self, class: Class) -> usize {
        let states = self.flights.values().flatten();
        states.filter(|&&state| self.states.live(state).of(class) != Default::default()).count()
    }

    fn execute(&mut self, instruction: Instruction) {
        // Sums that have left still count as there: their slices, and those of others, come in
        // their place, and when is a matter of timing.
        let Some((home, microbatch)) = self.home(instruction) else { return };
        let event = Event::Do(at_zero(instruction));
        self.happen(home, microbatch, event, instruction);
        let chunk = home.0;
        let hands = self.me.side == Side::Stage;
        match instruction {
            Instruction::Forward { segment, .. }
                if hands && segment == self.sizes.plan.chunks[chunk].visits.len() =>
            {
                let last = chunk + 1 == self.sizes.plan.chunks.len();
                if !last && self.sizes.plan.is_local(chunk) {
                    self.happen((chunk + 1, 0), microbatch, Event::Enter, instruction);
                }
            }
            Instruction::BackwardInput { segment: 0, .. }
                if hands && chunk > 0 && self.sizes.plan.is_local(chunk - 1) =>
            {
                self.happen((chunk - 1, 0), microbatch, Event::Return, instruction);
            }
            _ => {}
        }
    }

    /// The flight that an instruction works on.
    fn home(&self, instruction: Instruction) -> Option<(Home, usize)> {
        let visited = |chunk, visit| match self.me.side {
            Side::Stage => (chunk, 0),
            Side::Experts => (chunk, visit),
        };
        let home = match instruction {
            Instruction::Forward { chunk, segment, microbatch }
            | Instruction::Restore { chunk, segment, microbatch }
            | Instruction::Copy { chunk, segment, microbatch, .. }
            | Instruction::BackwardInput { chunk, segment, microbatch }
            | Instruction::BackwardWeight { chunk, segment, microbatch } => {
                (visited(chunk, segment), microbatch)
            }
            Instruction::Receive { channel, microbatch } => {
                let home = match self.sizes.plan.channels[channel].cargo {
                    Cargo::Activations { chunk } => (chunk + 1, 0),
                    Cargo::Gradients { chunk } => (chunk - 1, 0),
                    other => visit_of(other, visited),
                };
                (home, microbatch)
            }
            Instruction::Send { channel, microbatch } => {
                (visit_of(self.sizes.plan.channels[channel].cargo, visited), microbatch)
            }
            Instruction::Reduce { .. } => return None,
        };
        Some(home)
    }

    /// An event on the flights of a microbatch, source by source.
    fn happen(&mut self, home: Home, microbatch: usize, event: Event, cause: Instruction) {
        let flights = self.flights.get_mut(&home).expect("a checked plan stays on its stage");
        let mut lanes = match cause {
            Instruction::BackwardWeight { chunk, segment, .. } => {
                self.lanes.get_mut(&(chunk, segment))
            }
            _ => None,
        };
        let sources = match self.me.side {
            Side::Stage => 1,
            Side::Experts => self.sizes.plan.mesh.ep,
        };
        let rows = self.routed.rows(home.0, home.1, microbatch);
        let step = self.states.step(flights[microbatch], home, event);
        for source in 0..sources {
            if let Some(Lanes { bytes, open }) = &mut lanes {
                // One sum for all sources, or some lanes for each.
                let own = open.len().div_ceil(sources);
                let lane = (source * own + microbatch % own) % open.len();
                let is_open = &mut open[lane];
                if !std::mem::replace(is_open, true) {
                    self.tide.grow(Class::WeightGradients, *bytes);
                }
            }
            let rows = rows.get(source).copied().unwrap_or(0);
            self.tide.pass(&step.before, &step.highs, &step.changes, rows);
            let (before, after) = (&step.host, &step.host_after);
            if before != after {
                let changes = before.changes(after);
                self.host.pass(before, std::slice::from_ref(after), &changes, rows);
            }
        }
        flights[microbatch] = step.to;
    }
}

fn visit_of(cargo: Cargo, visited: impl Fn(usize, usize) -> Home) -> Home {
    match cargo {
        Cargo::Activations { chunk } | Cargo::Gradients { chunk } => visited(chunk, 0),
        Cargo::Dispatch { chunk, visit }
        | Cargo::Combine { chunk, visit }
        | Cargo::CombineGradients { chunk, visit }
        | Cargo::DispatchGradients { chunk, visit } => visited(chunk, visit),
    }
}

/// The same instruction for microbatch 0.
fn at_zero(mut instruction: Instruction) -> Instruction {
    match &mut instruction {
        Instruction::Receive { microbatch, .. }
        | Instruction::Send { microbatch, .. }
        | Instruction::Forward { microbatch, .. }
        | Instruction::Restore { microbatch, .. }
        | Instruction::Copy { microbatch, .. }
        | Instruction::BackwardInput { microbatch, .. }
        | Instruction::BackwardWeight { microbatch, .. } => *microbatch = 0,
        Instruction::Reduce { .. } => {}
    }
    instruction
}
