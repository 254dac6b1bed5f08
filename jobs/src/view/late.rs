//! A run against its plan: how late each span ended, and whose fault it was.
//!
//! `late = own + inherited + queueing`. *Own* is the measured length minus the planned one;
//! *inherited* is how late that ended which the span came after (what it waited for, or else what
//! its lane did before); *queueing* is the rest: time in which the span could have begun and did
//! not, less the slack that the plan had there.

use std::collections::BTreeMap;

use graphs::timeline::{Kind, Span, Task, Timeline};

use crate::view::{marks::Track, reading};

/// How late a span ended, in the unit of the timelines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Late {
    /// Rank of the span.
    pub rank: usize,
    /// Where it stands in the measured rank.
    pub place: usize,
    /// What it did.
    pub task: Task,
    /// Measured length minus planned length.
    pub own: f64,
    /// Lateness of what it came after.
    pub inherited: f64,
    /// The rest.
    pub queueing: f64,
}

impl Late {
    /// Measured end minus planned end.
    pub fn total(&self) -> f64 {
        self.own + self.inherited + self.queueing
    }

    /// What this span added to the lateness of others.
    pub fn added(&self) -> f64 {
        self.own + self.queueing
    }
}

/// How the lengths of one kind of work compare.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ratio {
    /// Spans that are in both.
    pub count: usize,
    /// Sum of the planned lengths.
    pub planned: f64,
    /// Sum of the measured lengths.
    pub measured: f64,
    /// Spans by measured over planned length, between [`BOUNDS`].
    pub histogram: [usize; 6],
}

/// Bounds of the histogram of measured over planned lengths.
pub const BOUNDS: [f64; 5] = [0.5, 0.8, 1.0, 1.25, 2.0];

type Key = (usize, Track, Task);

fn keyed(timeline: &Timeline) -> BTreeMap<Key, &Span> {
    let ranks = timeline.ranks.iter().enumerate();
    let spans = ranks.flat_map(|(rank, spans)| spans.iter().map(move |span| (rank, span)));
    spans.map(|(rank, span)| ((rank, Track::of(span), span.task), span)).collect()
}

/// The lateness of every span that is in both timelines.
pub fn lateness(planned: &Timeline, measured: &Timeline) -> Vec<Late> {
    let plan = keyed(planned);
    let places = reading::places(measured);
    let matching = |rank: usize, place: usize| {
        let span = &measured.ranks[rank][place];
        plan.get(&(rank, Track::of(span), span.task)).map(|planned| (*planned, span))
    };
    let mut all = Vec::new();
    for (rank, spans) in measured.ranks.iter().enumerate() {
        for place in 0..spans.len() {
            let Some((planned, span)) = matching(rank, place) else { continue };
            let before = reading::before(measured, &places, (rank, place));
            let before = before.and_then(|(rank, place)| matching(rank, place));
            let inherited = before.map_or(0.0, |(planned, span)| span.end - planned.end);
            let own = (span.end - span.start) - (planned.end - planned.start);
            let queueing = span.end - planned.end - own - inherited;
            all.push(Late { rank, place, task: span.task, own, inherited, queueing });
        }
    }
    all
}

/// The spans that added most to lateness, or took most of it away.
pub fn surprises(mut late: Vec<Late>, most: usize) -> Vec<Late> {
    late.sort_by(|a, b| b.added().abs().total_cmp(&a.added().abs()));
    late.truncate(most);
    late
}

/// How planned and measured lengths compare, kind by kind.
pub fn ratios(planned: &Timeline, measured: &Timeline) -> BTreeMap<Kind, Ratio> {
    let measured = keyed(measured);
    let mut ratios: BTreeMap<Kind, Ratio> = BTreeMap::new();
    for (key, planned) in keyed(planned) {
        let Some(measured) = measured.get(&key) else { continue };
        let (plan, real) = (planned.end - planned.start, measured.end - measured.start);
        let ratio = ratios.entry(key.2.kind).or_default();
        ratio.count += 1;
        ratio.planned += plan;
        ratio.measured += real;
        let bin = BOUNDS.iter().filter(|bound| **bound * plan < real).count();
        ratio.histogram[bin] += 1;
    }
    ratios
}

#[cfg(test)]
mod tests {
    use graphs::timeline::{Cause, Lane, Wait};

    use super::*;

    fn span(id: usize, kind: Kind, times: (f64, f64), on: Option<(usize, usize)>) -> Span {
        let task = Task { kind, chunk: 0, segment: 0, microbatch: 0 };
        let wait = on.map(|on| Wait { since: 0.0, cause: Cause::Data, on: Some(on) });
        Span { id, lane: Lane::Compute, task, start: times.0, end: times.1, wait }
    }

    fn step(first: (f64, f64), second: (f64, f64)) -> Timeline {
        let first = span(0, Kind::Forward, first, None);
        let second = span(1, Kind::Backward, second, Some((0, 0)));
        Timeline { ranks: vec![vec![first], vec![second]] }
    }

    #[test]
    fn lateness_is_split_into_own_inherited_and_queueing() {
        let planned = step((0.0, 1.0), (1.0, 3.0));
        let measured = step((0.0, 1.5), (2.0, 4.25));
        let late = lateness(&planned, &measured);
        let split: Vec<_> = late.iter().map(|l| (l.own, l.inherited, l.queueing)).collect();
        assert_eq!(split, [(0.5, 0.0, 0.0), (0.25, 0.5, 0.5)]);
        assert_eq!(late[1].total(), 4.25 - 3.0);
        assert_eq!(surprises(late, 1)[0].rank, 1);
    }

    #[test]
    fn lengths_are_compared_kind_by_kind() {
        let planned = step((0.0, 1.0), (1.0, 3.0));
        let measured = step((0.0, 1.5), (2.0, 4.25));
        let ratios = ratios(&planned, &measured);
        assert_eq!(ratios[&Kind::Forward].histogram, [0, 0, 0, 0, 1, 0]);
        let backward =
            Ratio { count: 1, planned: 2.0, measured: 2.25, histogram: [0, 0, 0, 1, 0, 0] };
        assert_eq!(ratios[&Kind::Backward], backward);
    }

    #[test]
    fn a_run_like_its_plan_has_no_surprise() {
        let planned = step((0.0, 1.0), (1.0, 3.0));
        assert!(lateness(&planned, &planned).iter().all(|late| late.total() == 0.0));
    }
}
