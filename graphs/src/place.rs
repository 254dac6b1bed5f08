//! Where the model is cut into chunks.
//!
//! A cut is legal where exactly one tensor of activations crosses, after half a layer too. A
//! balanced cut is the best there is for the given prices: contiguous chunks, dearest chunk as
//! cheap as can be, by dynamic programming.

use std::ops::Range;

use ops::{Cost, Op};

use crate::{
    error::PlanError,
    model::{ModelGraph, NodeId, Source},
    plan::Batch,
    spec::{Balanced, Part, Stages},
};

mod explicit;

/// The nodes of each of `chunks` chunks, in the order of the model.
///
/// # Errors
///
/// All the [`PlanError`]s of the cut.
pub fn place(
    graph: &ModelGraph,
    stages: &Stages,
    chunks: usize,
    batch: Batch,
) -> Result<Vec<Range<NodeId>>, Vec<PlanError>> {
    let cuts = match stages {
        Stages::Explicit(shares) => explicit::cuts(graph, shares, chunks)?,
        Stages::Balanced(ends) => balanced(graph, ends, chunks, batch).map_err(|e| vec![e])?,
    };
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(graph.len()));
    Ok(starts.zip(ends).map(|(start, end)| start..end).collect())
}

/// Price of each node: floating-point operations of forward and backward for one unit.
///
/// Routed experts are priced by their average rows: every rank of `ep` sends its share of
/// `t * k` rows to each, so `t * k` rows arrive.
pub fn prices(graph: &ModelGraph, batch: Batch) -> Vec<f64> {
    let tokens = batch.microbatch * batch.context;
    let mut rows = Vec::with_capacity(graph.len());
    let mut prices = Vec::with_capacity(graph.len());
    for node in graph.nodes() {
        let own = match (&node.op, node.inputs.first()) {
            (Op::Dispatch(op), _) => tokens * op.experts_per_token,
            (_, Some(&Source::Node { node: from, .. })) if node.on_experts() => rows[from],
            _ => tokens,
        };
        rows.push(own);
        let amount = if node.on_experts() { own } else { tokens };
        prices.push(flops(node.op.operator().cost(amount, batch.context)));
    }
    prices
}

fn flops(cost: Cost) -> f64 {
    cost.forward_flops + cost.input_flops + cost.weight_flops
}

/// The part of the model a node belongs to, if it is outside the layers.
fn part(graph: &ModelGraph, id: NodeId) -> Option<Part> {
    let node = graph.node(id);
    let before_head = id + 2 == graph.len();
    match node.op {
        _ if node.layer.is_some() => None,
        Op::Embedding(_) => Some(Part::Embed),
        Op::RmsNorm(_) if before_head => Some(Part::Norm),
        Op::CrossEntropy(_) => Some(Part::Head),
        _ => None,
    }
}

/// Whether a list of parts names the part; head and loss are one node.
fn names(parts: &[Part], part: Part) -> bool {
    let same = |&named: &Part| named == part || (part == Part::Head && named == Part::Loss);
    parts.iter().any(same)
}

fn balanced(
    graph: &ModelGraph,
    ends: &Balanced,
    chunks: usize,
    batch: Batch,
) -> Result<Vec<NodeId>, PlanError> {
    let named = |parts: &[Part], id: &NodeId| part(graph, *id).is_some_and(|p| names(parts, p));
    let lowest = (0..graph.len()).rfind(|id| named(&ends.first, id)).map_or(0, |id| id + 1);
    let highest = (0..graph.len()).find(|id| named(&ends.last, id)).unwrap_or(graph.len());
    let mut cuts = graph.cut_points();
    cuts.retain(|cut| (lowest..=highest).contains(cut));
    if chunks > cuts.len() + 1 {
        return Err(PlanError::TooFewCuts { wanted: chunks, most: cuts.len() + 1 });
    }
    let prices = prices(graph, batch);
    cuts.push(graph.len());
    let mut start = 0;
    let piece = |&end: &NodeId| {
        let price = prices[start..end].iter().sum();
        start = end;
        price
    };
    let pieces: Vec<f64> = cuts.iter().map(piece).collect();
    Ok(lightest(&pieces, chunks).into_iter().map(|piece| cuts[piece]).collect())
}

/// Joins pieces to `chunks` runs whose dearest is as cheap as can be; returns the last piece of
/// each run but the last. Among equals the earlier cut wins.
fn lightest(pieces: &[f64], chunks: usize) -> Vec<usize> {
    let mut sums = vec![0.0];
    sums.extend(pieces.iter().scan(0.0, |sum, piece| {
        *sum += piece;
        Some(*sum)
    }));
    let n = pieces.len();
    // `best[k][end]`: price of the dearest of k + 1 runs of the first `end` pieces, and where
    // the last of them starts.
    let mut best = vec![sums.iter().map(|&sum| (sum, 0)).collect::<Vec<(f64, usize)>>()];
    for run in 1..chunks {
        let row = (0..=n).map(|end| {
            let price = |start: usize| f64::max(best[run - 1][start].0, sums[end] - sums[start]);
            let starts = (run..end).map(|start| (price(start), start));
            starts.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, 0))
        });
        best.push(row.collect());
    }
    let (mut cuts, mut end) = (Vec::new(), n);
    for run in (1..chunks).rev() {
        end = best[run][end].1;
        cuts.push(end - 1);
    }
    cuts.reverse();
    cuts
}

#[cfg(test)]
mod tests;
