//! From a model as written to a checked graph: names, sources, shapes, parameters.

use std::collections::BTreeMap;

use ops::{Dim, Kind, Op, Spec};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::{
    model::{Clip, Edge, ModelError, ModelGraph, Node, NodeId, Parameter, Source},
    source::{GraphSource, Item, NodeSource},
};

/// Nodes of the largest model; a trillion-parameter one has two thousand.
const NODE_LIMIT: usize = 200_000;

const RESERVED: [&str; 3] = ["tokens", "targets", "in"];

impl ModelGraph {
    /// Checks a model as written.
    ///
    /// # Errors
    ///
    /// All the [`ModelError`]s there are, in the order of the nodes.
    pub fn new(source: &GraphSource) -> Result<Self, Vec<ModelError>> {
        let rows = flatten(source)?;
        sizes::check(&rows)?;
        let mut builder = Builder::new(&rows);
        rows.iter().for_each(|row| builder.add(row));
        if builder.errors.is_empty() {
            builder.check_whole();
            builder.find_clips();
        }
        match builder.errors.is_empty() {
            true => Ok(builder.finished()),
            false => Err(builder.errors),
        }
    }
}

/// A node with its repeats written out.
struct Row<'a> {
    written: &'a NodeSource,
    name: String,
    /// What stands before the names of its block, if it is in one.
    prefix: Option<String>,
    layer: Option<usize>,
    /// Row where its block began.
    first: usize,
}

/// Writes out the repeats.
fn flatten(source: &GraphSource) -> Result<Vec<Row<'_>>, Vec<ModelError>> {
    check_blocks(source)?;
    let (mut rows, mut layers) = (Vec::new(), 0);
    for item in &source.nodes {
        match item {
            Item::Node(node) => rows.push(row(node, None, rows.len())),
            Item::Repeat(block, times) => {
                for layer in layers..layers + times {
                    let first = rows.len();
                    rows.extend(source.blocks[block].iter().map(|n| row(n, Some(layer), first)));
                }
                layers += times;
            }
        }
    }
    if rows.is_empty() { Err(vec![ModelError::Empty]) } else { Ok(rows) }
}

