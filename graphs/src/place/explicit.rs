//! Cuts written by hand: so many layers for each chunk, and which parts beside them.

use std::ops::Range;

use super::{names, part};
use crate::{
    error::PlanError,
    model::{ModelGraph, NodeId},
    spec::{Part, Share},
};

/// What stays together: one layer, or one part outside the layers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Layer(usize),
    Part(Part),
}

/// First nodes of all chunks but the first.
pub(super) fn cuts(
    graph: &ModelGraph,
    shares: &[Share],
    chunks: usize,
) -> Result<Vec<NodeId>, Vec<PlanError>> {
    if shares.len() != chunks {
        return Err(vec![PlanError::Shares { got: shares.len(), expected: chunks }]);
    }
    let units = units(graph);
    let wrong = mistakes(&units, shares);
    if !wrong.is_empty() {
        return Err(wrong.into_iter().map(PlanError::Explicit).collect());
    }
    let starts: Vec<NodeId> = (1..chunks)
        .filter_map(|chunk| units.iter().find(|(unit, _)| holder(shares, *unit) == chunk))
        .map(|(_, nodes)| nodes.start)
        .collect();
    let legal = graph.cut_points();
    let bad = starts.iter().filter(|cut| !legal.contains(cut));
    let errors: Vec<PlanError> = bad
        .map(|&cut| {
            let (node, tensors) = (graph.node(cut).name.clone(), graph.crossing(cut).len());
            PlanError::Cut { node, tensors }
        })
        .collect();
    if errors.is_empty() { Ok(starts) } else { Err(errors) }
}

/// The units of a model in order; a node that is no known part stays with the unit before it.
fn units(graph: &ModelGraph) -> Vec<(Unit, Range<NodeId>)> {
    let mut units: Vec<(Unit, Range<NodeId>)> = Vec::new();
    for (id, node) in graph.nodes().enumerate() {
        let before = units.last().map(|(unit, _)| *unit);
        let unit = match (node.layer, part(graph, id)) {
            (Some(layer), _) => Unit::Layer(layer),
            (None, Some(part)) => Unit::Part(part),
            (None, None) => before.unwrap_or(Unit::Part(Part::Embed)),
        };
        match units.last_mut() {
            Some((last, nodes)) if *last == unit => nodes.end = id + 1,
            _ => units.push((unit, id..id + 1)),
        }
    }
    units
}

/// The entry that holds a unit; parts that no entry names stay at their end of the model.
fn holder(shares: &[Share], unit: Unit) -> usize {
    match unit {
        Unit::Layer(layer) => {
            let mut end = 0;
            let holds = |share: &Share| {
                end += share.layers;
                layer < end
            };
            shares.iter().position(holds).unwrap_or(shares.len())
        }
        Unit::Part(part) => {
            let home = if part == Part::Embed { 0 } else { shares.len() - 1 };
            shares.iter().position(|share| names(&share.with, part)).unwrap_or(home)
        }
    }
}

fn mistakes(units: &[(Unit, Range<NodeId>)], shares: &[Share]) -> Vec<String> {
    let mut wrong = Vec::new();
    let layers = units.iter().filter(|(unit, _)| matches!(unit, Unit::Layer(_))).count();
    let asked = shares.iter().fold(0_usize, |sum, share| sum.saturating_add(share.layers));
    if asked != layers {
        wrong.push(format!("hold {asked} layers together, but the model has {layers}"));
        return wrong;
    }
    for part in [Part::Embed, Part::Norm, Part::Head] {
        let entries = shares.iter().filter(|share| names(&share.with, part)).count();
        if entries > 1 {
            wrong.push(format!("name {part:?} in {entries} entries"));
        }
    }
    let holders: Vec<usize> = units.iter().map(|&(unit, _)| holder(shares, unit)).collect();
    for (pair, at) in units.windows(2).zip(holders.windows(2)) {
        if at[0] > at[1] {
            let (first, second) = (say(pair[0].0), say(pair[1].0));
            wrong.push(format!("put {first} after {second}: entry {} before {}", at[1], at[0]));
        }
    }
    let empty = (0..shares.len()).filter(|chunk| !holders.contains(chunk));
    wrong.extend(empty.map(|chunk| format!("leave entry {chunk}, counted from 0, without a node")));
    wrong
}

fn say(unit: Unit) -> String {
    match unit {
        Unit::Layer(layer) => format!("layer {layer}"),
        Unit::Part(part) => format!("{part:?}"),
    }
}
