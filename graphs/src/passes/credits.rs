//! Gives each channel as many credits as the plan needs to run, and one more.
//!
//! The programs are run on paper, without times, from one credit a channel. When nothing moves,
//! the actors that wait for each other in a ring are found, and of the channels in the ring whose
//! sender lacks a credit the first gets one more. More credits never stop what ran before, so one
//! run finds enough of them. The one on top lets a sender run ahead of its receiver by a token,
//! so that sending costs no waiting where the receiver is merely late.

use crate::plan::{ChannelId, Instruction, Plan, Side};

/// Credits beyond the fewest that suffice.
pub const SLACK: usize = 1;

/// Sets the credits of all channels.
///
/// A plan that no credits can help keeps the ones it has by then; the proof will tell its story.
pub fn set(plan: &mut Plan) {
    let mut run = Run::new(plan);
    while let Some(channel) = run.until_stuck(plan) {
        plan.channels[channel].credits += 1;
    }
    for channel in &mut plan.channels {
        channel.credits += SLACK;
    }
}

/// Index of an actor among all sides of all stages.
fn lane((stage, side): (usize, Side)) -> usize {
    2 * stage + side as usize
}

/// How far each actor has come.
struct Run {
    /// Next instruction of each actor.
    at: Vec<usize>,
    /// Microbatches of the tokens sent through each channel, oldest first.
    sent: Vec<Vec<usize>>,
    /// Whether the token of a microbatch has been sent, for each channel.
    arrived: Vec<Vec<bool>>,
    /// Whether the token of a microbatch has been used, for each channel.
    used: Vec<Vec<bool>>,
}

impl Run {
    fn new(plan: &Plan) -> Self {
        let all = plan.programs.iter().flatten().flat_map(|program| &program.instructions);
        let numbers = all.map(|instruction| match *instruction {
            Instruction::Send { microbatch, .. } => microbatch + 1,
            _ => 0,
        });
        let microbatches = numbers.max().unwrap_or(0);
        let tokens = vec![vec![false; microbatches]; plan.channels.len()];
        Run {
            at: vec![0; 2 * plan.programs.len()],
            sent: vec![Vec::new(); plan.channels.len()],
            arrived: tokens.clone(),
            used: tokens,
        }
    }

    /// Runs until all is done, or nothing moves; then returns the channel that needs a credit.
    fn until_stuck(&mut self, plan: &Plan) -> Option<ChannelId> {
        let lanes = self.at.len();
        while (0..lanes).fold(false, |moved, lane| self.advance(plan, lane) | moved) {}
        self.starved(plan)
    }

    fn instructions<'a>(&self, plan: &'a Plan, lane: usize) -> &'a [Instruction] {
        &plan.programs[lane / 2][lane % 2].instructions
    }

    /// Runs one actor as far as it comes; says whether it came anywhere.
    fn advance(&mut self, plan: &Plan, lane: usize) -> bool {
        let instructions = self.instructions(plan, lane);
        let start = self.at[lane];
        while let Some(&instruction) = instructions.get(self.at[lane]) {
            if !self.ready(plan, instruction) {
                break;
            }
            if let Instruction::Send { channel, microbatch } = instruction {
                self.sent[channel].push(microbatch);
                self.arrived[channel][microbatch] = true;
            }
            let before = self.at[lane].checked_sub(1).map(|before| instructions[before]);
            if let Some(Instruction::Receive { channel, microbatch }) = before {
                self.used[channel][microbatch] = true;
            }
            self.at[lane] += 1;
        }
        self.at[lane] > start
    }

    fn ready(&self, plan: &Plan, instruction: Instruction) -> bool {
        match instruction {
            Instruction::Receive { channel, microbatch } => self.arrived[channel][microbatch],
            Instruction::Send { channel, .. } => {
                let token = self.sent[channel].len();
                let freed = token.checked_sub(plan.channels[channel].credits);
                freed.is_none_or(|freed| {
                    let microbatch = self.sent[channel].get(freed);
                    microbatch.is_some_and(|&microbatch| self.used[channel][microbatch])
                })
            }
            _ => true,
        }
    }

    /// The actor that one waits for, and the channel if it is for a credit.
    fn waits(&self, plan: &Plan, waiting: usize) -> Option<(usize, Option<ChannelId>)> {
        match *self.instructions(plan, waiting).get(self.at[waiting])? {
            Instruction::Receive { channel, .. } => Some((lane(plan.channels[channel].from), None)),
            Instruction::Send { channel, .. } => {
                Some((lane(plan.channels[channel].to), Some(channel)))
            }
            _ => None,
        }
    }

    /// Of a ring of actors that wait for each other, the first channel that lacks a credit.
    fn starved(&self, plan: &Plan) -> Option<ChannelId> {
        let mut at = (0..self.at.len()).find(|&lane| self.waits(plan, lane).is_some())?;
        for _ in 0..self.at.len() {
            at = self.waits(plan, at)?.0;
        }
        let mut ring = Vec::new();
        for _ in 0..self.at.len() {
            let (next, channel) = self.waits(plan, at)?;
            ring.extend(channel);
            at = next;
        }
        ring.into_iter().min()
    }
}

#[cfg(test)]
mod tests;
