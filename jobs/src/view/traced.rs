//! A recorded step as a timeline, and the prices that follow from it.
//!
//! All ranks of a stage ran the same program; its times here are their medians.

use graphs::{
    ModelGraph, Plan,
    plan::{CopyStep, Instruction, Side},
    price::{Parts, Phase, Prices, Way, flops_of_step},
    simulate::{copy_task, message_task, reduce_task, work_task},
    timeline::{Cause, Kind, Lane, Span, Task, Timeline, Wait},
};
use runtime::trace::{Notes, Part, Recording};

use crate::view::scene::Measured;

/// Seconds between two instructions that are the actor's own bookkeeping and no wait.
const HAIR: f64 = 1e-5;

/// Seconds from nanoseconds.
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 * 1e-9
}

/// The middle of some numbers; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// One instruction of a stage's side, over all its ranks.
#[derive(Clone, Copy, Debug)]
struct Ran {
    number: usize,
    instruction: Instruction,
    /// Medians of begin and end.
    start: f64,
    end: f64,
    /// Earliest begin and latest end.
    spread: (f64, f64),
}

/// A recorded step, read against its plan.
struct Reading<'a> {
    plan: &'a Plan,
    recording: &'a Recording,
    /// Instructions of each stage and side.
    ran: Vec<[Vec<Ran>; 2]>,
}

impl<'a> Reading<'a> {
    fn new(plan: &'a Plan, recording: &'a Recording) -> Self {
        let mut ran = vec![[Vec::new(), Vec::new()]; plan.programs.len()];
        for (number, stage, side, instruction) in plan.numbered() {
            let of_side: &mut Vec<Ran> = &mut ran[stage][side as usize];
            let place = of_side.len();
            let actors = actors(recording, stage, side);
            let times = actors.filter_map(|notes| notes.instructions.get(place));
            let (starts, ends): (Vec<f64>, Vec<f64>) =
                times.map(|(start, end)| (seconds(*start), seconds(*end))).unzip();
            let first = starts.iter().copied().fold(f64::MAX, f64::min);
            let last = ends.iter().copied().fold(0.0, f64::max);
            let (start, end) = (median(starts), median(ends));
            let spread = (first.min(start), last);
            of_side.push(Ran { number, instruction, start, end, spread });
        }
        Reading { plan, recording, ran }
    }

    /// When the token of a channel was in the mailboxes of its receivers.
    fn arrival(&self, channel: usize, microbatch: usize) -> Option<f64> {
        let (stage, side) = self.plan.channels[channel].to;
        let arrivals = actors(self.recording, stage, side).flat_map(|notes| &notes.arrivals);
        let own = arrivals.filter(|it| (it.0, it.1) == (channel, microbatch));
        let times: Vec<f64> = own.map(|it| seconds(it.3)).collect();
        (!times.is_empty()).then(|| median(times))
    }

    /// When the token of a channel was on its way, if it took a link.
    fn travel(&self, channel: usize, microbatch: usize) -> Option<(f64, f64)> {
        let (stage, side) = self.plan.channels[channel].to;
        let travels = actors(self.recording, stage, side).flat_map(|notes| &notes.travels);
        let own = travels.filter(|it| (it.0, it.1) == (channel, microbatch));
        middle(own.map(|it| (it.3, it.4)))
    }

    /// When the copy that an instruction begins was made.
    fn copy(&self, stage: usize, side: Side, instruction: Instruction) -> Option<(f64, f64)> {
        let Instruction::Copy { step, chunk, segment, microbatch } = instruction else {
            return None;
        };
        let copies = actors(self.recording, stage, side).flat_map(|notes| &notes.copies);
        let wanted = (chunk, segment, microbatch, step == CopyStep::Fetch);
        middle(copies.filter(|it| (it.0, it.1, it.2, it.3) == wanted).map(|it| (it.4, it.5)))
    }