/// Makes sure that writing out the repeats is possible and ends.
fn check_blocks(source: &GraphSource) -> Result<(), Vec<ModelError>> {
    let (mut errors, mut nodes) = (Vec::new(), 0_usize);
    for item in &source.nodes {
        nodes = nodes.saturating_add(match item {
            Item::Node(_) => 1,
            Item::Repeat(block, times) => match source.blocks.get(block) {
                Some(block) => block.len().max(1).saturating_mul(*times),
                None => {
                    let known = source.blocks.keys().cloned().collect();
                    errors.push(ModelError::UnknownBlock { block: block.clone(), known });
                    0
                }
            },
        });
    }
    if nodes > NODE_LIMIT {
        errors.push(ModelError::TooLong { got: nodes, limit: NODE_LIMIT });
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn row(written: &NodeSource, layer: Option<usize>, first: usize) -> Row<'_> {
    let prefix = layer.map(|number| format!("model.layers.{number}."));
    let own = if written.name.is_empty() { snake(written.op.name()) } else { written.name.clone() };
    let name = format!("{}{own}", prefix.as_deref().unwrap_or(""));
    Row { written, name, prefix, layer, first }
}

/// `RmsNorm` as `rms_norm`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// The graph as far as it has been read.
struct Builder {
    graph: DiGraph<Node, Edge>,
    /// Shapes of the outputs of each node; none after a mistake, so that one causes no other.
    shapes: Vec<Option<Vec<Spec>>>,
    names: BTreeMap<String, NodeId>,
    parameters: Vec<Parameter>,
    clips: Vec<Clip>,
    errors: Vec<ModelError>,
}

impl Builder {
    /// Collects the names, so that a mistake can tell a later node from one that is nowhere.
    fn new(rows: &[Row<'_>]) -> Self {
        let (mut names, mut errors) = (BTreeMap::new(), Vec::new());
        for (id, row) in rows.iter().enumerate() {
            if RESERVED.contains(&row.name.as_str()) {
                errors.push(ModelError::ReservedName { name: row.name.clone() });
            }
            if names.insert(row.name.clone(), id).is_some() {
                errors.push(ModelError::DuplicateName { name: row.name.clone() });
            }
        }
        let (shapes, parameters, clips) = (Vec::new(), Vec::new(), Vec::new());
        Builder { graph: DiGraph::new(), shapes, names, parameters, clips, errors }
    }

    /// Adds one node, with its edges, shapes and parameters.
    fn add(&mut self, row: &Row<'_>) {
        let id = self.graph.node_count();
        let inputs = self.sources(id, row);
        let outputs = inputs.as_ref().and_then(|inputs| self.outputs(row, inputs));
        let first = self.parameters.len();
        if outputs.is_some() {
            self.add_parameters(id, row);
        }
        let node = Node {
            name: row.name.clone(),
            op: row.written.op.clone(),
            layer: row.layer,
            inputs: inputs.unwrap_or_default(),
            outputs: outputs.clone().unwrap_or_default(),
            parameters: first..self.parameters.len(),
        };
        self.shapes.push(outputs);
        let edges: Vec<_> = node.inputs.iter().copied().enumerate().collect();
        let this = self.graph.add_node(node);
        for (input, source) in edges {
            if let Source::Node { node, port } = source {
                self.graph.add_edge(NodeIndex::new(node), this, Edge { port, input });
            }
        }
    }

    /// What a row reads; none if any of it is wrong.
    fn sources(&mut self, id: NodeId, row: &Row<'_>) -> Option<Vec<Source>> {
        if row.written.from.is_empty() {
            return Some(vec![self.default_source(id, row)?]);
        }
        let mut sources = Vec::new();
        for from in &row.written.from {
            match self.source(id, row, from) {
                Ok(source) => sources.push(source),
                Err(error) => self.errors.push(error),
            }
        }
        (sources.len() == row.written.from.len()).then_some(sources)
    }

    /// The node before; for the first node the tokens, if it can read them.
    fn default_source(&mut self, id: NodeId, row: &Row<'_>) -> Option<Source> {
        match (id, &row.written.op) {
            (_, Op::Embedding(_)) => Some(Source::Tokens),
            (0, _) => {
                self.errors.push(ModelError::NothingBefore { node: row.name.clone() });
                None
            }
            _ => Some(Source::Node { node: id - 1, port: 0 }),
        }
    }

    /// What one name means to one row.
    fn source(&self, id: NodeId, row: &Row<'_>, from: &str) -> Result<Source, ModelError> {
        let node = || row.name.clone();
        match (from, &row.prefix) {
            ("tokens", _) => return Ok(Source::Tokens),
            ("targets", _) => return Ok(Source::Targets),
            ("in", None) => return Err(ModelError::NoBlock { node: node() }),
            ("in", Some(_)) if row.first == 0 => {
                return Err(ModelError::NothingBefore { node: node() });
            }
            ("in", Some(_)) => return Ok(Source::Node { node: row.first - 1, port: 0 }),
            _ => {}
        }
        let Some((found, port)) = self.find(row, from) else {
            let near = self.near(row, from);
            return Err(ModelError::UnknownSource { node: node(), from: from.into(), near });
        };
        if found >= id {
            return Err(ModelError::ForwardReference { node: node(), from: from.into() });
        }
        match &self.shapes[found] {
            Some(outputs) if port >= outputs.len() => {
                let outputs = outputs.len();
                Err(ModelError::NoOutput { node: node(), from: from.into(), outputs })
            }
            _ => Ok(Source::Node { node: found, port }),
        }
    }

    /// The node and output a name means: the block's own names first, then whole names.
    fn find(&self, row: &Row<'_>, from: &str) -> Option<(NodeId, usize)> {
        let named = |name: &str| {
            let own = row.prefix.as_ref().map(|prefix| format!("{prefix}{name}"));
            own.and_then(|name| self.names.get(&name)).or_else(|| self.names.get(name)).copied()
        };
        named(from).map(|id| (id, 0)).or_else(|| {
            let (name, port) = from.rsplit_once('.')?;
            Some((named(name)?, port.parse().ok()?))
        })
    }

    /// A name the row may use that differs by a letter or two.
    fn near(&self, row: &Row<'_>, from: &str) -> Option<String> {
        let prefix = row.prefix.as_deref().unwrap_or("");
        let own = self.names.keys().filter_map(|name| name.strip_prefix(prefix));
        own.map(|name| (distance(name, from), name))
            .filter(|&(distance, _)| distance <= 2)
            .min()
            .map(|(_, name)| name.to_string())
    }

    /// Shapes of a row's outputs, from those of its inputs.
    fn outputs(&mut self, row: &Row<'_>, inputs: &[Source]) -> Option<Vec<Spec>> {
        let indices = || Some(Spec { dims: vec![Dim::Tokens], kind: Kind::Index });
        let shape = |source: &Source| match *source {
            Source::Tokens | Source::Targets => indices(),
            Source::Node { node, port } => self.shapes[node].as_ref()?.get(port).cloned(),
        };
        let inputs: Vec<Spec> = inputs.iter().map(shape).collect::<Option<_>>()?;
        match row.written.op.operator().infer(&inputs) {
            Ok(outputs) => Some(outputs),
            Err(source) => {
                self.errors.push(ModelError::Shape { node: row.name.clone(), source });
                None
            }
        }
    }

    /// Names the weights of a row's operator.
    fn add_parameters(&mut self, id: NodeId, row: &Row<'_>) {
        for (index, spec) in row.written.op.operator().weights().into_iter().enumerate() {
            let node = match spec.expert {
                Some(expert) => row.name.replace('*', &expert.to_string()),
                None => row.name.clone(),
            };
            let name = format!("{node}.{}", spec.name);
            let expert = spec.expert;
            self.parameters.push(Parameter { name, node: id, index, expert, spec });
        }
    }

    fn finished(self) -> ModelGraph {
        let Builder { graph, parameters, clips, .. } = self;
        ModelGraph { graph, parameters, clips, classes: Vec::new() }.classified()
    }
}

/// Letters to change, add or drop to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let best = (corner + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

mod sizes;
mod whole;

#[cfg(test)]
mod tests;
