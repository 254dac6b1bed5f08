//! Completeness and local order of programs.
//!
//! This knows what each instruction needs before it on its own actor, and nothing of how programs
//! are written, so a pass that forgets or swaps something is caught here.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    plan::{Cargo, Instruction, Plan, Side},
    route::Routes,
};

/// A mistake in a program; stages and instructions are counted from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProgramError {
    /// An instruction stands twice.
    #[error("stage {stage}, {side:?}: instruction {index} repeats {instruction:?}")]
    Twice {
        /// Stage of the actor.
        stage: usize,
        /// Side of the actor.
        side: Side,
        /// Position in the program.
        index: usize,
        /// What stands there.
        instruction: Instruction,
    },
    /// An instruction stands before what it needs, or without it.
    #[error("stage {stage}, {side:?}: instruction {index}, {instruction:?}, needs {needs:?} first")]
    Early {
        /// Stage of the actor.
        stage: usize,
        /// Side of the actor.
        side: Side,
        /// Position in the program.
        index: usize,
        /// What stands there.
        instruction: Instruction,
        /// What has to stand before it.
        needs: Instruction,
    },
    /// An instruction stands nowhere.
    #[error("stage {stage}, {side:?}: {instruction:?} is missing")]
    Missing {
        /// Stage of the actor.
        stage: usize,
        /// Side of the actor.
        side: Side,
        /// What should stand there.
        instruction: Instruction,
    },
    /// An instruction that this actor has no business with.
    #[error("stage {stage}, {side:?}: instruction {index}, {instruction:?}, is none of its own")]
    Foreign {
        /// Stage of the actor.
        stage: usize,
        /// Side of the actor.
        side: Side,
        /// Position in the program.
        index: usize,
        /// What stands there.
        instruction: Instruction,
    },
}

/// Checks the programs of all actors.
///
/// # Errors
///
/// All the [`ProgramError`]s there are, by stage, side and position.
pub fn programs(plan: &Plan) -> Result<(), Vec<ProgramError>> {
    let expected = expected(plan);
    let mut errors = Vec::new();
    for (stage, sides) in plan.programs.iter().enumerate() {
        for (side, program) in [Side::Stage, Side::Experts].into_iter().zip(sides) {
            let own = &expected[stage][side as usize];
            let actor = Actor { plan, routes: Routes::new(&plan.channels), stage, side };
            actor.check(&program.instructions, own, &mut errors);
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

type Wanted = BTreeSet<Instruction>;

/// What each actor has to do in a step, whatever the order.
fn expected(plan: &Plan) -> Vec<[Wanted; 2]> {
    let microbatches = plan.batch.microbatches(plan.mesh.data_ranks());
    let mut wanted = vec![[Wanted::new(), Wanted::new()]; plan.programs.len()];
    for microbatch in 0..microbatches {
        for (chunk, it) in plan.chunks.iter().enumerate() {
            for (side, segments) in [it.segments.len(), it.visits.len()].into_iter().enumerate() {
                for segment in 0..segments {
                    wanted[it.stage][side].extend([
                        Instruction::Forward { chunk, segment, microbatch },
                        Instruction::BackwardInput { chunk, segment, microbatch },
                        Instruction::BackwardWeight { chunk, segment, microbatch },
                    ]);
                }
            }
        }
        for (id, channel) in plan.channels.iter().enumerate() {
            let ((from, here), (to, there)) = (channel.from, channel.to);
            wanted[from][here as usize].insert(Instruction::Send { channel: id, microbatch });
            wanted[to][there as usize].insert(Instruction::Receive { channel: id, microbatch });
        }
    }
    wanted
}

/// One actor and what it may know.
struct Actor<'a> {
    plan: &'a Plan,
    routes: Routes,
    stage: usize,
    side: Side,
}

impl Actor<'_> {
    fn check(&self, program: &[Instruction], wanted: &Wanted, errors: &mut Vec<ProgramError>) {
        let Actor { stage, side, .. } = *self;
        let mut done: BTreeMap<Instruction, usize> = BTreeMap::new();
        for (index, &instruction) in program.iter().enumerate() {
            if !wanted.contains(&instruction) {
                errors.push(ProgramError::Foreign { stage, side, index, instruction });
                continue;
            }
            for needs in self.needs(instruction) {
                if !done.contains_key(&needs) {
                    errors.push(ProgramError::Early { stage, side, index, instruction, needs });
                }
            }
            if done.insert(instruction, index).is_some() {
                errors.push(ProgramError::Twice { stage, side, index, instruction });
            }
        }
        let missing = wanted.iter().filter(|instruction| !done.contains_key(instruction));
        errors.extend(missing.map(|&instruction| ProgramError::Missing {
            stage,
            side,
            instruction,
        }));
    }

    /// What this actor has to have done before an instruction.
    fn needs(&self, instruction: Instruction) -> Vec<Instruction> {
        match instruction {
            Instruction::Receive { .. } => Vec::new(),
            Instruction::Send { channel, microbatch } => {
                vec![self.made(self.plan.channels[channel].cargo, microbatch)]
            }
            Instruction::Forward { chunk, segment, microbatch } => {
                self.before_forward(chunk, segment, microbatch).into_iter().collect()
            }
            Instruction::BackwardInput { chunk, segment, microbatch } => {
                let forward = Instruction::Forward { chunk, segment, microbatch };
                let gradient = self.before_backward(chunk, segment, microbatch);
                [Some(forward), gradient].into_iter().flatten().collect()
            }
            Instruction::BackwardWeight { chunk, segment, microbatch } => {
                vec![Instruction::BackwardInput { chunk, segment, microbatch }]
            }
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
