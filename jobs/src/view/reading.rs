//! What can be read off a step: busy and idle time, activations held, the critical path.

use std::collections::BTreeMap;

use graphs::timeline::{Cause, Kind, Lane, Span, Timeline};

use crate::view::marks::Track;

/// Idle time of a rank's computation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// When the rank was free.
    pub start: f64,
    /// When it had work again.
    pub end: f64,
    /// What was missing.
    pub cause: Cause,
}

/// Time in which a rank computes, whatever runs beside it counted once.
pub fn busy(spans: &[Span]) -> f64 {
    let mut end = f64::MIN;
    computed(spans).fold(0.0, |sum, span| {
        let own = (span.end - span.start.max(end)).max(0.0);
        end = end.max(span.end);
        sum + own
    })
}

/// The idle times of a rank until the step ends.
pub fn gaps(spans: &[Span], makespan: f64) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut free = 0.0;
    for span in computed(spans) {
        if free < span.start {
            let otherwise = if free == 0.0 { Cause::WarmUp } else { Cause::Data };
            let cause = span.wait.map_or(otherwise, |wait| wait.cause);
            gaps.push(Gap { start: free, end: span.start, cause });
        }
        free = f64::max(free, span.end);
    }
    if free < makespan {
        gaps.push(Gap { start: free, end: makespan, cause: Cause::CoolDown });
    }
    gaps
}

/// Idle time of a rank by cause.
pub fn idle(spans: &[Span], makespan: f64) -> BTreeMap<Cause, f64> {
    let mut idle = BTreeMap::new();
    for gap in gaps(spans, makespan) {
        *idle.entry(gap.cause).or_insert(0.0) += gap.end - gap.start;
    }
    idle
}

/// The computation of a rank by start, stage and experts together.
fn computed(spans: &[Span]) -> impl Iterator<Item = &Span> {
    let mut all: Vec<&Span> = spans.iter().filter(|span| span.lane == Lane::Compute).collect();
    all.sort_by(|a, b| a.start.total_cmp(&b.start));
    all.into_iter()
}

/// Activations that a rank holds from a time on: one more with each forward pass, one less with
/// each gradient of the weights.
pub fn held(spans: &[Span]) -> Vec<(f64, usize)> {
    // The first part of a forward pass takes memory, the last part of a backward pass frees it.
    let mut begun: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    let mut freed: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.lane == Lane::Compute) {
        let key = (span.task.chunk, span.task.microbatch);
        match span.task.kind {
            Kind::Forward => {
                let start = begun.entry(key).or_insert(span.start);
                *start = start.min(span.start);
            }
            Kind::BackwardWeight | Kind::Backward => {
                let end = freed.entry(key).or_insert(span.end);
                *end = end.max(span.end);
            }
            _ => {}
        }
    }
    let more = begun.into_values().map(|time| (time, 1));
    let mut changes: Vec<(f64, isize)> =
        more.chain(freed.into_values().map(|time| (time, -1))).collect();
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let add = |sum: &mut isize, (time, change): (f64, isize)| {
        *sum += change;
        Some((time, (*sum).max(0) as usize))
    };
    changes.into_iter().scan(0, add).collect()
}

/// The most that is held at a time.
pub fn peak(held: &[(f64, usize)]) -> usize {
    held.iter().map(|(_, held)| *held).max().unwrap_or(0)
}

/// Finds spans by rank and number: their position in the rank.
///
/// Messages may share the number of the computation that makes them, which then stands first.
pub fn places(timeline: &Timeline) -> BTreeMap<(usize, usize), usize> {
    let mut places = BTreeMap::new();
    for (rank, spans) in timeline.ranks.iter().enumerate() {
        for (place, span) in spans.iter().enumerate() {
            places.entry((rank, span.id)).or_insert(place);
        }
    }
    places
}

/// What a span came after: what it waited for, or else what its lane did before.
pub fn before(
    timeline: &Timeline,
    places: &BTreeMap<(usize, usize), usize>,
    (rank, place): (usize, usize),
) -> Option<(usize, usize)> {
    let spans = &timeline.ranks[rank];
    let span = &spans[place];
    let waited = span.wait.and_then(|wait| wait.on);
    let waited = waited.and_then(|on| places.get(&on).map(|&place| (on.0, place)));
    let own = Track::of(span);
    let same = || (0..place).rev().find(|&before| Track::of(&spans[before]) == own);
    let earlier = || match span.lane {
        Lane::Communication => maker(spans, place).or_else(same),
        _ => same(),
    };
    let earlier = || earlier().map(|place| (rank, place));
    waited.or_else(earlier)
}

/// The computation that made a message: the last of its side that was done when it left.
fn maker(spans: &[Span], message: usize) -> Option<usize> {
    let sent = spans[message];
    let track = match sent.task.kind {
        Kind::Combine | Kind::DispatchGradients => Track::Experts,
        _ => Track::Compute,
    };
    // Compute spans stand first in a rank, by start.
    let begun =
        spans.partition_point(|span| span.lane == Lane::Compute && span.start <= sent.start);
    let done = |at: &usize| Track::of(&spans[*at]) == track && spans[*at].end <= sent.start;
    (0..begun).rev().find(done)
}

/// The chain of spans that ends last, from its end to the begin of the step, as rank and place.
pub fn critical_path(timeline: &Timeline) -> Vec<(usize, usize)> {
    let places = places(timeline);
    let all = timeline.ranks.iter().enumerate();
    let all = all.flat_map(|(rank, spans)| (0..spans.len()).map(move |place| (rank, place)));
    let end = |&(rank, place): &(usize, usize)| timeline.ranks[rank][place].end;
    let last = all.max_by(|a, b| end(a).total_cmp(&end(b)));
    let most = timeline.ranks.iter().map(Vec::len).sum();
    std::iter::successors(last, |&at| before(timeline, &places, at)).take(most).collect()
}

#[cfg(test)]
mod tests {
    use graphs::{
        bare::Bare,
        csv,
        simulate::{Costs, timeline},
    };

    use super::*;

    fn step(text: &str) -> Timeline {
        let bare = Bare::new(csv::read(text).unwrap()).unwrap();
        timeline(
            &bare,
            &Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.5, handling: 0.0, pair: None },
        )
        .unwrap()
    }

    #[test]
    fn busy_and_idle_time_make_up_the_step() {
        let step = step("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1");
        let makespan = step.makespan();
        for spans in &step.ranks {
            let idle: f64 = idle(spans, makespan).values().sum();
            assert_eq!(busy(spans) + idle, makespan);
        }
        assert_eq!(idle(&step.ranks[1], makespan)[&Cause::WarmUp], 1.5);
    }

    #[test]
    fn a_forward_pass_is_held_until_its_weight_gradient() {
        let step = step("0F0,0F1,0I0,0I1,0W0,0W1");
        assert_eq!(held(&step.ranks[0]), [(0.0, 1), (1.0, 2), (5.0, 1), (6.0, 0)]);
        assert_eq!(peak(&held(&step.ranks[0])), 2);
    }

    #[test]
    fn the_critical_path_has_no_hole_but_messages() {
        let step = step("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1");
        let path = critical_path(&step);
        let span = |&(rank, place): &(usize, usize)| step.ranks[rank][place];
        assert_eq!(span(&path[0]).end, step.makespan());
        assert_eq!(span(path.last().unwrap()).start, 0.0);
        for pair in path.windows(2) {
            let hole = span(&pair[0]).start - span(&pair[1]).end;
            assert!((0.0..=0.5).contains(&hole), "{pair:?}");
        }
    }
}
