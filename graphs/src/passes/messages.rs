//! Writes out each action as the segments and visits of its chunk, with sends and receives.
//!
//! The experts' program is the projection of its stage's order on the visits, so the two sides
//! meet in the same order without asking each other.

use crate::{
    action::{Action, Work},
    plan::{Cargo, Chunk, Instruction, Program},
    route::Routes,
};

/// The programs of a stage and of the experts beside it, for the order of the stage.
pub fn programs(order: &[Action], chunks: &[Chunk], routes: &Routes) -> [Program; 2] {
    let mut writer = Writer { chunks, routes, program: Program::default() };
    order.iter().for_each(|&action| writer.stage(action));
    let stage = std::mem::take(&mut writer.program);
    order.iter().for_each(|&action| writer.experts(action));
    [stage, writer.program]
}

struct Writer<'a> {
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

    fn stage(&mut self, Action { chunk, work, microbatch }: Action) {
        match work {
            Work::Forward => self.stage_forward(chunk, microbatch),
            Work::BackwardInput => {
                self.stage_input(chunk, microbatch);
                self.send(Cargo::Gradients { chunk }, microbatch);
            }
            Work::BackwardWeight => self.weights(chunk, self.visits(chunk) + 1, microbatch),
            Work::Backward => {
                self.stage_input(chunk, microbatch);
                self.weights(chunk, self.visits(chunk) + 1, microbatch);
                self.send(Cargo::Gradients { chunk }, microbatch);
            }
        }
    }

    fn stage_forward(&mut self, chunk: usize, microbatch: usize) {
        if let Some(channel) = self.routes.input(chunk) {
            self.write(Instruction::Receive { channel, microbatch });
        }
        for segment in 0..=self.visits(chunk) {
            if let Some(visit) = segment.checked_sub(1) {
                self.receive(Cargo::Combine { chunk, visit }, microbatch);
            }
            self.write(Instruction::Forward { chunk, segment, microbatch });
            self.send(Cargo::Dispatch { chunk, visit: segment }, microbatch);
        }
        self.send(Cargo::Activations { chunk }, microbatch);
    }

    fn stage_input(&mut self, chunk: usize, microbatch: usize) {
        if let Some(channel) = self.routes.output_gradient(chunk) {
            self.write(Instruction::Receive { channel, microbatch });
        }
        for segment in (0..=self.visits(chunk)).rev() {
            self.receive(Cargo::DispatchGradients { chunk, visit: segment }, microbatch);
            self.write(Instruction::BackwardInput { chunk, segment, microbatch });
            if let Some(visit) = segment.checked_sub(1) {
                self.send(Cargo::CombineGradients { chunk, visit }, microbatch);
            }
        }
    }

    fn weights(&mut self, chunk: usize, segments: usize, microbatch: usize) {
        for segment in (0..segments).rev() {
            self.write(Instruction::BackwardWeight { chunk, segment, microbatch });
        }
    }

    fn experts(&mut self, Action { chunk, work, microbatch }: Action) {
        match work {
            Work::Forward => self.experts_forward(chunk, microbatch),
            Work::BackwardInput => self.experts_input(chunk, microbatch),
            Work::BackwardWeight => self.weights(chunk, self.visits(chunk), microbatch),
            Work::Backward => {
                self.experts_input(chunk, microbatch);
                self.weights(chunk, self.visits(chunk), microbatch);
            }
        }
    }

    fn experts_forward(&mut self, chunk: usize, microbatch: usize) {
        for visit in 0..self.visits(chunk) {
            self.receive(Cargo::Dispatch { chunk, visit }, microbatch);
            self.write(Instruction::Forward { chunk, segment: visit, microbatch });
            self.send(Cargo::Combine { chunk, visit }, microbatch);
        }
    }

    fn experts_input(&mut self, chunk: usize, microbatch: usize) {
        for visit in (0..self.visits(chunk)).rev() {
            self.receive(Cargo::CombineGradients { chunk, visit }, microbatch);
            self.write(Instruction::BackwardInput { chunk, segment: visit, microbatch });
            self.send(Cargo::DispatchGradients { chunk, visit }, microbatch);
        }
    }
}