    /// The send that a receive takes from.
    fn send_of(&self, channel: usize, microbatch: usize) -> Option<(usize, &Ran)> {
        let (stage, side) = self.plan.channels[channel].from;
        let wanted = Instruction::Send { channel, microbatch };
        let found = self.ran[stage][side as usize].iter().find(|ran| ran.instruction == wanted);
        found.map(|ran| (stage, ran))
    }

    /// All spans of a side, with how far its ranks were apart.
    fn spans(&self, stage: usize, side: Side, spans: &mut Vec<(Span, (f64, f64))>) {
        let ran = &self.ran[stage][side as usize];
        let mut since = 0;
        for (place, it) in ran.iter().enumerate() {
            if let Some(task) = work_task(side, it.instruction) {
                let wait = self.wait(&ran[since..=place]);
                let Ran { number: id, start, end, .. } = *it;
                let lane = Lane::Compute;
                spans.push((Span { id, lane, task, start, end, wait }, it.spread));
                since = place;
            } else if let Instruction::Send { channel, microbatch } = it.instruction {
                let task = message_task(self.plan.channels[channel].cargo, microbatch);
                let handed = || {
                    let end = self.arrival(channel, microbatch).unwrap_or(it.end);
                    (it.start, end.max(it.start))
                };
                let (start, end) = self.travel(channel, microbatch).unwrap_or_else(handed);
                let (id, lane) = (it.number, Lane::Communication);
                let span = Span { id, lane, task, start, end, wait: None };
                spans.push((span, (it.spread.0, end.max(it.spread.1))));
            } else if let Some(task) = reduce_task(it.instruction) {
                let (id, lane, (start, end)) = (it.number, Lane::Communication, (it.start, it.end));
                spans.push((Span { id, lane, task, start, end, wait: None }, it.spread));
            } else if let (Some(task), Some((start, end))) =
                (copy_task(it.instruction), self.copy(stage, side, it.instruction))
            {
                let (id, lane) = (it.number, Lane::Copy);
                spans.push((Span { id, lane, task, start, end, wait: None }, (start, end)));
            }
        }
    }

    /// Why the last of these began so long after the first, which is the computation before it.
    ///
    /// What it waited for longest is the reason. A first computation has none before it.
    fn wait(&self, ran: &[Ran]) -> Option<Wait> {
        let is_first = ran.first().is_some_and(|first| match first.instruction {
            Instruction::Receive { .. }
            | Instruction::Send { .. }
            | Instruction::Copy { .. }
            | Instruction::Reduce { .. } => true,
            _ => ran.len() == 1,
        });
        let since = if is_first { 0.0 } else { ran[0].end };
        let last = ran.last()?;
        if last.start - since <= HAIR {
            return None;
        }
        let mut before = since;
        let mut longest = (0.0, None);
        for it in &ran[usize::from(!is_first)..] {
            if it.start - before > longest.0 {
                longest = (it.start - before, Some(it.instruction));
            }
            before = it.end;
        }
        let (cause, on) = match longest.1 {
            Some(Instruction::Receive { channel, microbatch }) => {
                let send = self.send_of(channel, microbatch);
                let is_late = send.is_some_and(|(_, send)| send.start > since);
                let cause = if is_late { Cause::Data } else { Cause::Transfer };
                (cause, send.map(|(stage, send)| (stage, send.number)))
            }
            Some(Instruction::Send { .. }) => (Cause::Credit, None),
            Some(Instruction::Copy { .. }) => (Cause::HostLink, None),
            _ => (Cause::Core, None),
        };
        let cause = if is_first { Cause::WarmUp } else { cause };
        Some(Wait { since, cause, on })
    }

