//! Plans that are like other plans, and the plan of the command line.

use std::collections::BTreeMap;

use crate::{
    code,
    de::listed,
    overlay::{Overlay, broken},
    report::Finding,
    source::Span,
    tree::{Kind, Value, Word},
};

/// The plans of a job by name: as written, and laid over what they are like.
struct Plans {
    written: BTreeMap<String, Value>,
    done: BTreeMap<String, Value>,
}

impl Overlay {
    /// Lays every plan with `like` over the plan it names.
    pub fn likes(&mut self, tree: &mut Value) {
        let mut plans = Plans { written: BTreeMap::new(), done: BTreeMap::new() };
        if let Some(Value { kind: Kind::Map(entries), .. }) = tree.field("plans") {
            for (key, value) in entries {
                if let Some(name) = key.text() {
                    plans.written.insert(name.into(), value.clone());
                }
            }
        }
        for name in plans.written.keys().cloned().collect::<Vec<_>>() {
            self.plan(&name, &mut plans, &mut Vec::new());
        }
        if let Some(Value { kind: Kind::Map(entries), .. }) = tree.field_mut("plans") {
            for (key, value) in entries {
                if let Some(plan) = key.text().and_then(|name| plans.done.get(name)) {
                    *value = plan.clone();
                }
            }
        }
        if let Some(plan) = tree.field_mut("plan") {
            let written = std::mem::replace(plan, broken(plan.span));
            *plan = self.liked(written, &mut plans, &mut Vec::new());
        }
    }

    fn plan(&mut self, name: &str, plans: &mut Plans, chain: &mut Vec<String>) -> Value {
        if let Some(plan) = plans.done.get(name) {
            return plan.clone();
        }
        chain.push(name.into());
        let written = plans.written[name].clone();
        let plan = self.liked(written, plans, chain);
        chain.pop();
        plans.done.insert(name.into(), plan.clone());
        plan
    }

    fn liked(&mut self, plan: Value, plans: &mut Plans, chain: &mut Vec<String>) -> Value {
        let mut plan = unnamed(self.opened(plan));
        let Some(like) = plan.take("like") else { return plan };
        let Some(wanted) = like.text().map(str::to_string) else {
            let message = format!("expected the name of a plan, found {}", like.described());
            self.findings.push(Finding::new(code::TYPE, message).at(like.span, ""));
            return plan;
        };
        if chain.contains(&wanted) {
            chain.push(wanted);
            let message = format!("plans are like each other in a circle: {}", chain.join(" -> "));
            chain.pop();
            self.findings.push(Finding::new(code::CYCLE, message).at(like.span, ""));
            return plan;
        }
        if !plans.written.contains_key(&wanted) {
            let known: Vec<&str> = plans.written.keys().map(String::as_str).collect();
            self.findings.push(unknown_plan(&wanted, &known, like.span));
            return plan;
        }
        let lower = self.plan(&wanted, plans, chain);
        self.merge(lower, plan)
    }

    /// Chooses the plan of `--plan`: a name, or a file.
    pub fn choose(&mut self, tree: &mut Value, wanted: &str, span: Span) {
        let plan = if wanted.ends_with(".ron") || wanted.contains('/') {
            unnamed(self.file(wanted, span))
        } else {
            let name = Word { text: "Named".into(), span };
            let items = vec![Value::new(span, Kind::Text(wanted.into()))];
            Value::new(span, Kind::Tuple { name: Some(name), items })
        };
        tree.put(Word { text: "plan".into(), span }, plan);
    }
}

/// A plan may be written `Plan(..)`; the name says nothing more.
fn unnamed(mut plan: Value) -> Value {
    if let Kind::Record { name, .. } = &mut plan.kind
        && name.as_ref().is_some_and(|name| name.text == "Plan")
    {
        *name = None;
    }
    plan
}

/// A plan that does not exist.
pub fn unknown_plan(wanted: &str, known: &[&str], span: Span) -> Finding {
    let label = listed("the job", wanted, known);
    Finding::new(code::UNKNOWN_PLAN, format!("unknown plan `{wanted}`")).at(span, label)
}
