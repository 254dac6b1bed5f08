//! What a run says before it trains: of the job, of each phase, of where its ranks compute.

use runtime::Setup;

use super::{Lowered, Ready, Run};
use crate::{device, prepare::Network, view::progress::grouped};

impl Run<'_> {
    /// Says what is about to be trained.
    pub(super) fn introduce(&self, network: &Network) {
        if self.options.quiet {
            return;
        }
        let elements = network.graph.parameters().iter().map(|p| p.elements());
        eprintln!("job    {}, in {}", self.job.name, self.dir.display());
        eprintln!("model  {} parameters", grouped(elements.sum::<usize>() as u64));
    }

    /// Says on what a phase is about to be trained, and how it is spread.
    pub(super) fn introduce_phase(&self, ready: &Ready) {
        if self.options.quiet {
            return;
        }
        let Ready { lowered, text, unigram, .. } = ready;
        let Lowered { phase, plan, .. } = lowered;
        let (mesh, batch) = (&plan.mesh, &plan.batch);
        let named = phase.job.plan_name().map_or_else(String::new, |name| format!(" `{name}`"));
        if let Some(name) = &phase.name {
            eprintln!("phase  {name}: steps {} to {}", phase.begin + 1, phase.end);
        }
        eprintln!(
            "plan{named}  {} stages x {} virtual, {} expert ranks, {} replicas: {} actors",
            mesh.pp,
            mesh.vpp,
            mesh.ep,
            mesh.dp,
            2 * mesh.ranks(),
        );
        eprintln!(
            "step   {} sequences of {} tokens, {} microbatches on each rank",
            batch.sequences,
            batch.context,
            batch.microbatches(mesh.data_ranks()),
        );
        for (name, used) in text.used() {
            eprintln!("text   {name}: {used}");
        }
        let tokens = grouped(text.tokens());
        eprintln!("       {tokens} tokens; word frequencies alone give a loss of {unigram:.3}");
    }

    /// Where the ranks compute.
    pub(super) fn told(&self, setup: &Setup) -> String {
        match &self.options.processes {
            None => device::told(&setup.places),
            Some(all) => format!("the processors of {} processes", all.count()),
        }
    }
}
