//! How each kind of work is marked: a track, a letter, a fill, and words.
//!
//! Letters are those of the papers on zero bubbles: `B` is the input's gradient, `W` that of the
//! weights, `X` both at once. Orders and files write them `I`, `W` and `B`.

use graphs::timeline::{Cause, Kind, Lane, Span, Task};

/// A strip of a rank's picture.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Track {
    /// What the stage computes.
    Compute,
    /// What the routed experts of the rank compute.
    Experts,
    /// Messages.
    Communication,
    /// Copies between device and host.
    Copy,
}

impl Track {
    /// All tracks, from top to bottom.
    pub const ALL: [Track; 4] = [Track::Compute, Track::Experts, Track::Communication, Track::Copy];

    /// Name of the track.
    pub fn name(self) -> &'static str {
        match self {
            Track::Compute => "compute",
            Track::Experts => "experts",
            Track::Communication => "communication",
            Track::Copy => "copies",
        }
    }

    /// Where a span is drawn.
    pub fn of(span: &Span) -> Track {
        match (span.lane, span.task.kind) {
            (
                Lane::Compute,
                Kind::ExpertForward | Kind::ExpertBackwardInput | Kind::ExpertBackwardWeight,
            ) => Track::Experts,
            (Lane::Compute, _) => Track::Compute,
            (Lane::Communication, _) => Track::Communication,
            (Lane::Copy, _) => Track::Copy,
        }
    }
}

/// All kinds of work; a number in the data of a page is an index in here.
pub const KINDS: [Kind; 19] = [
    Kind::Forward,
    Kind::BackwardInput,
    Kind::BackwardWeight,
    Kind::Backward,
    Kind::Recompute,
    Kind::ExpertForward,
    Kind::ExpertBackwardInput,
    Kind::ExpertBackwardWeight,
    Kind::Activations,
    Kind::Gradients,
    Kind::Dispatch,
    Kind::Combine,
    Kind::CombineGradients,
    Kind::DispatchGradients,
    Kind::Offload,
    Kind::Fetch,
    Kind::Reduce,
    Kind::Optimizer,
    Kind::Gather,
];

/// All causes of waiting; a number in the data of a page is an index in here.
pub const CAUSES: [Cause; 8] = [
    Cause::WarmUp,
    Cause::Data,
    Cause::Transfer,
    Cause::Link,
    Cause::Credit,
    Cause::HostLink,
    Cause::Core,
    Cause::CoolDown,
];

/// The letter in a box.
pub fn letter(kind: Kind) -> char {
    match kind {
        Kind::Forward | Kind::ExpertForward => 'F',
        Kind::BackwardInput | Kind::ExpertBackwardInput => 'B',
        Kind::BackwardWeight | Kind::ExpertBackwardWeight => 'W',
        Kind::Backward => 'X',
        Kind::Recompute => 'R',
        Kind::Activations => 'A',
        Kind::Gradients => 'G',
        Kind::Dispatch => 'D',
        Kind::Combine => 'C',
        Kind::CombineGradients => 'c',
        Kind::DispatchGradients => 'd',
        Kind::Offload => 'O',
        Kind::Fetch => 'L',
        Kind::Reduce => 'S',
        Kind::Optimizer => 'U',
        Kind::Gather => 'N',
    }
}

/// What a kind of work is called.
pub fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Forward => "forward",
        Kind::BackwardInput => "input gradient",
        Kind::BackwardWeight => "weight gradient",
        Kind::Backward => "both gradients",
        Kind::Recompute => "recompute",
        Kind::ExpertForward => "experts forward",
        Kind::ExpertBackwardInput => "experts input gradient",
        Kind::ExpertBackwardWeight => "experts weight gradient",
        Kind::Activations => "activations to the next stage",
        Kind::Gradients => "gradients to the stage before",
        Kind::Dispatch => "rows to the experts",
        Kind::Combine => "rows back from the experts",
        Kind::CombineGradients => "gradients of the rows that came back",
        Kind::DispatchGradients => "gradients of the rows that went out",
        Kind::Offload => "offload to the host",
        Kind::Fetch => "fetch from the host",
        Kind::Reduce => "sum of the gradients",
        Kind::Optimizer => "update of the weights",
        Kind::Gather => "new weights",
    }
}

/// What a cause of waiting is called.
pub fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::WarmUp => "warm-up",
        Cause::Data => "waits for work of another rank",
        Cause::Transfer => "waits for a message under way",
        Cause::Link => "link busy",
        Cause::Credit => "no free buffer at the receiver",
        Cause::HostLink => "host link busy",
        Cause::Core => "processor cores busy",
        Cause::CoolDown => "cool-down",
    }
}

/// Number of the fill within its track: no track has more than five.
pub fn fill(kind: Kind) -> usize {
    match kind {
        Kind::Forward | Kind::ExpertForward | Kind::Activations | Kind::Offload => 0,
        Kind::BackwardInput | Kind::ExpertBackwardInput | Kind::Gradients | Kind::Fetch => 1,
        Kind::BackwardWeight | Kind::ExpertBackwardWeight => 2,
        Kind::DispatchGradients | Kind::CombineGradients => 2,
        Kind::Backward | Kind::Dispatch | Kind::Combine => 3,
        Kind::Recompute | Kind::Reduce | Kind::Optimizer | Kind::Gather => 4,
    }
}

/// A span in words: `F 3 of chunk 1: forward`.
pub fn title(task: Task) -> String {
    let Task { kind, chunk, segment, microbatch } = task;
    let part = if segment == 0 { String::new() } else { format!(", part {segment}") };
    format!("{}{microbatch} of chunk {chunk}{part}: {}", letter(kind), words(kind))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn track(kind: Kind) -> Track {
        let lane = match kind {
            Kind::Offload | Kind::Fetch => Lane::Copy,
            Kind::Activations | Kind::Gradients | Kind::Reduce | Kind::Gather => {
                Lane::Communication
            }
            Kind::Dispatch | Kind::Combine => Lane::Communication,
            Kind::DispatchGradients | Kind::CombineGradients => Lane::Communication,
            _ => Lane::Compute,
        };
        let task = Task { kind, chunk: 0, segment: 0, microbatch: 0 };
        Track::of(&Span { id: 0, lane, task, start: 0.0, end: 1.0, wait: None })
    }

    #[test]
    fn within_a_track_no_two_kinds_share_a_letter_and_no_more_than_five_fills_are_used() {
        let mut letters = BTreeSet::new();
        let mut fills: BTreeMap<Track, BTreeSet<usize>> = BTreeMap::new();
        for kind in KINDS {
            assert!(letters.insert((track(kind), letter(kind))), "{kind:?}");
            fills.entry(track(kind)).or_default().insert(fill(kind));
        }
        assert_eq!(fills.len(), Track::ALL.len());
        assert!(fills.values().all(|fills| fills.len() <= 5), "{fills:?}");
    }
}
