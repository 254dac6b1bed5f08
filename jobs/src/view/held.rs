//! What each rank of a plan holds over a step, from the exact scan of its memory.
//!
//! The scan says what is alive after each instruction; the timeline says when that is. Classes are
//! joined to the five that a strip of a picture can tell apart.

use std::collections::BTreeMap;

use graphs::{
    ModelGraph, Plan,
    address::Address,
    edge::Class,
    memory::{ActorMemory, Bytes, Loads, Scan},
    plan::{Instruction, Side},
    simulate::work_task,
    timeline::{Kind, Span, Task, Timeline},
};
use ops::{DType, optim::Optimizer};

use crate::view::scene::Memory;

/// The classes, from bottom to top.
const CLASSES: [&str; 5] = ["parameters", "optimizer", "gradients", "messages", "activations"];

/// Position of the gradients and of the activations among the classes.
const GRADIENTS: usize = 2;
const ACTIVATIONS: usize = 4;

/// The bytes of each rank as a plan runs by a timeline; of each stage, the fullest rank.
///
/// The two actors of a rank share its memory. Loads of experts are taken as balanced. Where a
/// timeline knows only whole chunks, their segments are spread evenly over it.
pub fn memory(
    graph: &ModelGraph,
    plan: &Plan,
    dtype: DType,
    optimizer: &Optimizer,
    timeline: &Timeline,
) -> Memory {
    let scan = Scan::new(graph, plan, dtype, optimizer);
    let loads = Loads::Balanced;
    let fullest = scan.memory(&loads);
    let rank = |(stage, spans): (usize, &Vec<Span>)| {
        let clock = Clock::new(plan, stage, spans);
        let mut changes = Vec::new();
        for side in [Side::Stage, Side::Experts] {
            let about = &fullest.actors[stage][side as usize];
            let address = about.address;
            changes.extend(actor(&scan, &loads, address, about, &clock));
        }
        changes.sort_by(|a: &(f64, [i64; 5]), b| a.0.total_cmp(&b.0));
        levels(&changes)
    };
    let ranks = timeline.ranks.iter().enumerate().map(rank).collect();
    Memory { classes: CLASSES.map(String::from).to_vec(), limit: None, ranks }
}

/// What an actor gains and loses, when, by class.
fn actor(
    scan: &Scan<'_>,
    loads: &Loads<'_>,
    me: Address,
    about: &ActorMemory,
    clock: &Clock,
) -> Vec<(f64, [i64; 5])> {
    let mut now = [
        about.fixed.parameters,
        about.fixed.masters + about.fixed.states,
        about.reserve.reduction,
        about.fixed.inputs + about.reserve.messages,
        0,
    ]
    .map(|bytes| bytes as i64);
    let base = now;
    let mut changes = vec![(0.0, now)];
    let mut place = 0;
    let mut go = |time: f64, alive: &Bytes| {
        let gradients = alive.get(Class::WeightGradients) as i64;
        let mut next = base;
        next[GRADIENTS] += gradients;
        next[ACTIVATIONS] += alive.total() as i64 - gradients;
        let change = std::array::from_fn(|class| next[class] - now[class]);
        now = next;
        changes.push((time, change));
    };
    scan.follow(me, loads, &mut |alive| {
        let (start, end) = clock.times[me.side as usize][place];
        if place == about.peak.instruction {
            go(start, &about.peak.by_class);
        }
        go(end, alive);
        place += 1;
    });
    changes
}

/// Sums of changes, one for each time.
fn levels(changes: &[(f64, [i64; 5])]) -> Vec<(f64, Vec<u64>)> {
    let mut levels: Vec<(f64, Vec<u64>)> = Vec::new();
    let mut now = [0_i64; 5];
    for (time, change) in changes {
        now.iter_mut().zip(change).for_each(|(now, change)| *now += change);
        let row = now.iter().map(|bytes| (*bytes).max(0) as u64).collect();
        match levels.last_mut() {
            Some((last, held)) if last == time && *time == 0.0 => *held = row,
            _ => levels.push((*time, row)),
        }
    }
    levels
}

