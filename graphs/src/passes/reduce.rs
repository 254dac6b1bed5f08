//! Sends weight gradients on their way as soon as they are complete.
//!
//! The last weight gradients of the segments of a stage come one after the other in its cool-down,
//! while the stages before it still compute; a sum that waits for the end of the program travels
//! when nobody computes. PyTorch's DistributedDataParallel (arXiv:2006.15704, section 3.2.3) begins
//! likewise as soon as a bucket of gradients is there.

use crate::plan::{Instruction, Program};

/// Writes a [`Instruction::Reduce`] behind the last weight gradients of each segment.
pub fn early(program: Program, microbatches: usize) -> Program {
    let mut instructions = Vec::with_capacity(program.instructions.len());
    for instruction in program.instructions {
        instructions.push(instruction);
        match instruction {
            Instruction::BackwardWeight { chunk, segment, microbatch }
                if microbatch + 1 == microbatches =>
            {
                instructions.push(Instruction::Reduce { chunk, segment });
            }
            _ => {}
        }
    }
    Program { instructions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_lets_go_of_its_gradients_behind_the_last_microbatch() {
        let weight =
            |segment, microbatch| Instruction::BackwardWeight { chunk: 3, segment, microbatch };
        let reduce = |segment| Instruction::Reduce { chunk: 3, segment };
        let instructions = vec![weight(1, 0), weight(0, 0), weight(1, 1), weight(0, 1)];
        let early = early(Program { instructions }, 2).instructions;
        let expected =
            [weight(1, 0), weight(0, 0), weight(1, 1), reduce(1), weight(0, 1), reduce(0)];
        assert_eq!(early, expected);
    }
}
