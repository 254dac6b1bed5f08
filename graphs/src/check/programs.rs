//! Completeness and local order of programs.
//!
//! This knows what each instruction needs before it on its own actor, and nothing of how programs
//! are written, so a pass that forgets or swaps something is caught here.

use crate::{
    plan::{Cargo, Channel, ChannelId, CopyStep, Instruction, Plan, Side},
    route::{self, Routes},
    text,
};

mod slots;

use slots::Slots;

/// A mistake in a program; stages and instructions are counted from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProgramError {
    /// A channel does not go where the cut of the model needs one.
    #[error("channel {channel} is {got}; expected {expected}")]
    Channel {
        /// Index of the channel.
        channel: ChannelId,
        /// The channel that the plan has, in words.
        got: String,
        /// The channel that there has to be.
        expected: String,
    },
    /// An instruction stands twice.
    #[error("{}: instruction {index} repeats {what}", who(.stage, .side))]
    Twice {
        /// Stage of the actor.
        stage: usize,
        /// Side of the actor.
        side: Side,
        /// Position in the program.
        index: usize,
        /// What stands there.
        instruction: Instruction,
        /// The same in words.
        what: String,
    },
    /// An instruction stands before what it needs, or without it.
    #[error("{}: instruction {index}, {what}, comes before {needs}", who(.stage, .side))]
    Early {
        /// Stage of the actor.
        stage: usize,
        /// Side of the actor.
        side: Side,
        /// Position in the program.
        index: usize,
        /// What stands there.
        instruction: Instruction,
        /// The same in words.
        what: String,
        /// What has to stand before it, in words.
        needs: String,
    },
    /// An instruction stands nowhere.
    #[error("{}: {what} is missing", who(.stage, .side))]
    Missing {
        /// Stage of the actor.
        stage: usize,
        /// Side of the actor.
        side: Side,
        /// What should stand there.
        instruction: Instruction,
        /// The same in words.
        what: String,
    },
    /// An instruction that this actor has no business with.
    #[error("{}: instruction {index}, {what}, is none of its own", who(.stage, .side))]
    Foreign {
        /// Stage of the actor.
        stage: usize,
        /// Side of the actor.
        side: Side,
        /// Position in the program.
        index: usize,
        /// What stands there.
        instruction: Instruction,
        /// The same in words.
        what: String,
    },
}

/// The name of an actor.
fn who(stage: &usize, side: &Side) -> String {
    text::actor((*stage, *side))
}

