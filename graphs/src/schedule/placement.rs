//! Which stage a chunk lives on.

/// How the chunks of a model are laid over the stages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Placement {
    /// Round and round: chunk `c` of `p` stages lives on stage `c % p`.
    Loop,
    /// To and fro: every second turn goes back, so that the first stage has the last chunk too and
    /// both ends of the model. With two chunks a stage, stage `r` has chunks `r` and `2p - 1 - r`.
    V,
}

impl Placement {
    /// The stage that a chunk lives on.
    pub fn stage_of(self, chunk: usize, stages: usize) -> usize {
        let (turn, along) = (chunk / stages, chunk % stages);
        match self {
            Placement::V if turn % 2 == 1 => stages - 1 - along,
            _ => along,
        }
    }

    /// The chunk that a stage holds as its `turn`-th.
    pub fn chunk_of(self, stage: usize, turn: usize, stages: usize) -> usize {
        turn * stages + self.stage_of(turn * stages + stage, stages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v_turns_at_the_last_stage_and_a_loop_begins_anew() {
        let stages = |placement: Placement| (0..6).map(move |c| placement.stage_of(c, 3));
        assert_eq!(stages(Placement::Loop).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(stages(Placement::V).collect::<Vec<_>>(), [0, 1, 2, 2, 1, 0]);
        for placement in [Placement::Loop, Placement::V] {
            for (stage, turn) in [(0, 0), (1, 0), (2, 1), (0, 2), (2, 3)] {
                let chunk = placement.chunk_of(stage, turn, 3);
                assert_eq!((placement.stage_of(chunk, 3), chunk / 3), (stage, turn));
            }
        }
    }
}