    /// The optimizer phase of a stage, numbered as the simulator does.
    fn phase(&self, stage: usize, spans: &mut Vec<(Span, (f64, f64))>) {
        let instructions = self.plan.numbered().count();
        let parts = [
            (Part::Reduce, Kind::Reduce, Lane::Communication),
            (Part::Update, Kind::Optimizer, Lane::Compute),
            (Part::Gather, Kind::Gather, Lane::Communication),
        ];
        for (place, (part, kind, lane)) in parts.into_iter().enumerate() {
            let notes = self.recording.actors.iter().filter(|notes| notes.stage == stage);
            let own = notes.flat_map(|notes| &notes.phase).filter(|it| it.0 == part);
            let (starts, ends): (Vec<f64>, Vec<f64>) =
                own.map(|it| (seconds(it.1), seconds(it.2))).unzip();
            let first = starts.iter().copied().fold(f64::MAX, f64::min);
            let last = ends.iter().copied().fold(0.0, f64::max);
            let (start, end) = (median(starts), median(ends));
            let task = Task { kind, chunk: stage, segment: 0, microbatch: 0 };
            let wait = (lane == Lane::Compute).then_some(Wait {
                since: start,
                cause: Cause::CoolDown,
                on: None,
            });
            let id = instructions + 3 * stage + place;
            let span = Span { id, lane, task, start, end, wait };
            spans.push((span, (first.min(start), last)));
        }
    }
}

/// The medians of begins and ends.
fn middle(intervals: impl Iterator<Item = (u64, u64)>) -> Option<(f64, f64)> {
    let (begins, ends): (Vec<f64>, Vec<f64>) =
        intervals.map(|(begin, end)| (seconds(begin), seconds(end))).unzip();
    (!begins.is_empty()).then(|| (median(begins), median(ends)))
}

/// The notes of all ranks of a side of a stage.
fn actors(recording: &Recording, stage: usize, side: Side) -> impl Iterator<Item = &Notes> {
    let experts = side == Side::Experts;
    recording.actors.iter().filter(move |it| it.stage == stage && it.experts == experts)
}

/// A recorded step of a plan as a timeline, in seconds.
pub fn measured(plan: &Plan, recording: &Recording) -> Measured {
    let reading = Reading::new(plan, recording);
    let mut measured = Measured::default();
    for stage in 0..plan.programs.len() {
        let mut spans = Vec::new();
        reading.spans(stage, Side::Stage, &mut spans);
        reading.spans(stage, Side::Experts, &mut spans);
        reading.phase(stage, &mut spans);
        spans.sort_by(|(a, _), (b, _)| a.lane.cmp(&b.lane).then(a.start.total_cmp(&b.start)));
        let (spans, spread) = spans.into_iter().unzip();
        measured.timeline.ranks.push(spans);
        measured.spread.push(spread);
    }
    measured
}

/// Prices at which everything takes as long as it did on average: the plan's own shape, at the
/// speed of the recorded step.
///
/// Messages take the middle time of their channel and keep nobody busy.
pub fn prices(plan: &Plan, graph: &ModelGraph, recording: &Recording) -> Prices {
    let reading = Reading::new(plan, recording);
    let Measured { timeline, .. } = measured(plan, recording);
    let mean = |side: Side, chunk: usize, segment: usize| -> Parts {
        let stage = plan.chunks[chunk].stage;
        let of = |wanted: [Kind; 2]| {
            let ran = reading.ran[stage][side as usize].iter();
            let own = ran.filter(|it| {
                let task = work_task(side, it.instruction);
                task.is_some_and(|task| {
                    wanted.contains(&task.kind) && (task.chunk, task.segment) == (chunk, segment)
                })
            });
            let lengths: Vec<f64> = own.map(|it| it.end - it.start).collect();
            lengths.iter().sum::<f64>() / lengths.len().max(1) as f64
        };
        Parts {
            forward: of([Kind::Forward, Kind::ExpertForward]),
            input: of([Kind::BackwardInput, Kind::ExpertBackwardInput]),
            weight: of([Kind::BackwardWeight, Kind::ExpertBackwardWeight]),
            restore: of([Kind::Recompute, Kind::Recompute]),
        }
    };
    let chunks = || plan.chunks.iter().enumerate();
    let instructions = plan.numbered().count();
    let phase = |stage: usize| {
        let of = |kind| {
            let late = timeline.ranks[stage].iter().filter(|span| span.id >= instructions);
            let spans = late.filter(|span| span.task.kind == kind);
            spans.map(|span| span.end - span.start).sum()
        };
        let update = of(Kind::Optimizer);
        let (reduce, gather) = (of(Kind::Reduce), of(Kind::Gather));
        [Phase { reduce, update, gather, ..Phase::default() }, Phase::default()]
    };
    Prices {
        segments: chunks()
            .map(|(number, chunk)| {
                (0..chunk.segments.len()).map(|at| mean(Side::Stage, number, at)).collect()
            })
            .collect(),
        visits: chunks()
            .map(|(number, chunk)| {
                (0..chunk.visits.len()).map(|at| mean(Side::Experts, number, at)).collect()
            })
            .collect(),
        copies: copies(&timeline, plan),
        ways: (0..plan.channels.len()).map(|channel| way(&reading, channel)).collect(),
        reductions: reductions(&reading),
        phases: (0..plan.programs.len()).map(phase).collect(),
        cores: None,
        model_flops: flops_of_step(graph, plan.batch),
        // What the machine could have done is not known from a recording.
        peak: f64::INFINITY,
    }
}