/// Checks the channels, and the programs of all actors.
///
/// # Errors
///
/// All the [`ProgramError`]s there are, by stage, side and position; if channels are wrong, those
/// alone, since programs are written for channels.
pub fn programs(plan: &Plan) -> Result<(), Vec<ProgramError>> {
    let mut errors = channels(plan);
    if errors.is_empty() {
        let slots = Slots::new(plan);
        let (routes, mut done) = (Routes::new(&plan.channels), slots.table());
        for (stage, sides) in plan.programs.iter().enumerate() {
            for (side, program) in [Side::Stage, Side::Experts].into_iter().zip(sides) {
                let actor = Actor { plan, slots: &slots, routes: &routes, stage, side };
                actor.check(&program.instructions, &mut done, &mut errors);
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Channels that are not what the chunks need.
fn channels(plan: &Plan) -> Vec<ProgramError> {
    let needed = route::channels(&plan.chunks);
    let ends = |channel: &Channel| (channel.from, channel.to, channel.cargo);
    let count = needed.len().max(plan.channels.len());
    let pairs = (0..count).map(|id| (id, plan.channels.get(id), needed.get(id)));
    let wrong = pairs.filter(|(_, got, expected)| got.map(ends) != expected.map(ends));
    wrong
        .map(|(channel, got, expected)| ProgramError::Channel {
            channel,
            got: got.map_or("missing".into(), text::channel),
            expected: expected.map_or("none".into(), text::channel),
        })
        .collect()
}

/// One actor and what it may know.
struct Actor<'a> {
    plan: &'a Plan,
    slots: &'a Slots<'a>,
    routes: &'a Routes,
    stage: usize,
    side: Side,
}

impl Actor<'_> {
    /// Follows a program; `done` says of each instruction whether it has stood so far.
    fn check(&self, program: &[Instruction], done: &mut [bool], errors: &mut Vec<ProgramError>) {
        let Actor { stage, side, .. } = *self;
        let words = |instruction| text::instruction(self.plan, instruction);
        let mut different = 0;
        for (index, &instruction) in program.iter().enumerate() {
            let Some(slot) = self.slots.find((stage, side), instruction) else {
                errors.push(ProgramError::Foreign {
                    stage,
                    side,
                    index,
                    instruction,
                    what: words(instruction),
                });
                continue;
            };
            let is_done = |it| self.slots.find((stage, side), it).is_some_and(|slot| done[slot]);
            for needs in self.needs(instruction, &is_done).into_iter().flatten() {
                if !is_done(needs) {
                    let (what, needs) = (words(instruction), words(needs));
                    errors.push(ProgramError::Early {
                        stage,
                        side,
                        index,
                        instruction,
                        what,
                        needs,
                    });
                }
            }
            match std::mem::replace(&mut done[slot], true) {
                false => different += usize::from(!matches!(instruction, Instruction::Copy { .. })),
                true => errors.push(ProgramError::Twice {
                    stage,
                    side,
                    index,
                    instruction,
                    what: words(instruction),
                }),
            }
        }
        if different < self.slots.count((stage, side)) {
            let all = self.slots.all((stage, side));
            let missing = all.filter(|&(slot, _)| !done[slot]);
            errors.extend(missing.map(|(_, instruction)| ProgramError::Missing {
                stage,
                side,
                instruction,
                what: words(instruction),
            }));
        }
    }

    /// What this actor has to have done before an instruction.
    ///
    /// Weight gradients are added in rising order of microbatches, so that the order of work
    /// never changes a bit of a sum. What leaves for the host has to be back before it is read.
    fn needs(
        &self,
        instruction: Instruction,
        is_done: &dyn Fn(Instruction) -> bool,
    ) -> [Option<Instruction>; 4] {
        match instruction {
            Instruction::Receive { .. } => [None; 4],
            Instruction::Send { channel, microbatch } => {
                let cargo = self.plan.channels[channel].cargo;
                [Some(self.made(cargo, microbatch)), None, None, None]
            }
            Instruction::Forward { chunk, segment, microbatch } => {
                [self.before_forward(chunk, segment, microbatch), None, None, None]
            }
            Instruction::Restore { chunk, segment, microbatch } => {
                let forward = Instruction::Forward { chunk, segment, microbatch };
                [Some(forward), self.fetched(chunk, segment, microbatch, is_done), None, None]
            }
            Instruction::Copy { step, chunk, segment, microbatch } => {
                [Some(self.before_copy(step, chunk, segment, microbatch)), None, None, None]
            }
            Instruction::BackwardInput { chunk, segment, microbatch } => {
                let restores = self.plan.chunks[chunk].restores(self.side, segment);
                let restore = Instruction::Restore { chunk, segment, microbatch };
                [
                    Some(Instruction::Forward { chunk, segment, microbatch }),
                    self.before_backward(chunk, segment, microbatch),
                    restores.then_some(restore),
                    self.fetched(chunk, segment, microbatch, is_done),
                ]
            }
            Instruction::BackwardWeight { chunk, segment, microbatch } => {
                let input = Instruction::BackwardInput { chunk, segment, microbatch };
                let earlier = microbatch
                    .checked_sub(1)
                    .map(|microbatch| Instruction::BackwardWeight { chunk, segment, microbatch });
                [Some(input), earlier, None, None]
            }
            Instruction::Reduce { chunk, segment } => {
                let microbatches = self.plan.batch.microbatches(self.plan.mesh.data_ranks());
                let last = |microbatch| Instruction::BackwardWeight { chunk, segment, microbatch };
                [microbatches.checked_sub(1).map(last), None, None, None]
            }
        }
    }

    /// The arrival from the host of what has left for it.
    fn fetched(
        &self,
        chunk: usize,
        segment: usize,
        microbatch: usize,
        is_done: &dyn Fn(Instruction) -> bool,
    ) -> Option<Instruction> {
        let segment = if self.side == Side::Experts { segment } else { 0 };
        let copy = |step| Instruction::Copy { step, chunk, segment, microbatch };
        is_done(copy(CopyStep::Offload)).then(|| copy(CopyStep::Fetched))
    }

    /// What comes before a step on the way to the host and back.
    fn before_copy(&self, step: CopyStep, chunk: usize, segment: usize, mb: usize) -> Instruction {
        let copy = |step| Instruction::Copy { step, chunk, segment, microbatch: mb };
        let last = match self.side {
            Side::Stage => self.plan.chunks[chunk].visits.len(),
            Side::Experts => segment,
        };
        match step {
            CopyStep::Offload => Instruction::Forward { chunk, segment: last, microbatch: mb },
            CopyStep::Offloaded => copy(CopyStep::Offload),
            CopyStep::Fetch => copy(CopyStep::Offloaded),
            CopyStep::Fetched => copy(CopyStep::Fetch),
        }
    }

    /// The computation that makes a cargo.
    fn made(&self, cargo: Cargo, microbatch: usize) -> Instruction {
        let last = |chunk: usize| self.plan.chunks[chunk].visits.len();
        match cargo {
            Cargo::Activations { chunk } => {
                Instruction::Forward { chunk, segment: last(chunk), microbatch }
            }
            Cargo::Dispatch { chunk, visit } | Cargo::Combine { chunk, visit } => {
                Instruction::Forward { chunk, segment: visit, microbatch }
            }
            Cargo::Gradients { chunk } => {
                Instruction::BackwardInput { chunk, segment: 0, microbatch }
            }
            Cargo::CombineGradients { chunk, visit } => {
                Instruction::BackwardInput { chunk, segment: visit + 1, microbatch }
            }
            Cargo::DispatchGradients { chunk, visit } => {
                Instruction::BackwardInput { chunk, segment: visit, microbatch }
            }
        }
    }

    /// Where the input of a segment comes from.
    fn before_forward(&self, chunk: usize, segment: usize, mb: usize) -> Option<Instruction> {
        let cargo = match (self.side, segment) {
            (Side::Experts, visit) => Cargo::Dispatch { chunk, visit },
            (Side::Stage, 0) => Cargo::Activations { chunk: chunk.checked_sub(1)? },
            (Side::Stage, _) => Cargo::Combine { chunk, visit: segment - 1 },
        };
        Some(self.arrival(cargo, mb))
    }

    /// Where the gradient of a segment's output comes from.
    fn before_backward(&self, chunk: usize, segment: usize, mb: usize) -> Option<Instruction> {
        let last = segment == self.plan.chunks[chunk].visits.len();
        let cargo = match self.side {
            Side::Experts => Cargo::CombineGradients { chunk, visit: segment },
            Side::Stage if last && chunk + 1 == self.plan.chunks.len() => return None,
            Side::Stage if last => Cargo::Gradients { chunk: chunk + 1 },
            Side::Stage => Cargo::DispatchGradients { chunk, visit: segment },
        };
        Some(self.arrival(cargo, mb))
    }

    /// The receive of a cargo, or its making, if that happens on the same stage.
    fn arrival(&self, cargo: Cargo, microbatch: usize) -> Instruction {
        match self.routes.get(cargo) {
            Some(channel) => Instruction::Receive { channel, microbatch },
            None => self.made(cargo, microbatch),
        }
    }
}
