//! Plans that phases write in place: changes of the job's plan.

use crate::{
    overlay::{Overlay, broken},
    tree::{Kind, Value},
};

impl Overlay {
    /// Lays the plan of every phase that has one in place over the job's plan.
    pub fn phase_plans(&mut self, tree: &mut Value) {
        let plan = plan(tree);
        let Some(Value { kind: Kind::Map(actors), .. }) = tree.field_mut("actors") else { return };
        for (_, actor) in actors {
            let Some(Value { kind: Kind::List(phases), .. }) = actor.field_mut("phases") else {
                continue;
            };
            for own in phases.iter_mut().filter_map(|phase| phase.field_mut("plan")) {
                let written = std::mem::replace(own, broken(own.span));
                *own = self.phase_plan(plan.clone(), written);
            }
        }
    }

    fn phase_plan(&mut self, plan: Option<Value>, written: Value) -> Value {
        let own = self.opened(written);
        match plan {
            Some(plan) if own.name().is_none() => self.merge(plan, own),
            _ => own,
        }
    }
}

/// The plan that the job runs, wherever it is written.
fn plan(tree: &Value) -> Option<Value> {
    let plan = tree.field("plan")?;
    match plan.wrapped("Named") {
        Some((name, _)) => tree.at(&format!("plans.{name}")).cloned(),
        None => Some(plan.clone()),
    }
}
