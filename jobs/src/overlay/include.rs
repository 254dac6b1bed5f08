//! Reads files, library jobs and presets into the tree.

use std::path::{Path, PathBuf};

use crate::{
    code,
    de::suggestion,
    library,
    overlay::{Overlay, broken},
    parse::parse,
    report::Finding,
    source::{Origin, SourceId, Span},
    tree::{Kind, Value},
};

impl Overlay {
    /// Reads a job by its path or library name, laid over its base; `from` is who asks.
    pub fn job(&mut self, name: &str, from: Span) -> Value {
        let path = self.beside(name, from);
        let is_path = name.ends_with(".ron") || name.contains('/') || path.exists();
        let mut tree = match library::find(library::JOBS, name) {
            Some(text) if !is_path => {
                let source = self.sources.add(Origin::LibraryJob(name.into()), text);
                return parse(text, source, &mut self.findings);
            }
            None if !is_path => return self.no_such_job(name, from),
            _ => match self.enter(&path, from) {
                Some(tree) => tree,
                None => return broken(from),
            },
        };
        if let Some(base) = tree.take("base") {
            tree = self.based(base, tree);
        }
        self.open.pop();
        tree
    }

    fn based(&mut self, base: Value, tree: Value) -> Value {
        match base.text() {
            Some(name) => {
                let lower = self.job(name, base.span);
                if lower.kind == Kind::Broken { lower } else { self.merge(lower, tree) }
            }
            None => {
                let message = format!("expected the path of a job, found {}", base.described());
                self.findings.push(Finding::new(code::TYPE, message).at(base.span, ""));
                tree
            }
        }
    }

    fn no_such_job(&mut self, name: &str, from: Span) -> Value {
        let jobs = library::names(library::JOBS);
        let message = format!("`{name}` is no file and no library job");
        let near = suggestion(name, jobs.iter().copied());
        let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let help = match library::find(library::MODELS, name) {
            Some(_) => format!("it is a model; write `model: Preset({name:?})` in a job"),
            None => format!("library jobs are {}{near}", jobs.join(", ")),
        };
        self.findings.push(Finding::new(code::LIBRARY, message).at(from, "").help(help));
        broken(from)
    }

    /// A path as the file that says it means it: relative to that file.
    pub(super) fn beside(&self, path: &str, from: Span) -> PathBuf {
        match &self.sources.get(from.source).origin {
            Origin::File(file) => file.parent().unwrap_or(Path::new("")).join(path),
            _ => path.into(),
        }
    }

    /// Reads a file and marks it as open; nothing if it is open already or cannot be read.
    fn enter(&mut self, path: &Path, from: Span) -> Option<Value> {
        let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        if self.open.contains(&whole) {
            let names = self.open.iter().chain([&whole]).map(|path| name_of(path));
            let chain = names.collect::<Vec<_>>().join(" -> ");
            let message = format!("files read each other in a circle: {chain}");
            self.findings.push(Finding::new(code::CYCLE, message).at(from, "closes the circle"));
            return None;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let source = self.sources.add(Origin::File(path.into()), text.as_str());
                self.open.push(whole);
                Some(parse(&text, source, &mut self.findings))
            }
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                self.findings.push(Finding::new(code::FILE, message).at(from, ""));
                None
            }
        }
    }

    /// The value behind `File("x.ron")`, `Preset("x")` or `Csv("x.csv")`; any other as it is.
    pub fn opened(&mut self, value: Value) -> Value {
        if let Some((name, span)) = value.wrapped("Preset") {
            return self.preset(name, span);
        }
        if let Some((path, span)) = value.wrapped("Csv") {
            return self.orders(path, span);
        }
        match value.wrapped("File") {
            Some((path, span)) if path.ends_with(".ron") => {
                let path = path.to_string();
                self.file(&path, span)
            }
            _ => value,
        }
    }

    /// Reads the one value of a file, with all files that it names.
    pub fn file(&mut self, path: &str, from: Span) -> Value {
        let path = self.beside(path, from);
        let Some(value) = self.enter(&path, from) else { return broken(from) };
        let value = self.expanded(value);
        self.open.pop();
        value
    }

    /// Reads a model from a file, or a preset.
    pub fn model(&mut self, name: &str, from: Span) -> Value {
        let is_path = name.ends_with(".ron") || name.contains('/');
        if is_path { self.file(name, from) } else { self.preset(name, from) }
    }

    fn preset(&mut self, name: &str, from: Span) -> Value {
        let shelves = [library::MODELS, library::CLUSTERS];
        if let Some(text) = shelves.iter().find_map(|shelf| library::find(shelf, name)) {
            let source: SourceId = self.sources.add(Origin::Preset(name.into()), text);
            return parse(text, source, &mut self.findings);
        }
        let presets = shelves.map(library::names).concat();
        let near = suggestion(name, presets.iter().copied());
        let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let label = format!("presets are {}{near}", presets.join(", "));
        let message = format!("unknown preset `{name}`");
        self.findings.push(Finding::new(code::LIBRARY, message).at(from, label));
        broken(from)
    }

    /// A value with every preset and file in it replaced by what it stands for.
    pub fn expanded(&mut self, value: Value) -> Value {
        let mut value = self.opened(value);
        match &mut value.kind {
            Kind::List(items) | Kind::Tuple { items, .. } => {
                items.iter_mut().for_each(|item| self.expand(item));
            }
            Kind::Map(entries) => entries.iter_mut().for_each(|(_, value)| self.expand(value)),
            Kind::Record { fields, .. } => {
                fields.iter_mut().for_each(|field| self.expand(&mut field.value));
            }
            _ => {}
        }
        value
    }

    fn expand(&mut self, value: &mut Value) {
        let whole = std::mem::replace(value, broken(value.span));
        *value = self.expanded(whole);
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
