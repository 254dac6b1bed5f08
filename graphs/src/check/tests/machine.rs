//! A machine that runs a plan with numbers in place of tensors: what the checks are held against.
//!
//! It shares no code with the checks. Each number is a hash of what went into it, so two runs end
//! alike only if every weight gradient was added up from the same tensors in the same order.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::plan::{Cargo, ChannelId, Instruction, Plan, Side};

/// How a run ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All is done: losses and weight gradients.
    Done(BTreeMap<String, u64>),
    /// Nothing moves.
    Stuck,
    /// An actor lacks what its instruction works on.
    Lacks,
}

type Actor = (usize, Side);
type Message = (ChannelId, usize);

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A thing that an actor holds: what was made or has arrived, of which microbatch.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Thing {
    Arrived(Cargo, usize),
    Forward(usize, usize, usize),
    Input(usize, usize, usize),
}

#[derive(Default)]
struct State {
    at: usize,
    things: BTreeMap<Thing, u64>,
    /// A message whose buffer is free after the next instruction.
    taken: Option<Message>,
    /// Whether the receive at hand has been issued.
    issued: bool,
}

pub struct Machine<'a> {
    plan: &'a Plan,
    actors: BTreeMap<Actor, State>,
    under_way: BTreeMap<Message, u64>,
    free: Vec<usize>,
    sums: BTreeMap<String, u64>,
    /// Messages that each actor has issued on each communicator and that are not through.
    queues: BTreeMap<(Actor, (usize, usize)), VecDeque<Message>>,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan) -> End {
    let actors = (0..plan.programs.len()).flat_map(|stage| {
        [Side::Stage, Side::Experts].map(|side| ((stage, side), State::default()))
    });
    let free = plan.channels.iter().map(|channel| channel.credits).collect();
    let mut machine = Machine {
        plan,
        actors: actors.collect(),
        under_way: BTreeMap::new(),
        free,
        sums: BTreeMap::new(),
        queues: BTreeMap::new(),
    };
    machine.run()
}

