//! Before the backward pass: what is stored is decoded, what was dropped is computed again.

use super::{Flight, Half, Held, Item, Keeping, Lump, RunForward, Slot, Task, class};
use crate::model::{ModelGraph, NodeId};

impl<T: Held> Flight<T> {
    /// Makes all that the backward pass of some nodes reads as it was: decodes what is stored, and
    /// runs nodes again.
    ///
    /// # Panics
    ///
    /// If something is on the host, which no checked plan allows.
    pub fn restore(
        &mut self,
        graph: &ModelGraph,
        keeping: &Keeping,
        tasks: &[Task],
        run: &mut RunForward<'_, T>,
    ) {
        for task in tasks.iter().rev() {
            for half in [Half::Input, Half::Weight] {
                for item in keeping.half(task.node, half) {
                    self.bring(graph, keeping, *item, run);
                }
            }
        }
    }

    fn bring(
        &mut self,
        graph: &ModelGraph,
        keeping: &Keeping,
        item: Item,
        run: &mut RunForward<'_, T>,
    ) {
        let class = class(graph, keeping, item);
        match self.kept.get_mut(&item) {
            Some(Slot { lump: Lump::Plain(_), is_away: false, .. }) => {}
            Some(Slot { is_away: true, .. }) => panic!("the plan fetches before it restores"),
            Some(Slot { lump, .. }) => {
                let before = lump.clone();
                let Lump::Fp8(stored) = &before else { return };
                let value = T::load(stored);
                self.ledger.hold(&value, class);
                self.ledger.release(stored);
                *lump = Lump::Plain(value);
            }
            None => match item {
                Item::Edge((node, _)) => self.run_again(graph, keeping, node, run),
                _ => unreachable!("only edges are computed again"),
            },
        }
    }

    /// Runs a node again for the outputs that are missing.
    fn run_again(
        &mut self,
        graph: &ModelGraph,
        keeping: &Keeping,
        node: NodeId,
        run: &mut RunForward<'_, T>,
    ) {
        let inputs: Vec<Item> = graph.node(node).inputs.iter().map(|&it| it.into()).collect();
        inputs.iter().for_each(|input| self.bring(graph, keeping, *input, run));
        let values: Vec<T> = inputs.iter().map(|input| self.here(*input)).collect();
        let made = run(keeping.task(node), &values);
        for (port, output) in made.outputs.into_iter().enumerate() {
            self.keep(graph, keeping, Item::Edge((node, port)), output);
        }
        self.use_up(&inputs);
    }
}