/// How long each segment took to send its gradients off.
fn reductions(reading: &Reading<'_>) -> Vec<[Vec<Way>; 2]> {
    let way = |side: Side, chunk: usize, segment: usize| {
        let ran = &reading.ran[reading.plan.chunks[chunk].stage][side as usize];
        let wanted = Instruction::Reduce { chunk, segment };
        let found = ran.iter().find(|it| it.instruction == wanted);
        Way { sender: found.map_or(0.0, |it| it.end - it.start), ..Way::default() }
    };
    let sides = |chunk: usize| {
        let it = &reading.plan.chunks[chunk];
        [(Side::Stage, it.segments.len()), (Side::Experts, it.visits.len())]
            .map(|(side, segments)| (0..segments).map(|at| way(side, chunk, at)).collect())
    };
    (0..reading.plan.chunks.len()).map(sides).collect()
}

/// The mean time of the copies of each home of flights.
fn copies(timeline: &Timeline, plan: &Plan) -> Vec<[Vec<f64>; 2]> {
    let numbers: Vec<(usize, Side)> =
        plan.numbered().map(|(_, stage, side, _)| (stage, side)).collect();
    let mean = |chunk: usize, side: Side, segment: usize| {
        let spans = timeline.ranks[plan.chunks[chunk].stage].iter();
        let own = spans.filter(|span| {
            let place = numbers.get(span.id).map(|it| it.1);
            let at = (span.task.chunk, span.task.segment);
            span.lane == Lane::Copy && place == Some(side) && at == (chunk, segment)
        });
        let lengths: Vec<f64> = own.map(|span| span.end - span.start).collect();
        lengths.iter().sum::<f64>() / lengths.len().max(1) as f64
    };
    let homes = |chunk: usize| {
        let visits = plan.chunks[chunk].visits.len();
        let experts = (0..visits).map(|visit| mean(chunk, Side::Experts, visit)).collect();
        [vec![mean(chunk, Side::Stage, 0)], experts]
    };
    (0..plan.chunks.len()).map(homes).collect()
}

/// The middle time that the messages of a channel took, where the receiver was free to see them.
fn way(reading: &Reading<'_>, channel: usize) -> Way {
    let (stage, side) = reading.plan.channels[channel].from;
    let sends = reading.ran[stage][side as usize].iter();
    let lengths = sends.filter_map(|it| match it.instruction {
        Instruction::Send { channel: own, microbatch } if own == channel => {
            Some((reading.arrival(channel, microbatch)? - it.start).max(0.0))
        }
        _ => None,
    });
    // A busy receiver opens its queue late, so the shortest way is nearest to the way itself.
    let shortest = lengths.fold(f64::MAX, f64::min);
    Way { latency: if shortest < f64::MAX { shortest } else { 0.0 }, ..Way::default() }
}
