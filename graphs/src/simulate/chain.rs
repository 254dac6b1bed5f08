//! What the chain that a step waits for is made of.

use std::collections::BTreeMap;

use crate::timeline::{Kind, Span, Timeline};

/// What one kind of work of one rank adds to the chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The rank.
    pub rank: usize,
    /// The kind.
    pub kind: Kind,
    /// Seconds of the step that pass in it, latencies before it included.
    pub seconds: f64,
    /// Number of spans.
    pub spans: usize,
}

/// Sums a chain up by rank and kind, longest first.
pub fn chain(timeline: &Timeline, chain: &[usize]) -> Vec<Link> {
    let spans = found(timeline, chain);
    let mut links: BTreeMap<(usize, Kind), Link> = BTreeMap::new();
    let mut since = 0.0;
    for (rank, span) in spans.into_iter().flatten() {
        let kind = span.task.kind;
        let link = links.entry((rank, kind)).or_insert(Link { rank, kind, seconds: 0.0, spans: 0 });
        link.seconds += f64::max(span.end - since, 0.0);
        link.spans += 1;
        since = f64::max(since, span.end);
    }
    let mut links: Vec<Link> = links.into_values().collect();
    links.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    links
}

/// The spans of a chain with their ranks, in its order.
fn found(timeline: &Timeline, chain: &[usize]) -> Vec<Option<(usize, Span)>> {
    let mut places: Vec<(usize, usize)> = chain.iter().copied().zip(0..).collect();
    places.sort_unstable();
    let mut found = vec![None; chain.len()];
    for (rank, spans) in timeline.ranks.iter().enumerate() {
        for span in spans {
            if let Ok(place) = places.binary_search_by_key(&span.id, |&(id, _)| id) {
                found[places[place].1] = Some((rank, *span));
            }
        }
    }
    found
}