impl Machine<'_> {
    fn run(&mut self) -> End {
        let all: Vec<Actor> = self.actors.keys().copied().collect();
        loop {
            let (mut moved, mut left) = (false, false);
            for &actor in &all {
                while let Some(instruction) = self.next(actor) {
                    match self.step(actor, instruction) {
                        None => return End::Lacks,
                        Some(false) => break,
                        Some(true) => moved = true,
                    }
                }
                left |= self.next(actor).is_some();
            }
            match (left, moved) {
                (false, _) => return End::Done(std::mem::take(&mut self.sums)),
                (true, false) => return End::Stuck,
                (true, true) => {}
            }
        }
    }

    fn next(&self, actor: Actor) -> Option<Instruction> {
        let program = &self.plan.programs[actor.0][actor.1 as usize];
        program.instructions.get(self.actors[&actor].at).copied()
    }

    /// Tries an instruction: whether it could run, none if its actor lacks what it works on.
    fn step(&mut self, actor: Actor, instruction: Instruction) -> Option<bool> {
        let ran = match instruction {
            Instruction::Receive { channel, microbatch } => {
                self.receive(actor, channel, microbatch)
            }
            Instruction::Send { channel, microbatch } => self.send(actor, channel, microbatch)?,
            compute => self.compute(actor, compute).map(|()| true)?,
        };
        if ran {
            let state = self.actors.get_mut(&actor).unwrap();
            state.at += 1;
            let taken = state.taken.take();
            if let Instruction::Receive { channel, microbatch } = instruction {
                state.taken = Some((channel, microbatch));
            }
            if let Some((channel, _)) = taken {
                self.free[channel] += 1;
            }
        }
        Some(ran)
    }

    fn receive(&mut self, actor: Actor, channel: ChannelId, microbatch: usize) -> bool {
        let (message, it) = ((channel, microbatch), &self.plan.channels[channel]);
        if let Some(shared) = self.plan.communicators.of(it) {
            let ends = [(it.from, shared), (actor, shared)];
            if !std::mem::replace(&mut self.actors.get_mut(&actor).unwrap().issued, true) {
                self.queues.entry(ends[1]).or_default().push_back(message);
            }
            let heads = ends.map(|end| self.queues.get(&end).and_then(|queue| queue.front()));
            if heads != [Some(&message); 2] {
                return false;
            }
            for end in ends {
                self.queues.get_mut(&end).unwrap().pop_front();
            }
            self.actors.get_mut(&actor).unwrap().issued = false;
        }
        let Some(value) = self.under_way.remove(&message) else { return false };
        let thing = Thing::Arrived(it.cargo, microbatch);
        self.actors.get_mut(&actor).unwrap().things.insert(thing, value);
        true
    }

    fn send(&mut self, actor: Actor, channel: ChannelId, microbatch: usize) -> Option<bool> {
        let it = &self.plan.channels[channel];
        let value = self.made(actor, it.cargo, microbatch)?;
        if self.free[channel] == 0 {
            return Some(false);
        }
        self.free[channel] -= 1;
        self.under_way.insert((channel, microbatch), value);
        if let Some(shared) = self.plan.communicators.of(it) {
            self.queues.entry((actor, shared)).or_default().push_back((channel, microbatch));
        }
        Some(true)
    }

    fn has(&self, actor: Actor, thing: Thing) -> Option<u64> {
        self.actors[&actor].things.get(&thing).copied()
    }

    /// A cargo that the actor has made itself.
    fn made(&self, actor: Actor, cargo: Cargo, microbatch: usize) -> Option<u64> {
        let visits = |chunk: usize| self.plan.chunks[chunk].visits.len();
        let thing = match cargo {
            Cargo::Activations { chunk } => Thing::Forward(chunk, visits(chunk), microbatch),
            Cargo::Gradients { chunk } => Thing::Input(chunk, 0, microbatch),
            Cargo::Dispatch { chunk, visit } | Cargo::Combine { chunk, visit } => {
                Thing::Forward(chunk, visit, microbatch)
            }
            Cargo::CombineGradients { chunk, visit } => Thing::Input(chunk, visit + 1, microbatch),
            Cargo::DispatchGradients { chunk, visit } => Thing::Input(chunk, visit, microbatch),
        };
        self.has(actor, thing)
    }

    /// A cargo that has arrived, or was made by the same actor for itself.
    fn input(&self, actor: Actor, cargo: Cargo, microbatch: usize) -> Option<u64> {
        match self.plan.channels.iter().any(|channel| channel.cargo == cargo) {
            true => self.has(actor, Thing::Arrived(cargo, microbatch)),
            false => self.made(actor, cargo, microbatch),
        }
    }

    fn compute(&mut self, actor: Actor, instruction: Instruction) -> Option<()> {
        let last = |chunk: usize| self.plan.chunks[chunk].visits.len();
        let experts = actor.1 == Side::Experts;
        let (thing, value) = match instruction {
            Instruction::Forward { chunk, segment, microbatch: mb } => {
                let cargo = match segment {
                    visit if experts => Some(Cargo::Dispatch { chunk, visit }),
                    0 => chunk.checked_sub(1).map(|chunk| Cargo::Activations { chunk }),
                    _ => Some(Cargo::Combine { chunk, visit: segment - 1 }),
                };
                let input = cargo.map_or(Some(0), |cargo| self.input(actor, cargo, mb))?;
                (Thing::Forward(chunk, segment, mb), hash((instruction, actor, input)))
            }
            Instruction::BackwardInput { chunk, segment, microbatch: mb } => {
                let cargo = match segment {
                    visit if experts => Some(Cargo::CombineGradients { chunk, visit }),
                    visit if visit < last(chunk) => Some(Cargo::DispatchGradients { chunk, visit }),
                    _ if chunk + 1 == self.plan.chunks.len() => None,
                    _ => Some(Cargo::Gradients { chunk: chunk + 1 }),
                };
                let input = cargo.map_or(Some(0), |cargo| self.input(actor, cargo, mb))?;
                let forward = self.has(actor, Thing::Forward(chunk, segment, mb))?;
                (Thing::Input(chunk, segment, mb), hash((instruction, actor, input, forward)))
            }
            Instruction::BackwardWeight { chunk, segment, microbatch: mb } => {
                let gradient = self.has(actor, Thing::Input(chunk, segment, mb))?;
                let sum = self.sums.entry(format!("{actor:?} {chunk} {segment}")).or_default();
                *sum = hash((*sum, gradient));
                return Some(());
            }
            Instruction::Receive { .. } | Instruction::Send { .. } => return Some(()),
            Instruction::Restore { .. } | Instruction::Copy { .. } | Instruction::Reduce { .. } => {
                return Some(());
            }
        };
        self.actors.get_mut(&actor)?.things.insert(thing, value);
        Some(())
    }
}
