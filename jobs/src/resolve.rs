//! The final job as text: as a job file, with the origin of each value, or its model as a graph.

use std::fmt::Write;

use graphs::source::{GraphSource, Item, NodeSource};

use crate::{
    load::Loaded,
    print::{inline, print},
    source::{Origin, Sources, Span},
    tree::{Field, Kind, Value, Word},
};

impl Loaded {
    /// The job as a file that loads to the same job, whatever files and arguments it came from.
    pub fn text(&self) -> String {
        let mut tree = self.tree.clone();
        if let Kind::Record { name, .. } = &mut tree.kind {
            *name = Some(Word { text: "Job".into(), span: tree.span });
        }
        print(&tree)
    }

    /// A line for each value: its path, the value, where it came from and what it beat.
    pub fn origins(&self) -> String {
        let mut lines = Vec::new();
        leaves(&self.tree, "", &mut lines);
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(72);
        let mut text = String::new();
        for (line, value) in lines {
            let beaten: Vec<String> =
                value.beaten.iter().map(|span| short(&self.sources, *span)).collect();
            let place = short(&self.sources, value.span);
            let over = if beaten.is_empty() { "" } else { ", over " };
            let _ = writeln!(text, "{line:width$}  {place}{over}{}", beaten.join(", "));
        }
        text
    }

    /// The model as a graph of operators; nothing if it is a folder.
    pub fn model_text(&self) -> Option<String> {
        self.job.model.source().map(|source| print(&graph(&source, self.tree.span)))
    }
}

/// Place of a value, without the column.
pub(crate) fn short(sources: &Sources, span: Span) -> String {
    let (line, _) = sources.position(span);
    match &sources.get(span.source).origin {
        Origin::Argument(text) => text.clone(),
        origin => format!("{origin}:{line}"),
    }
}

/// Every value that has no named parts, under its path.
fn leaves<'v>(value: &'v Value, path: &str, lines: &mut Vec<(String, &'v Value)>) {
    let below = |name: &str| match path {
        "" => name.to_string(),
        path => format!("{path}.{name}"),
    };
    match &value.kind {
        Kind::Record { fields, .. } if !fields.is_empty() => {
            fields.iter().for_each(|f| leaves(&f.value, &below(&f.name.text), lines));
        }
        Kind::Map(entries) => {
            for (key, value) in entries {
                leaves(value, &below(key.text().unwrap_or_default()), lines);
            }
        }
        Kind::Tuple { items, .. } if matches!(&items[..], [Value { kind: Kind::Map(_), .. }]) => {
            leaves(&items[0], path, lines);
        }
        _ => match value.named_items() {
            Some(items) => items.iter().for_each(|(name, it)| leaves(it, &below(name), lines)),
            None => lines.push((format!("{path}: {}", inline(value)), value)),
        },
    }
}

fn graph(source: &GraphSource, span: Span) -> Value {
    let build = Build { span };
    let blocks = source.blocks.iter().map(|(name, nodes)| {
        let nodes = nodes.iter().map(|node| build.node(node)).collect();
        (build.text(name), build.value(Kind::List(nodes)))
    });
    let items = source.nodes.iter().map(|item| match item {
        Item::Node(node) => build.node(node),
        Item::Repeat(block, times) => build.value(Kind::Tuple {
            name: Some(build.word("Repeat")),
            items: vec![build.text(block), build.value(Kind::Integer(*times as i128))],
        }),
    });
    let input = vec![build.field("tokens", build.text(&source.input.tokens))];
    build.record(
        Some("Graph"),
        vec![
            build.field("input", build.record(None, input)),
            build.field("blocks", build.value(Kind::Map(blocks.collect()))),
            build.field("nodes", build.value(Kind::List(items.collect()))),
        ],
    )
}

/// An operator as text writes it, in one line.
pub fn operator(op: &ops::Op, span: Span) -> String {
    inline(&Build { span }.op(op))
}

/// Makes values that were written nowhere.
struct Build {
    span: Span,
}

impl Build {
    fn value(&self, kind: Kind) -> Value {
        Value::new(self.span, kind)
    }

    fn text(&self, text: &str) -> Value {
        self.value(Kind::Text(text.into()))
    }

    fn word(&self, text: &str) -> Word {
        Word { text: text.into(), span: self.span }
    }

    fn field(&self, name: &str, value: Value) -> Field {
        Field { name: self.word(name), value }
    }