/// When the instructions of a stage begin and end.
struct Clock {
    /// By side and position in the program.
    times: [Vec<(f64, f64)>; 2],
}

impl Clock {
    /// Reads the times off the spans; a message changes what is held as soon as the computation
    /// before it is done.
    fn new(plan: &Plan, stage: usize, spans: &[Span]) -> Self {
        let times = |span: &Span| (span.task, (span.start, span.end));
        let by_task: BTreeMap<Task, (f64, f64)> = spans.iter().map(times).collect();
        let has_parts = spans.iter().any(|span| span.task.segment > 0 || is_of_experts(span));
        let of = |task: Task| match has_parts {
            true => by_task.get(&task).copied(),
            false => part_of_whole(plan, task, &by_task),
        };
        let times = [Side::Stage, Side::Experts].map(|side| {
            let mut last = 0.0;
            let program = &plan.programs[stage][side as usize].instructions;
            let time = |instruction: &Instruction| {
                let (start, end) =
                    work_task(side, *instruction).and_then(of).unwrap_or((last, last));
                last = end;
                (start, end)
            };
            program.iter().map(time).collect()
        });
        Clock { times }
    }
}

fn is_of_experts(span: &Span) -> bool {
    matches!(
        span.task.kind,
        Kind::ExpertForward | Kind::ExpertBackwardInput | Kind::ExpertBackwardWeight
    )
}

/// The share of a segment in the span of its chunk, all segments being equally long; backward
/// passes begin with the last one.
fn part_of_whole(
    plan: &Plan,
    task: Task,
    by_task: &BTreeMap<Task, (f64, f64)>,
) -> Option<(f64, f64)> {
    let parts = plan.chunks[task.chunk].segments.len() as f64;
    let segment = task.segment as f64;
    let (kinds, part) = match task.kind {
        Kind::Forward | Kind::ExpertForward => ([Kind::Forward; 2], segment),
        Kind::BackwardInput | Kind::ExpertBackwardInput => {
            ([Kind::BackwardInput, Kind::Backward], parts - 1.0 - segment)
        }
        _ => ([Kind::BackwardWeight, Kind::Backward], parts - 1.0 - segment),
    };
    let whole = |kind| by_task.get(&Task { kind, segment: 0, ..task });
    let (start, end) = kinds.into_iter().find_map(whole)?;
    let each = (end - start) / parts;
    Some((start + part * each, start + (part + 1.0) * each))
}

#[cfg(test)]
mod tests {
    use graphs::{
        bare::Bare,
        csv,
        simulate::{Costs, timeline},
    };

    use super::*;
    use crate::{Request, load};

    #[test]
    fn the_fullest_moment_of_each_rank_is_in_the_strip() {
        let request = Request { job: "k2-nano".into(), ..Request::default() };
        let loaded = load(&request).unwrap_or_else(|report| panic!("{report}"));
        let (plan, graph, job) = (&loaded.plan, &loaded.graph, &loaded.job);
        let orders = graphs::text::orders(&plan.orders);
        let bare = Bare::new(csv::read(&orders).unwrap()).unwrap();
        let costs =
            Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };
        let timeline = timeline(&bare, &costs).unwrap();
        let dtype = job.precision.dtype();
        let optimizer = &job.learner().1.optimizer;
        let strip = memory(graph, plan, dtype, optimizer, &timeline);
        let exact = Scan::new(graph, plan, dtype, optimizer).memory(&Loads::Balanced);
        for stage in 0..plan.mesh.pp {
            let peak = strip.peak(stage);
            // Peaks of the two actors of a rank need not meet; each alone is reached.
            assert!(peak <= exact.rank(stage), "{peak} of {}", exact.rank(stage));
            assert!(exact.actors[stage][0].total() <= peak, "{peak}");
            assert!(strip.ranks[stage].is_sorted_by(|a, b| a.0 <= b.0));
        }
    }
}
