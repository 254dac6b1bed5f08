//! Steps as a trace that <https://ui.perfetto.dev> and `trace_processor` read.
//!
//! One process for each step, one track for each rank and strip, slices for spans, flows from
//! each span to those that waited for it, a counter for what each rank holds. Field numbers are
//! those of Perfetto's `trace_packet.proto`, `track_event.proto` and `track_descriptor.proto`.

use graphs::timeline::{Span, Timeline};

use crate::view::{
    marks::{Track, letter, reason, title, words},
    protobuf::Message,
    reading,
    scene::{Scene, Step, Unit},
};

/// Fields of `Trace` and `TracePacket`.
const PACKET: u32 = 1;
const TIMESTAMP: u32 = 8;
const SEQUENCE: u32 = 10;
const TRACK_EVENT: u32 = 11;
const SEQUENCE_FLAGS: u32 = 13;
const TRACK_DESCRIPTOR: u32 = 60;

/// Kinds of `TrackEvent`.
const BEGIN: u64 = 1;
const END: u64 = 2;
const COUNTER: u64 = 4;

/// Writes all steps, the measured ones beside the planned.
pub fn write(scene: &Scene) -> Vec<u8> {
    let mut trace = Trace { bytes: Vec::new(), tracks: 0, flows: 0, fresh: true };
    for step in &scene.steps {
        let planned = if step.measured.is_some() { "planned " } else { "" };
        trace.step(&format!("{planned}{}", step.name), &step.timeline, step);
        if let Some(measured) = &step.measured {
            trace.step(&format!("measured {}", step.name), &measured.timeline, step);
        }
    }
    trace.bytes
}

/// A trace being written.
struct Trace {
    bytes: Vec<u8>,
    /// Tracks so far; their numbers count from 1.
    tracks: u64,
    /// Flows so far.
    flows: u64,
    /// Whether nothing has been written yet.
    fresh: bool,
}

impl Trace {
    fn step(&mut self, name: &str, timeline: &Timeline, step: &Step) {
        let process = self.tracks + 1;
        let about = Message::default().number(1, process).text(6, name);
        self.track(Message::default().message(3, &about));
        let flows = self.flows_of(timeline);
        for (rank, spans) in timeline.ranks.iter().enumerate() {
            for track in Track::ALL {
                let places = (0..spans.len()).filter(|&at| Track::of(&spans[at]) == track);
                for row in rows(spans, places.collect()) {
                    let name = format!("rank {rank} {}", track.name());
                    let own = Message::default().number(5, process).text(2, &name);
                    let own = self.track(own);
                    for at in row {
                        self.span(own, &spans[at], &flows[rank][at], step.unit);
                    }
                }
            }
            self.counters(process, rank, spans, step);
        }
    }

    /// Describes a track and returns its number.
    fn track(&mut self, about: Message) -> u64 {
        self.tracks += 1;
        let about = about.number(1, self.tracks);
        self.packet(Message::default().message(TRACK_DESCRIPTOR, &about));
        self.tracks
    }

    fn packet(&mut self, packet: Message) {
        // The first packet of a sequence says that nothing came before it.
        let first = u64::from(std::mem::take(&mut self.fresh));
        let packet = packet.number(SEQUENCE, 1).number(SEQUENCE_FLAGS, 1 + first);
        self.bytes.extend(Message::default().message(PACKET, &packet).bytes());
    }

    fn event(&mut self, time: f64, unit: Unit, event: &Message) {
        let time = (nanoseconds(unit) * time).round() as u64;
        self.packet(Message::default().number(TIMESTAMP, time).message(TRACK_EVENT, event));
    }

    fn span(&mut self, track: u64, span: &Span, flows: &Flows, unit: Unit) {
        let name = format!("{}{}", letter(span.task.kind), span.task.microbatch);
        let note = |name: &str| Message::default().text(10, name);
        let mut begin = Message::default()
            .number(9, BEGIN)
            .number(11, track)
            .text(22, words(span.task.kind))
            .text(23, &name)
            .message(4, &note("work").text(6, &title(span.task)))
            .message(4, &note("chunk").number(3, span.task.chunk as u64))
            .message(4, &note("microbatch").number(3, span.task.microbatch as u64))
            .message(4, &note("instruction").number(3, span.id as u64));
        if let Some(wait) = span.wait {
            begin = begin.message(4, &note("waited").text(6, reason(wait.cause)));
        }
        begin = flows.out.iter().fold(begin, |begin, &flow| begin.fixed(47, flow));
        begin = flows.into.iter().fold(begin, |begin, &flow| begin.fixed(48, flow));
        self.event(span.start, unit, &begin);
        let end = Message::default().number(9, END).number(11, track);
        self.event(span.end, unit, &end);
    }

    /// Numbers a flow for each wait that is told.
    fn flows_of(&mut self, timeline: &Timeline) -> Vec<Vec<Flows>> {
        let places = reading::places(timeline);
        let none = |spans: &Vec<Span>| vec![Flows::default(); spans.len()];
        let mut flows: Vec<Vec<Flows>> = timeline.ranks.iter().map(none).collect();
        for (rank, spans) in timeline.ranks.iter().enumerate() {
            for (place, span) in spans.iter().enumerate() {
                let on = span.wait.and_then(|wait| wait.on);
                let Some((from, at)) = on.and_then(|on| Some((on.0, *places.get(&on)?))) else {
                    continue;
                };
                self.flows += 1;
                flows[from][at].out.push(self.flows);
                flows[rank][place].into.push(self.flows);
            }
        }
        flows
    }

    /// What a rank holds, in bytes or in activations.
    fn counters(&mut self, process: u64, rank: usize, spans: &[Span], step: &Step) {
        let levels: Vec<(f64, f64)> = match &step.memory {
            Some(memory) => {
                let sum = |(time, held): &(f64, Vec<u64>)| (*time, held.iter().sum::<u64>() as f64);
                memory.ranks[rank].iter().map(sum).collect()
            }
            None => {
                let held = reading::held(spans).into_iter();
                held.map(|(time, held)| (time, held as f64)).collect()
            }
        };
        let what = if step.memory.is_some() { "bytes" } else { "activations held" };
        let counter = Message::default().text(6, what);
        let about = Message::default().number(5, process).text(2, &format!("rank {rank} {what}"));
        let track = self.track(about.message(8, &counter));
        for (time, level) in levels {
            let event = Message::default().number(9, COUNTER).number(11, track).double(44, level);
            self.event(time, step.unit, &event);
        }
    }
}

/// Flows that leave a span and that end in it.
#[derive(Clone, Debug, Default)]
struct Flows {
    out: Vec<u64>,
    into: Vec<u64>,
}

/// A unit of the prices is shown as a microsecond.
fn nanoseconds(unit: Unit) -> f64 {
    match unit {
        Unit::Units => 1e3,
        Unit::Seconds => 1e9,
    }
}

/// Spreads spans over as many rows as it takes for none to overlap, as slices of a track must not.
fn rows(spans: &[Span], places: Vec<usize>) -> Vec<Vec<usize>> {
    let mut rows: Vec<(f64, Vec<usize>)> = Vec::new();
    for place in places {
        let span = &spans[place];
        match rows.iter_mut().find(|(end, _)| *end <= span.start) {
            Some((end, row)) => {
                *end = span.end;
                row.push(place);
            }
            None => rows.push((span.end, vec![place])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests;
