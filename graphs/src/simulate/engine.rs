//! The event loop: actors that do their programs, devices and links that they share.
//!
//! Actors go on in the order of their times, so whoever asks first for a device, a core or a link
//! gets it first. An actor that cannot go on is parked; who sends what it waits for wakes it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    ops::Range,
};

use crate::{
    plan::{ChannelId, Instruction, Plan, Side},
    price::Prices,
    simulate::{
        Conditions,
        actor::{self, Actor, NONE, Reason, actors},
        link::Link,
        post::{Post, Sent, Taken},
        record::{self, Record, message, work},
    },
    timeline::{Cause, Kind, Wait},
};

mod links;

/// Something that one event uses at a time.
#[derive(Clone, Copy)]
struct Shared {
    free: f64,
    last: u32,
}

const FREE: Shared = Shared { free: 0.0, last: NONE };

/// A running simulation.
pub(super) struct Engine<'a> {
    plan: &'a Plan,
    prices: &'a Prices,
    conditions: &'a Conditions,
    slowness: Vec<f64>,
    /// Instructions of one copy.
    pub events: usize,
    actors: Vec<Actor>,
    /// Actors that can go on, earliest first; times are not negative, so their bits order them.
    queue: BinaryHeap<Reverse<(u64, u32)>>,
    /// A device for each rank, or the cores that all share.
    devices: Vec<Shared>,
    /// The links of each rank: within the node, and the fabric.
    links: Vec<[Link; 2]>,
    /// The buses of each rank: to the host, and back.
    buses: Vec<[f64; 2]>,
    /// When copies that nobody has waited for yet are done: by actor, chunk, visit and microbatch.
    copies: BTreeMap<(usize, usize, usize, usize), f64>,
    post: Post,
    /// When the last gradients that left early are where they belong, by stage, and the event that
    /// sent them.
    reduced: Vec<(f64, u32)>,
    /// For each event the one that let it start.
    pub before: Vec<u32>,
    /// The ranks of the first copy.
    pub ranks: Vec<Record>,
}

enum Flow {
    /// The instruction is done.
    On,
    /// It can be done at the actor's new time.
    Later,
    /// It waits for another actor.
    Parked,
}

impl<'a> Engine<'a> {
    pub fn new(
        plan: &'a Plan,
        prices: &'a Prices,
        conditions: &'a Conditions,
        keeps_spans: bool,
    ) -> Self {
        let copies = if prices.cores.is_some() { plan.mesh.data_ranks() } else { 1 };
        let stages = plan.programs.len();
        let count = |stage: usize| -> usize {
            plan.programs[stage].iter().map(|program| program.instructions.len()).sum()
        };
        let events: usize = (0..stages).map(count).sum();
        let actors = actors(plan, copies);
        let queue = (0..actors.len() as u32).map(|actor| Reverse((0, actor))).collect();
        Engine {
            plan,
            prices,
            conditions,
            slowness: (0..stages).map(|stage| conditions.slowness(stage)).collect(),
            events,
            actors,
            queue,
            devices: vec![FREE; prices.cores.unwrap_or(stages)],
            links: vec![[Link::FREE; 2]; copies * stages],
            buses: vec![[0.0; 2]; copies * stages],
            copies: BTreeMap::new(),
            post: Post::new(plan, copies),
            reduced: vec![(0.0, NONE); stages],
            before: vec![NONE; events * copies],
            ranks: (0..stages).map(|s| Record::new(keeps_spans.then(|| count(s)))).collect(),
        }
    }

    /// Runs to the end; says whether all programs were done.
    pub fn run(&mut self) -> bool {
        while let Some(Reverse((_, actor))) = self.queue.pop() {
            self.go_on(actor as usize);
        }
        self.send_last_sums();
        self.actors.iter().all(|actor| actor.at == self.program(actor).len())
    }

    /// When the last actor of each stage is done, or its last gradients have arrived, and the event
    /// that came last.
    pub fn ends(&self) -> Vec<(f64, u32)> {
        let mut ends = self.reduced.clone();
        for actor in &self.actors {
            if actor.time > ends[actor.stage].0 {
                ends[actor.stage] = (actor.time, actor.after);
            }
        }
        ends
    }

