//! Which process has which ranks of a plan.

use std::ops::Range;

/// Ranks dealt out over processes: neighbours stay together, and no process is without one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spread {
    ranks: usize,
    processes: usize,
}

impl Spread {
    /// All ranks in one process.
    pub fn alone(ranks: usize) -> Self {
        Spread { ranks, processes: 1 }
    }

    /// Deals ranks out; nothing if there are more processes than ranks.
    pub fn new(ranks: usize, processes: usize) -> Option<Self> {
        (processes <= ranks).then_some(Spread { ranks, processes })
    }

    /// The process of a rank.
    pub fn process(&self, rank: usize) -> usize {
        rank * self.processes / self.ranks
    }

    /// The ranks of a process.
    pub fn ranks(&self, process: usize) -> Range<usize> {
        let first = |process: usize| (process * self.ranks).div_ceil(self.processes);
        first(process)..first(process + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_has_one_process_and_neighbours_stay_together() {
        for ranks in 1..20 {
            for processes in 1..=ranks {
                let spread = Spread::new(ranks, processes).unwrap();
                let all: Vec<usize> = (0..processes).flat_map(|it| spread.ranks(it)).collect();
                assert_eq!(all, (0..ranks).collect::<Vec<_>>());
                for process in 0..processes {
                    let own = spread.ranks(process);
                    assert!(own.len().abs_diff(ranks / processes) <= 1, "{own:?}");
                    assert!(own.into_iter().all(|rank| spread.process(rank) == process));
                }
            }
            assert_eq!(Spread::new(ranks, ranks + 1), None);
        }
        assert_eq!(Spread::alone(4).ranks(0), 0..4);
    }
}
