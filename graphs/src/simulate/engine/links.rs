//! What goes over the links of a rank.

use super::{Engine, Flow};
use crate::{
    plan::Instruction,
    simulate::{actor::Actor, link::Gone, record},
};

impl Engine<'_> {
    /// Takes the links that a message needs, when all are free; returns when that is.
    pub(super) fn transfer(&mut self, index: usize, event: u32, occupies: [f64; 2]) -> f64 {
        let Actor { copy, stage, time, after, .. } = self.actors[index];
        let rank = copy * self.plan.programs.len() + stage;
        let links = &self.links[rank];
        let (mut start, mut before) = (time, after);
        for (link, _) in links.iter().zip(occupies).filter(|(_, seconds)| *seconds > 0.0) {
            if link.free > start {
                (start, before) = (link.free, link.last);
            }
        }
        for (which, seconds) in occupies.into_iter().enumerate() {
            if seconds > 0.0 {
                let gone = self.links[rank][which].send(start, seconds, event);
                self.note_gone(rank, gone);
            }
        }
        if before != event {
            self.before[event as usize] = before;
        }
        start
    }

    /// Sends off gradients that are complete; nobody in the program waits for them.
    pub(super) fn reduce(&mut self, index: usize, instruction: Instruction) -> Flow {
        let Instruction::Reduce { chunk, segment } = instruction else { return Flow::On };
        let Actor { copy, stage, side, first, at, .. } = self.actors[index];
        let way = self.prices.reductions[chunk][side as usize][segment];
        let event = (copy * self.events + first + at) as u32;
        if way.sender > 0.0 {
            self.occupy(index, event, way.sender);
        } else {
            self.before[event as usize] = self.actors[index].after;
        }
        let Actor { time, .. } = self.actors[index];
        let links = &mut self.links[copy * self.plan.programs.len() + stage];
        for (link, seconds) in links.iter_mut().zip(way.occupies) {
            if seconds > 0.0 {
                link.wait(time, seconds + way.latency, event);
            }
        }
        Flow::On
    }

    /// Lets the sums that still wait go, when all programs are done.
    pub(super) fn send_last_sums(&mut self) {
        for rank in 0..self.links.len() {
            for which in 0..self.links[rank].len() {
                let gone = self.links[rank][which].give(f64::INFINITY);
                self.note_gone(rank, gone);
            }
        }
    }

    /// Notes sums that have left over a link of a rank.
    fn note_gone(&mut self, rank: usize, gone: Vec<Gone>) {
        let (copy, stage) = (rank / self.plan.programs.len(), rank % self.plan.programs.len());
        for Gone { event, begin, end } in gone {
            if end > self.reduced[stage].0 {
                self.reduced[stage] = (end, event);
            }
            let id = event as usize % self.events;
            if let Some(task) = self.instruction(id).and_then(record::reduce).filter(|_| copy == 0)
            {
                self.ranks[stage].send(id, task, (begin, end), None);
            }
        }
    }

    /// The instruction of a number.
    fn instruction(&self, id: usize) -> Option<Instruction> {
        let own = &self.actors[..2 * self.plan.programs.len()];
        let index = own.partition_point(|actor| actor.first <= id).checked_sub(1)?;
        self.program(&own[index]).get(id - own[index].first).copied()
    }
}