    fn program(&self, actor: &Actor) -> &'a [Instruction] {
        &self.plan.programs[actor.stage][actor.side as usize].instructions
    }

    /// Lets an actor do instructions until it waits or another one's time comes first.
    fn go_on(&mut self, index: usize) {
        let program = self.program(&self.actors[index]);
        while let Some(&instruction) = program.get(self.actors[index].at) {
            let flow = match instruction {
                Instruction::Receive { channel, microbatch } => {
                    self.receive(index, channel, microbatch)
                }
                Instruction::Send { channel, microbatch } => self.send(index, channel, microbatch),
                Instruction::Copy { .. } => self.copy(index, instruction),
                Instruction::Reduce { .. } => self.reduce(index, instruction),
                compute => self.compute(index, compute),
            };
            match flow {
                Flow::On => self.actors[index].at += 1,
                Flow::Later => {}
                Flow::Parked => {
                    self.actors[index].is_parked = true;
                    return;
                }
            }
            let key = (self.actors[index].time.to_bits(), index as u32);
            if self.queue.peek().is_some_and(|Reverse(first)| *first < key) {
                self.queue.push(Reverse(key));
                return;
            }
        }
    }

    fn compute(&mut self, index: usize, instruction: Instruction) -> Flow {
        let Actor { copy, stage, side, first, at, .. } = self.actors[index];
        let Some(task) = work(side, instruction) else { return Flow::On };
        let parts = self.prices.parts(side, task.chunk, task.segment);
        let seconds = match instruction {
            Instruction::Forward { .. } => parts.forward,
            Instruction::BackwardInput { .. } => parts.input,
            Instruction::Restore { .. } => parts.restore,
            _ => parts.weight,
        };
        let event = copy * self.events + first + at;
        let noise = self.conditions.noise(event as u64);
        let (start, end) = self.occupy(index, event as u32, seconds * self.slowness[stage] * noise);
        if copy == 0 {
            let reason = self.actors[index].reason;
            let mut record = std::mem::replace(&mut self.ranks[stage], Record::new(None));
            record.compute(first + at, task, (start, end), |since| self.cause(reason, since));
            self.ranks[stage] = record;
        }
        self.actors[index].reason = None;
        Flow::On
    }

    /// Begins a copy on the bus of the rank, or waits for one.
    fn copy(&mut self, index: usize, instruction: Instruction) -> Flow {
        let Instruction::Copy { chunk, segment, microbatch, .. } = instruction else {
            return Flow::On;
        };
        let Actor { copy, stage, side, first, at, time, .. } = self.actors[index];
        let key = (index, chunk, segment, microbatch);
        let Some(task) = record::copy(instruction) else {
            let done = self.copies.remove(&key).unwrap_or(0.0);
            if done > time {
                self.actors[index].time = done;
                self.actors[index].reason = Some(Reason::Bus);
            }
            return Flow::On;
        };
        let bus = &mut self.buses[copy * self.plan.programs.len() + stage];
        let bus = &mut bus[usize::from(task.kind == Kind::Fetch)];
        let start = bus.max(time);
        *bus = start + self.prices.copies[chunk][side as usize][segment];
        self.copies.insert(key, *bus);
        if copy == 0 {
            self.ranks[stage].copy(first + at, task, (start, *bus));
        }
        Flow::On
    }

    /// Has an actor compute on its device, or on the core that is free first.
    fn occupy(&mut self, index: usize, event: u32, seconds: f64) -> (f64, f64) {
        let device = match self.prices.cores {
            None => self.actors[index].stage,
            Some(_) => self.earliest(),
        };
        let actor = &mut self.actors[index];
        let device = &mut self.devices[device];
        if device.free > actor.time {
            self.before[event as usize] = device.last;
            actor.time = device.free;
            actor.reason = self.prices.cores.map(|_| Reason::Core).or(actor.reason);
        } else {
            self.before[event as usize] = actor.after;
        }
        let start = actor.time;
        actor.time += seconds;
        actor.after = event;
        *device = Shared { free: actor.time, last: event };
        (start, actor.time)
    }

    fn earliest(&self) -> usize {
        let devices = self.devices.iter().enumerate();
        let first = devices.min_by(|(_, a), (_, b)| a.free.total_cmp(&b.free));
        first.map_or(0, |(device, _)| device)
    }

    fn receive(&mut self, index: usize, channel: ChannelId, microbatch: usize) -> Flow {
        let Actor { copy, time, first, at, .. } = self.actors[index];
        let peers = self.peers(channel, copy);
        let Some(last) = self.post.last(channel, peers.clone(), microbatch) else {
            return Flow::Parked;
        };
        if last.arrival > time {
            let actor = &mut self.actors[index];
            (actor.time, actor.after) = (last.arrival, last.event);
            actor.reason = Some(Reason::Message(last));
            return Flow::Later;
        }
        let receiver = self.prices.ways[channel].receiver;
        if receiver > 0.0 {
            let event = copy * self.events + first + at;
            self.occupy(index, event as u32, receiver);
        }
        let Actor { time: at, after, .. } = self.actors[index];
        self.post.take(channel, copy, Taken { at, after });
        let (stage, side) = self.plan.channels[channel].from;
        for peer in peers {
            let sends = |next| matches!(next, Instruction::Send { channel: c, .. } if c == channel);
            self.wake(peer, stage, side, at, sends);
        }
        Flow::On
    }

    fn send(&mut self, index: usize, channel: ChannelId, microbatch: usize) -> Flow {
        let Actor { copy, time, first, at, .. } = self.actors[index];
        let peers = self.peers(channel, copy);
        let credits = self.plan.channels[channel].credits;
        let Ok(buffer) = self.post.buffer(channel, copy, peers.clone(), credits) else {
            return Flow::Parked;
        };
        if let Some(buffer) = buffer.filter(|buffer| buffer.at > time) {
            let actor = &mut self.actors[index];
            (actor.time, actor.after) = (buffer.at, buffer.after);
            actor.reason = Some(Reason::Buffer(buffer));
            return Flow::Later;
        }
        let way = self.prices.ways[channel];
        let event = copy * self.events + first + at;
        if way.sender > 0.0 {
            self.occupy(index, event as u32, way.sender);
        }
        let ready = self.actors[index].time;
        let start = self.transfer(index, event as u32, way.occupies);
        let sent = Sent { ready, start, arrival: start + way.seconds(), event: event as u32 };
        self.post.send(channel, copy, microbatch, sent);
        if copy == 0 {
            self.note_send(index, channel, microbatch, sent);
        }
        let (stage, side) = self.plan.channels[channel].to;
        for peer in peers {
            let wanted = Instruction::Receive { channel, microbatch };
            self.wake(peer, stage, side, ready, |it| it == wanted);
        }
        Flow::On
    }

    fn note_send(&mut self, index: usize, channel: ChannelId, microbatch: usize, sent: Sent) {
        let Actor { stage, first, at, reason, .. } = self.actors[index];
        let [inside, fabric] = self.prices.ways[channel].occupies;
        let busy = inside.max(fabric);
        let end = if busy > 0.0 { sent.start + busy } else { sent.arrival };
        let wait = match reason {
            Some(Reason::Buffer(taken)) => {
                let since = self.ranks[stage].free.min(taken.at);
                Some(Wait { since, cause: Cause::Credit, on: self.named(taken.after) })
            }
            _ => None,
        };
        let task = message(self.plan.channels[channel].cargo, microbatch);
        self.ranks[stage].send(first + at, task, (sent.start, end), wait);
    }

    /// Wakes an actor that is parked at an instruction of some kind.
    fn wake(
        &mut self,
        copy: usize,
        stage: usize,
        side: Side,
        now: f64,
        wanted: impl FnOnce(Instruction) -> bool,
    ) {
        let index = (copy * self.plan.programs.len() + stage) * 2 + side as usize;
        let actor = &self.actors[index];
        if !actor.is_parked || !self.program(actor).get(actor.at).is_some_and(|&it| wanted(it)) {
            return;
        }
        let time = actor.time.max(now);
        self.actors[index].is_parked = false;
        self.queue.push(Reverse((time.to_bits(), index as u32)));
    }

    /// Copies at the other end of a channel.
    fn peers(&self, channel: ChannelId, copy: usize) -> Range<usize> {
        let ep = self.plan.mesh.ep;
        if self.prices.cores.is_some() && self.plan.channels[channel].cargo.fans_out() {
            let replica = copy / ep * ep;
            replica..replica + ep
        } else {
            copy..copy + 1
        }
    }

    /// Why a device was idle until now, and for which span.
    fn cause(&self, reason: Option<Reason>, since: f64) -> (Cause, Option<(usize, usize)>) {
        let (cause, event) = actor::cause(reason, since);
        (cause, self.named(event))
    }

    /// Rank and number of an event, whichever copy it was of.
    fn named(&self, event: u32) -> Option<(usize, usize)> {
        let id = (event != NONE).then(|| event as usize % self.events)?;
        let own = &self.actors[..2 * self.plan.programs.len()];
        let index = own.partition_point(|actor| actor.first <= id).checked_sub(1)?;
        Some((own[index].stage, id))
    }
}
