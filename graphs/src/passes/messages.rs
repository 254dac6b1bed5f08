//! Writes out each step as the segments and visits of its chunks, with sends and receives.
//!
//! The experts' program is the projection of its stage's order on the visits, so the two sides
//! meet in the same order without asking each other.
//!
//! What was not kept as it was made is restored right before the wait for the gradient that comes
//! next: the latest moment that costs no time, where that gradient is still under way.

use crate::{
    action::{Action, Work},
    bare::Step,
    passes::copies::{Move, Moves},
    plan::{Cargo, Chunk, Instruction, Program, Side},
    route::Routes,
};

mod pair;

/// The programs of a stage and of the experts beside it, for the steps of the stage.
pub fn programs(
    steps: &[Step],
    moves: &[Moves],
    chunks: &[Chunk],
    routes: &Routes,
) -> [Program; 2] {
    [Side::Stage, Side::Experts].map(|side| {
        let mut writer = Writer { side, chunks, routes, program: Program::default() };
        for (at, step) in steps.iter().enumerate() {
            let none = Moves::default();
            let Moves { before, after } = moves.get(at).unwrap_or(&none);
            before.iter().for_each(|it| writer.copy(*it));
            writer.step(*step);
            after.iter().for_each(|it| writer.copy(*it));
        }
        writer.program
    })
}

struct Writer<'a> {
    side: Side,
    chunks: &'a [Chunk],
    routes: &'a Routes,
    program: Program,
}

impl Writer<'_> {
    fn write(&mut self, instruction: Instruction) {
        self.program.instructions.push(instruction);
    }

    /// Sends, unless the cargo stays on its stage.
    fn send(&mut self, cargo: Cargo, microbatch: usize) {
        if let Some(channel) = self.routes.get(cargo) {
            self.write(Instruction::Send { channel, microbatch });
        }
    }

    /// Receives, unless the cargo stays on its stage.
    fn receive(&mut self, cargo: Cargo, microbatch: usize) {
        if let Some(channel) = self.routes.get(cargo) {
            self.write(Instruction::Receive { channel, microbatch });
        }
    }

    fn visits(&self, chunk: usize) -> usize {
        self.chunks[chunk].visits.len()
    }

    /// Segments of a chunk, or visits on the experts' side.
    fn segments(&self, chunk: usize) -> usize {
        match self.side {
            Side::Stage => self.visits(chunk) + 1,
            Side::Experts => self.visits(chunk),
        }
    }

    fn copy(&mut self, Move { step, chunk, microbatch }: Move) {
        let homes = if self.side == Side::Stage { 1 } else { self.visits(chunk) };
        for segment in 0..homes {
            self.write(Instruction::Copy { step, chunk, segment, microbatch });
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Work(action) => self.action(action),
            Step::Pair(forward, backward) => self.pair(forward, backward),
            Step::Send(_) | Step::Receive(_) => unreachable!("orders name compute only"),
        }
    }

    fn action(&mut self, Action { chunk, work, microbatch }: Action) {
        let segments = self.segments(chunk);
        match work {
            Work::Forward => (0..segments).for_each(|it| self.forward(chunk, it, microbatch)),
            Work::BackwardInput => {
                self.inputs(chunk, microbatch);
                self.leave(chunk, microbatch);
            }
            Work::BackwardWeight => self.weights(chunk, microbatch),
            Work::Backward => {
                self.inputs(chunk, microbatch);
                self.weights(chunk, microbatch);
                self.leave(chunk, microbatch);
            }
        }
    }

    fn inputs(&mut self, chunk: usize, microbatch: usize) {
        let segments = self.segments(chunk);
        (0..segments).rev().for_each(|it| self.input(chunk, it, microbatch));
    }

    fn weights(&mut self, chunk: usize, microbatch: usize) {
        for segment in (0..self.segments(chunk)).rev() {
            self.write(Instruction::BackwardWeight { chunk, segment, microbatch });
        }
    }

    /// Sends the gradient of a chunk's input to the stage before.
    fn leave(&mut self, chunk: usize, microbatch: usize) {
        if self.side == Side::Stage {
            self.send(Cargo::Gradients { chunk }, microbatch);
        }
    }

    /// `F` of a segment, from the arrival of what it reads to the sending of what it makes.
    fn forward(&mut self, chunk: usize, segment: usize, microbatch: usize) {
        let (visit, forward) = (segment, Instruction::Forward { chunk, segment, microbatch });
        if self.side == Side::Experts {
            self.receive(Cargo::Dispatch { chunk, visit }, microbatch);
            self.write(forward);
            return self.send(Cargo::Combine { chunk, visit }, microbatch);
        }
        match segment.checked_sub(1) {
            Some(visit) => self.receive(Cargo::Combine { chunk, visit }, microbatch),
            None => {
                if let Some(channel) = self.routes.input(chunk) {
                    self.write(Instruction::Receive { channel, microbatch });
                }
            }
        }
        self.write(forward);
        match segment < self.visits(chunk) {
            true => self.send(Cargo::Dispatch { chunk, visit }, microbatch),
            false => self.send(Cargo::Activations { chunk }, microbatch),
        }
    }

    /// `I` of a segment, from the restoring of what it reads to the sending of what it makes for
    /// the experts, or of what the experts make.
    fn input(&mut self, chunk: usize, segment: usize, microbatch: usize) {
        let (visit, input) = (segment, Instruction::BackwardInput { chunk, segment, microbatch });
        if self.chunks[chunk].restores(self.side, segment) {
            self.write(Instruction::Restore { chunk, segment, microbatch });
        }
        if self.side == Side::Experts {
            self.receive(Cargo::CombineGradients { chunk, visit }, microbatch);
            self.write(input);
            return self.send(Cargo::DispatchGradients { chunk, visit }, microbatch);
        }
        match segment < self.visits(chunk) {
            true => self.receive(Cargo::DispatchGradients { chunk, visit }, microbatch),
            false => {
                if let Some(channel) = self.routes.output_gradient(chunk) {
                    self.write(Instruction::Receive { channel, microbatch });
                }
            }
        }
        self.write(input);
        if let Some(visit) = segment.checked_sub(1) {
            self.send(Cargo::CombineGradients { chunk, visit }, microbatch);
        }
    }
}

#[cfg(test)]
mod tests;
