//! Segments, visits and channels of the small model.

use super::*;
use crate::decoder::tests::nano;

fn graph() -> ModelGraph {
    ModelGraph::new(&nano().expand()).unwrap()
}

#[test]
fn a_segment_ends_with_the_dispatch_and_the_next_begins_with_its_combine() {
    let graph = graph();
    let chunk = chunk(&graph, 0..graph.len(), 0, 2);
    let name = |id: NodeId| graph.node(id).name.rsplit('.').next().unwrap().to_string();
    assert_eq!(chunk.segments.len(), 4);
    for (before, after) in chunk.segments.iter().zip(&chunk.segments[1..]) {
        assert_eq!(name(*before.last().unwrap()), "dispatch");
        assert_eq!(name(after[0]), "combine");
    }
}

#[test]
fn rows_counts_and_shares_cross_to_the_experts_and_rows_cross_back() {
    let graph = graph();
    let chunk = chunk(&graph, 0..graph.len(), 0, 2);
    let visit = &chunk.visits[0];
    let dispatch = *chunk.segments[0].last().unwrap();
    let last = visit.nodes.last().unwrap().0;
    assert_eq!(visit.inputs, [(dispatch, 0), (dispatch, 1), (dispatch, 2)]);
    assert_eq!(visit.outputs, [(last, 0)]);
    assert_eq!(graph.node(last).name, "model.layers.1.mlp.experts.weigh");
}

#[test]
fn each_channel_has_its_cargo_to_itself() {
    let graph = graph();
    let cut = graph.cut_points()[4];
    let chunks = [chunk(&graph, 0..cut, 0, 1), chunk(&graph, cut..graph.len(), 1, 1)];
    let channels = channels(&chunks);
    let visits: usize = chunks.iter().map(|chunk| chunk.visits.len()).sum();
    assert_eq!(channels.len(), 2 + 4 * visits);
    let routes = Routes::new(&channels);
    for (id, channel) in channels.iter().enumerate() {
        assert_eq!(routes.get(channel.cargo), Some(id));
    }
    let ends = |id: Option<ChannelId>| id.map(|id| (channels[id].from.0, channels[id].to.0));
    assert_eq!(ends(routes.input(1)), Some((0, 1)));
    assert_eq!(ends(routes.output_gradient(0)), Some((1, 0)));
    assert_eq!((routes.input(0), routes.output_gradient(1)), (None, None));
}
