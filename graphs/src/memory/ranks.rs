//! Both actors of a rank on one device, in time.

use std::collections::BTreeMap;

use crate::{
    memory::{ActorMemory, Memory},
    plan::{Plan, Side},
    timeline::Timeline,
};

/// Bytes of a rank of a stage: what stays with its actors, and the most that comes and goes on
/// both at once.
///
/// While an instruction runs it counts with its highest level, afterwards with what it leaves. An
/// instruction without a span takes no time.
pub(super) fn rank_in(memory: &Memory, plan: &Plan, timeline: &Timeline, stage: usize) -> u64 {
    let mut moments: Vec<(f64, usize, u64)> = Vec::new();
    let mut spans: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for span in timeline.ranks.get(stage).into_iter().flatten() {
        let (start, end) = spans.entry(span.id).or_insert((span.start, span.end));
        (*start, *end) = (start.min(span.start), end.max(span.end));
    }
    for side in [Side::Stage, Side::Experts] {
        let first = plan.first_number(stage, side);
        let mut now = 0.0;
        for (index, level) in memory.actors[stage][side as usize].levels.iter().enumerate() {
            let (start, end) = spans.get(&(first + index)).copied().unwrap_or((now, now));
            let begin = f64::max(now, start);
            moments.push((begin, side as usize, level.high));
            now = begin.max(end);
            moments.push((now, side as usize, level.after));
        }
    }
    moments.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut current, mut most) = ([0, 0], 0);
    for (_, side, bytes) in moments {
        current[side] = bytes;
        most = most.max(current[0] + current[1]);
    }
    let still = |actor: &ActorMemory| actor.total() - actor.peak.bytes;
    memory.actors[stage].iter().map(still).sum::<u64>() + most
}