    fn record(&self, name: Option<&str>, fields: Vec<Field>) -> Value {
        self.value(Kind::Record { name: name.map(|name| self.word(name)), fields })
    }

    fn node(&self, node: &NodeSource) -> Value {
        let mut fields = Vec::new();
        if !node.name.is_empty() {
            fields.push(self.field("name", self.text(&node.name)));
        }
        fields.push(self.field("op", self.op(&node.op)));
        if !node.from.is_empty() {
            let from = node.from.iter().map(|name| self.text(name)).collect();
            fields.push(self.field("from", self.value(Kind::List(from))));
        }
        self.record(None, fields)
    }

    /// An operator by way of JSON text, which keeps the shortest form of every number.
    fn op(&self, op: &ops::Op) -> Value {
        let json = serde_json::to_string(op).expect("operators are plain numbers");
        let json = serde_json::from_str(&json).expect("serde_json reads what it writes");
        match json {
            serde_json::Value::Object(variant) => {
                let (name, fields) = variant.into_iter().next().expect("an enum has a variant");
                let mut value = self.json(&fields);
                if let Kind::Record { name: label, .. } = &mut value.kind {
                    *label = Some(self.word(&name));
                }
                value
            }
            other => self.json(&other),
        }
    }

    fn json(&self, json: &serde_json::Value) -> Value {
        use serde_json::Value as Json;
        self.value(match json {
            Json::Null => Kind::Record { name: Some(self.word("None")), fields: Vec::new() },
            Json::Bool(value) => Kind::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Kind::Integer(whole.into()),
                None => Kind::Float(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Kind::Text(text.clone()),
            Json::Array(items) => Kind::List(items.iter().map(|item| self.json(item)).collect()),
            Json::Object(fields) => {
                let fields = fields.iter().filter(|(_, value)| !value.is_null());
                let field = |(name, value): (&String, &Json)| self.field(name, self.json(value));
                Kind::Record { name: None, fields: fields.map(field).collect() }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Request, job::Model, library, load, load_resolved};

    fn loaded(job: &str, sets: &[&str]) -> crate::Loaded {
        let sets = sets.iter().map(|set| set.to_string()).collect();
        let request = Request { job: job.into(), sets, ..Request::default() };
        load(&request).unwrap_or_else(|report| panic!("{report}"))
    }

    #[test]
    fn the_resolved_job_loads_to_the_same_job() {
        for (name, _) in library::JOBS {
            let loaded = loaded(name, &["seed=7", "plan.microbatch=2", "model.vocab=9999"]);
            let text = loaded.text();
            let again = load_resolved(&text).unwrap_or_else(|report| panic!("{report}\n{text}"));
            assert_eq!(again, loaded.whole, "{text}");
        }
    }

    #[test]
    fn the_printed_model_is_the_same_graph() {
        for (preset, _) in library::MODELS {
            let set = format!("model=Preset({preset:?})");
            let loaded = loaded("k2-nano", &[&set, "plan=Named(\"one\")"]);
            let graph = loaded.model_text().unwrap();
            let set = format!("model={graph}");
            let again = self::loaded("k2-nano", &[&set, "plan=Named(\"one\")"]);
            let Model::Graph(source) = &again.job.model else { panic!("{graph}") };
            assert_eq!(Some(source), loaded.job.model.source().as_ref(), "{graph}");
        }
    }

    #[test]
    fn every_value_tells_its_origin_and_what_it_beat() {
        let text = loaded("k2-nano", &["model.layers=5", "seed=1", "seed=2"]).origins();
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(line("model.layers: 5").ends_with("--set model.layers=5, over preset k2-nano:3"));
        let seed = line("seed: 2");
        assert!(seed.ends_with("--set seed=2, over --set seed=1, library job k2-nano:5"), "{seed}");
        let new = loaded("k2-nano", &["plan.mesh.dp=2"]).origins();
        assert!(new.contains("plans.main.mesh.dp: 2") && !new.contains(", over "), "{new}");
        assert!(line("model.hidden").ends_with("preset k2-nano:3"));
        assert!(line("plans.late.mesh.pp: 2").contains("library job k2-nano:11"), "{text}");
        let phases = loaded("k2-pretrain", &["actors.learner.phases.long.tokens=1"]).origins();
        assert!(phases.contains("actors.learner.phases.anneal.lr.to: 7e-6"), "{phases}");
        assert!(phases.contains("actors.learner.phases.long.tokens: 1 "), "{phases}");
    }
}
