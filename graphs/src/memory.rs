//! How many bytes each actor holds, exactly, before anything runs.
//!
//! The order of an actor is fixed, so its peak is one scan over its program. The scan runs the
//! flights of the runtime with symbols for tensors, one for each way a microbatch can go through
//! a chunk, and adds up what each instruction gains and frees. The runtime counts the same with
//! real tensors, and both must agree to the byte, in every instruction and class.
//!
//! Counted are tensors: parameters, optimizer states, gradient sums, everything alive between
//! `F` and `W`, and what channels may hold. Not counted is what an operator or the optimizer
//! allocates for itself during a call (packed matrices, widened inputs), nor the copy that joins
//! the pieces of a token from several senders.

use ops::{DType, optim::Optimizer};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    address::Address,
    edge::Class,
    flight::Live,
    mesh::Mesh,
    model::ModelGraph,
    plan::{Plan, Side},
    timeline::Timeline,
};

mod advice;
mod events;
mod fixed;
mod loads;
mod ranks;
pub(crate) mod sizes;
mod states;
pub(crate) mod symbol;
mod tide;
mod walk;

pub use crate::memory::{
    advice::{Advice, Change, advice},
    loads::{Loads, Rows},
    tide::{Changed, Tide},
};
use crate::memory::{fixed::all_fixed, sizes::Sizes, walk::Walk};

/// Bytes by [`Class`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bytes([u64; Class::COUNT]);

impl Bytes {
    /// The bytes of what is alive, for so many rows.
    pub fn of(live: &Live, rows: u64) -> Self {
        Bytes(Class::ALL.map(|class| live.of(class).at(rows)))
    }

    /// Bytes of a class.
    pub fn get(&self, class: Class) -> u64 {
        self.0[class as usize]
    }

    /// Bytes of a class, to change.
    pub fn get_mut(&mut self, class: Class) -> &mut u64 {
        &mut self.0[class as usize]
    }

    /// Bytes of all classes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds the bytes of each class.
    pub fn add(&mut self, other: &Bytes) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, bytes)| *sum += bytes);
    }

    /// Takes the bytes of each class away.
    pub fn subtract(&mut self, other: &Bytes) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, bytes)| *sum -= bytes);
    }
}

impl Serialize for Bytes {
    /// An object of the classes that are there.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let there = Class::ALL.into_iter().filter(|class| self.get(*class) > 0);
        let mut map = serializer.serialize_map(None)?;
        for class in there {
            map.serialize_entry(&class, &self.get(class))?;
        }
        map.end()
    }
}

/// What stays all through a step.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Fixed {
    /// Values that forward and backward read, in the job's precision.
    pub parameters: u64,
    /// F32 values of the rows that it updates.
    pub masters: u64,
    /// Optimizer states of the rows that it updates.
    pub states: u64,
    /// Tokens and targets of the step.
    pub inputs: u64,
    /// Masters and states that live on the host, and not on the device.
    pub host: u64,
}

/// What may be there or not, as messages come early or late: the most there can be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Reserve {
    /// Cargo that has arrived and is not yet taken: credits times the largest token, over all
    /// channels and senders.
    pub messages: u64,
    /// Gradient sums that other holders of its parameters have sent.
    pub reduction: u64,
    /// What the update holds, when all programs are done and nothing else above is left: the
    /// joined gradients of its rows, and the momentum, updates and new values that others send.
    pub update: u64,
}

/// The highest moment of a program.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Peak {
    /// Bytes of everything that comes and goes: activations and sums of gradients.
    pub bytes: u64,
    /// The same by class.
    pub by_class: Bytes,
    /// Position in the program of the first instruction that reaches it.
    pub instruction: usize,
}

/// Bytes of what comes and goes, around one instruction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Level {
    /// The most while it runs.
    pub high: u64,
    /// What is left when it is done.
    pub after: u64,
}

/// Something that is alive at the peak.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Alive {
    /// What it is.
    pub class: Class,
    /// Flights (a microbatch in a chunk or visit) that hold some when the instruction begins.
    pub flights: usize,
    /// Bytes of it.
    pub bytes: u64,
}

/// The memory of one actor over a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActorMemory {
    /// Whose.
    pub address: Address,
    /// What stays.
    pub fixed: Fixed,
    /// What messages may take.
    pub reserve: Reserve,
    /// The highest moment of what comes and goes.
    pub peak: Peak,
    /// The highest moment of what is on the host.
    pub host: Peak,
    /// Number in the plan of the instruction of the peak.
    pub number: usize,
    /// What is alive then, largest first.
    pub alive: Vec<Alive>,
    /// Bytes of what comes and goes, at each instruction.
    #[serde(skip)]
    pub levels: Vec<Level>,
}

impl ActorMemory {
    /// Bytes that suffice for this actor whatever the timing, in its program and in the update.
    pub fn total(&self) -> u64 {
        let Fixed { parameters, masters, states, inputs, .. } = self.fixed;
        let Reserve { messages, reduction, update } = self.reserve;
        let moving = u64::max(messages + reduction + self.peak.bytes, update);
        parameters + masters + states + inputs + moving
    }
}

