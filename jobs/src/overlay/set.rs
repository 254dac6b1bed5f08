//! `--set path=value`: one change of the tree from the command line.

use crate::{
    code,
    de::listed,
    overlay::{Overlay, broken},
    parse::parse,
    report::Finding,
    source::{Origin, SourceId, Span},
    tree::{Field, Kind, Value, Word},
};

/// What stands before the path in the text of the argument's source.
const FLAG: &str = "--set ";

impl Overlay {
    /// Applies one `path=value`; what cannot be followed becomes a finding.
    pub fn set(&mut self, tree: &mut Value, argument: &str) {
        let text = format!("{FLAG}{argument}");
        let source = self.sources.add(Origin::Argument(text.clone()), text.as_str());
        let span = |start: usize, end: usize| Span { source, start: start as u32, end: end as u32 };
        let Some(equals) = text.find('=') else {
            let finding = Finding::new(code::SET, format!("`{argument}` sets nothing"));
            let finding = finding.at(span(FLAG.len(), text.len()), "");
            self.findings
                .push(finding.help("write --set path=value, such as --set plan.mesh.pp=2"));
            return;
        };
        let value = self.argument(&text, equals + 1, source);
        let mut steps = Vec::new();
        let mut start = FLAG.len();
        for step in text[start..equals].split('.') {
            let text = step.trim().to_string();
            steps.push(Word { text, span: span(start, start + step.len()) });
            start += step.len() + 1;
        }
        let steps = selected(tree, steps);
        if let Err(finding) = self.follow(tree, &steps, value) {
            self.findings.push(*finding);
        }
    }

    /// Reads the value behind the path; a shell makes quotes hard, so units may go without.
    fn argument(&mut self, text: &str, start: usize, source: SourceId) -> Value {
        let blank = " ".repeat(start) + &text[start..];
        let mut findings = Vec::new();
        let value = parse(&blank, source, &mut findings);
        self.findings.extend(findings.into_iter().filter(|f| f.code != code::UNIT_QUOTES));
        value
    }

    fn follow(&mut self, at: &mut Value, steps: &[Word], value: Value) -> Result<(), Box<Finding>> {
        let Some((step, rest)) = steps.split_first() else {
            let below = std::mem::replace(at, broken(at.span));
            *at = self.merge(below, value);
            return Ok(());
        };
        let whole = std::mem::replace(at, broken(at.span));
        *at = self.opened(whole);
        let shown = at.described();
        match &mut at.kind {
            Kind::Tuple { items, .. } if items.len() == 1 => {
                self.follow(&mut items[0], steps, value)
            }
            Kind::Record { fields, .. } => {
                let known = fields.iter().position(|f| f.name.text == step.text);
                let index = known.unwrap_or_else(|| {
                    fields.push(Field { name: step.clone(), value: missing(step, rest) });
                    fields.len() - 1
                });
                fields[index].name = step.clone();
                self.follow(&mut fields[index].value, rest, value)
            }
            Kind::Map(entries) => {
                let found = entries.iter().position(|(key, _)| key.text() == Some(&step.text));
                let index = match found {
                    Some(index) => index,
                    None if rest.is_empty() => {
                        let key = Value::new(step.span, Kind::Text(step.text.clone()));
                        entries.push((key, missing(step, rest)));
                        entries.len() - 1
                    }
                    None => return Err(Box::new(no_entry(step, entries))),
                };
                self.follow(&mut entries[index].1, rest, value)
            }
            Kind::List(items) | Kind::Tuple { items, .. } => {
                let count = items.len();
                let named = |item: &Value| {
                    item.field("name").and_then(Value::text) == Some(step.text.as_str())
                };
                let index = step.text.parse().ok().or_else(|| items.iter().position(named));
                match index.and_then(|index: usize| items.get_mut(index)) {
                    Some(item) => self.follow(item, rest, value),
                    None => {
                        let message = format!("`{}` is no item of {count}", step.text);
                        let label = "items are counted from 0, or go by their name";
                        Err(Box::new(Finding::new(code::SET, message).at(step.span, label)))
                    }
                }
            }
            Kind::Broken => Ok(()),
            _ => {
                let message = format!("`{}` cannot be set in {shown}", step.text);
                Err(Box::new(Finding::new(code::SET, message).at(step.span, "")))
            }
        }
    }
}

/// What a path makes on its way where the job has nothing: records, and a place for the value.
fn missing(step: &Word, rest: &[Word]) -> Value {
    match rest.last() {
        None => broken(step.span),
        Some(last) => {
            Value::new(step.span.to(last.span), Kind::Record { name: None, fields: Vec::new() })
        }
    }
}

fn no_entry(step: &Word, entries: &[(Value, Value)]) -> Finding {
    let known: Vec<&str> = entries.iter().filter_map(|(key, _)| key.text()).collect();
    let message = format!("nothing is named `{}` here", step.text);
    Finding::new(code::SET, message).at(step.span, listed("the job", &step.text, &known))
}

/// `plan.` means the plan that the job runs, wherever it is written.
fn selected(tree: &Value, steps: Vec<Word>) -> Vec<Word> {
    let named = tree.field("plan").and_then(|plan| plan.wrapped("Named"));
    match (named, steps.split_first()) {
        (Some((name, _)), Some((first, rest))) if first.text == "plan" && !rest.is_empty() => {
            let plans = Word { text: "plans".into(), span: first.span };
            let name = Word { text: name.into(), span: first.span };
            [plans, name].into_iter().chain(rest.iter().cloned()).collect()
        }
        _ => steps,
    }
}
