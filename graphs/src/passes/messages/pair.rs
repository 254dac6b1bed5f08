//! Two microbatches at once, segment by segment, so that rows travel under computation.
//!
//! The order within a layer is the one on which Megatron's combined 1F1B and DeepSeek's published
//! trace agree. On the device, `B` being the backward and `F` the forward microbatch:
//! `attention F, experts B, their weights, experts F, attention B, its weights`; on the links under
//! it: `combine B, dispatch F, dispatch B, combine F`.

use super::Writer;
use crate::{
    action::{Action, Work},
    plan::{Instruction, Side},
};

impl Writer<'_> {
    /// A forward and a backward pass, a segment of each in turns.
    ///
    /// The backward pass begins, since its rows have the longer way: what is behind its last visit
    /// to the experts comes before everything else. The layers of a forward pass are met from the
    /// first on, those of a backward pass from the last.
    pub(super) fn pair(&mut self, forward: Action, backward: Action) {
        let (first, last) = (self.visits(forward.chunk), self.visits(backward.chunk));
        match self.side {
            Side::Stage => self.pair_on_stage(forward, backward, (first, last)),
            Side::Experts => {
                for layer in 0..first.max(last) {
                    if let Some(visit) = last.checked_sub(1 + layer) {
                        self.input(backward.chunk, visit, backward.microbatch);
                        self.weight(backward, visit);
                    }
                    if layer < first {
                        self.forward(forward.chunk, layer, forward.microbatch);
                    }
                }
            }
        }
    }

    fn pair_on_stage(&mut self, forward: Action, backward: Action, (first, last): (usize, usize)) {
        let Action { chunk, microbatch, .. } = backward;
        self.input(chunk, last, microbatch);
        if last == 0 {
            self.leave(chunk, microbatch);
        }
        for layer in 0..=first.max(last) {
            if layer == first {
                // Held back to here, it covers the way of the last rows that come back.
                self.weight(backward, last);
            }
            if layer <= first {
                self.forward(forward.chunk, layer, forward.microbatch);
            }
            if let Some(segment) = last.checked_sub(1 + layer) {
                self.input(chunk, segment, microbatch);
                if segment == 0 {
                    self.leave(chunk, microbatch);
                }
                self.weight(backward, segment);
            }
        }
    }

    /// `W` of a segment, if it belongs to the pair.
    fn weight(&mut self, Action { chunk, work, microbatch }: Action, segment: usize) {
        if work == Work::Backward {
            self.write(Instruction::BackwardWeight { chunk, segment, microbatch });
        }
    }
}