/// The memory of a plan: of each stage and side, the rank that holds most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// `actors[stage][side as usize]`.
    pub actors: Vec<[ActorMemory; 2]>,
}

impl Memory {
    /// Bytes that suffice for a rank of a stage, whose two actors share a device: the sum of
    /// their peaks, which need not meet; [`Memory::rank_in`] knows when they do.
    pub fn rank(&self, stage: usize) -> u64 {
        self.actors[stage].iter().map(ActorMemory::total).sum()
    }

    /// Bytes that suffice for any rank.
    pub fn largest(&self) -> u64 {
        (0..self.actors.len()).map(|stage| self.rank(stage)).max().unwrap_or(0)
    }

    /// Bytes of a rank of a stage whose actors run as a timeline says.
    pub fn rank_in(&self, plan: &Plan, timeline: &Timeline, stage: usize) -> u64 {
        ranks::rank_in(self, plan, timeline, stage)
    }
}

/// Everything a scan needs to know, for all actors of a plan.
pub struct Scan<'a> {
    sizes: Sizes<'a>,
    fixed: Vec<(Fixed, Reserve)>,
}

impl<'a> Scan<'a> {
    /// Prepares the scan of a plan whose activations are written in `precision`.
    pub fn new(
        graph: &'a ModelGraph,
        plan: &'a Plan,
        precision: DType,
        optimizer: &Optimizer,
    ) -> Self {
        let sizes = Sizes::new(graph, plan, precision);
        let fixed = all_fixed(graph, plan, precision, optimizer);
        Scan { sizes, fixed }
    }

    /// The memory of one actor.
    pub fn actor(&self, me: Address, loads: &Loads<'_>) -> ActorMemory {
        self.follow(me, loads, &mut |_| ())
    }

    /// The same, telling what is alive after each instruction, class by class.
    pub fn follow(
        &self,
        me: Address,
        loads: &Loads<'_>,
        after: &mut dyn FnMut(&Bytes),
    ) -> ActorMemory {
        let walk = Walk::new(&self.sizes, me, loads);
        let plan = self.sizes.plan;
        let (fixed, reserve) = self.fixed[me.index(&plan.mesh)];
        let reserve = Reserve { messages: walk.messages(), ..reserve };
        let (peak, host, levels) = walk.run(after);
        let alive = Walk::new(&self.sizes, me, loads).alive(&peak);
        let number = plan.first_number(me.stage, me.side) + peak.instruction;
        ActorMemory { address: me, fixed, reserve, peak, host, number, alive, levels }
    }

    /// Bytes that stay with an actor, or that others may send it, without its program.
    fn still(&self, me: Address) -> u64 {
        let (fixed, reserve) = self.fixed[me.index(&self.sizes.plan.mesh)];
        fixed.parameters + fixed.masters + fixed.states + fixed.inputs + reserve.reduction
    }

    /// Bytes of all actors together, each at its peak under balanced loads: what one machine needs
    /// that runs all of them.
    pub fn everywhere(&self) -> u64 {
        let mesh = &self.sizes.plan.mesh;
        let still = Address::all(mesh).into_iter().map(|address| self.still(address));
        let moving = |stage, side| {
            let first = Address { replica: 0, stage, rank: 0, side };
            let actor = self.actor(first, &Loads::Balanced);
            actor.peak.bytes + actor.reserve.messages
        };
        let stages = 0..mesh.pp;
        let both = stages.map(|stage| moving(stage, Side::Stage) + moving(stage, Side::Experts));
        still.sum::<u64>() + both.sum::<u64>() * mesh.data_ranks() as u64
    }

    /// Of each stage and side, the rank that holds most.
    pub fn memory(&self, loads: &Loads<'_>) -> Memory {
        let Mesh { pp, ep, dp, .. } = self.sizes.plan.mesh;
        let fullest = |stage: usize, side: Side| {
            let ranks = (0..dp).flat_map(|replica| (0..ep).map(move |rank| (replica, rank)));
            let addresses = ranks.map(|(replica, rank)| Address { replica, stage, rank, side });
            if let (Loads::Measured(_), Side::Experts) = (loads, side) {
                let all = addresses.map(|address| self.actor(address, loads));
                return all.reduce(|most, it| if it.total() > most.total() { it } else { most });
            }
            let most = addresses
                .reduce(|most, it| if self.still(it) > self.still(most) { it } else { most });
            most.map(|address| self.actor(address, loads))
        };
        let both = |stage| {
            [Side::Stage, Side::Experts].map(|side| fullest(stage, side).expect("a mesh has ranks"))
        };
        Memory { actors: (0..pp).map(both).collect() }
    }
}

/// The memory of a plan.
///
/// Balanced loads give every expert group its share of the rows, worst ones as many as can come.
pub fn scan(
    graph: &ModelGraph,
    plan: &Plan,
    precision: DType,
    optimizer: &Optimizer,
    loads: &Loads<'_>,
) -> Memory {
    Scan::new(graph, plan, precision, optimizer).memory(loads)
}

#[cfg(test)]
mod tests;
