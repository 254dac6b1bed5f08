//! What is drawn: one step, or a few to compare.

use graphs::timeline::{Kind, Span, Timeline};

use crate::view::{marks::Track, progress, reading};

/// A picture's content.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Heading.
    pub title: String,
    /// The steps, one to four; others are compared with the first.
    pub steps: Vec<Step>,
    /// What made it, as name and value: hashes, version, command.
    pub origin: Vec<(String, String)>,
}

/// One step of one plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name of the plan or schedule.
    pub name: String,
    /// What times count.
    pub unit: Unit,
    /// What happens when.
    pub timeline: Timeline,
    /// The same step as it really ran, if it did.
    pub measured: Option<Measured>,
    /// Bytes held by each rank, if they are known.
    pub memory: Option<Memory>,
    /// The model, folded by stage; empty for bare orders.
    pub stages: Vec<Stage>,
    /// Further figures, as name and value.
    pub facts: Vec<(String, String)>,
}

/// A step of a plan as it ran.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Medians over the ranks of a stage.
    pub timeline: Timeline,
    /// Earliest start and latest end of each span among the ranks of its stage, like the spans.
    pub spread: Vec<Vec<(f64, f64)>>,
}

/// What times count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Unit {
    /// Units of the prices.
    #[default]
    Units,
    /// Seconds.
    Seconds,
}

/// Bytes over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Classes of bytes, from bottom to top.
    pub classes: Vec<String>,
    /// What a device holds at most.
    pub limit: Option<u64>,
    /// For each rank, what each class holds from a time on.
    pub ranks: Vec<Vec<(f64, Vec<u64>)>>,
}

impl Memory {
    /// The most bytes a rank holds at a time.
    pub fn peak(&self, rank: usize) -> u64 {
        let sums = self.ranks[rank].iter().map(|(_, held)| held.iter().sum());
        sums.max().unwrap_or(0)
    }
}

/// A stage of the model graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stage {
    /// Its chunks.
    pub chunks: Vec<Piece>,
    /// Channels that leave it, in words.
    pub channels: Vec<String>,
}

/// A chunk of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Its number.
    pub chunk: usize,
    /// Groups of nodes, by layer: name and the operators in order.
    pub layers: Vec<(String, Vec<String>)>,
}

impl Unit {
    /// A time in words: `33 units`, `4.21 ms`.
    pub fn words(self, time: f64) -> String {
        let (value, name) = match self {
            Unit::Units if time == 1.0 => (time, "unit"),
            Unit::Units => (time, "units"),
            Unit::Seconds if time < 1e-3 => (1e6 * time, "µs"),
            Unit::Seconds if time < 1.0 => (1e3 * time, "ms"),
            Unit::Seconds => (time, "s"),
        };
        format!("{} {name}", number(value))
    }
}

/// A number as short as it says enough: whole, or three digits.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e9 {
        return format!("{value}");
    }
    let whole = value.abs().max(1e-9).log10().floor() as i32 + 1;
    let digits = (3 - whole).clamp(0, 4) as usize;
    format!("{value:.digits$}")
}

impl Step {
    /// A step in which nothing happens yet.
    pub fn new(name: String, unit: Unit) -> Self {
        Step {
            name,
            unit,
            timeline: Timeline::default(),
            measured: None,
            memory: None,
            stages: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// Share of the step in which ranks compute nothing.
    pub fn idle(&self) -> f64 {
        let shown = self.shown();
        let all = shown.makespan() * shown.ranks.len() as f64;
        let busy: f64 = shown.ranks.iter().map(|spans| reading::busy(spans)).sum();
        if all == 0.0 { 0.0 } else { 1.0 - busy / all }
    }

    /// What is drawn in full: the measured step if there is one, else the planned.
    pub fn shown(&self) -> &Timeline {
        self.measured.as_ref().map_or(&self.timeline, |measured| &measured.timeline)
    }

    /// The most that any rank holds, in words: bytes, or activations of microbatches.
    pub fn peak(&self) -> String {
        match &self.memory {
            Some(memory) => {
                let most = (0..memory.ranks.len()).map(|rank| memory.peak(rank)).max();
                progress::bytes(most.unwrap_or(0) as usize)
            }
            None => {
                let ranks = self.shown().ranks.iter();
                let held = ranks.map(|spans| reading::peak(&reading::held(spans)));
                format!("{} activations", held.max().unwrap_or(0))
            }
        }
    }
}

/// The display name of a schedule: what the literature calls it.
pub fn published(name: &str) -> &str {
    match name {
        "OneFOneB" => "1F1B",
        "Interleaved1F1B" => "Interleaved 1F1B",
        "LoopedBfs" => "Looped BFS",
        "ZbH1" => "ZB-H1",
        "ZbH2" => "ZB-H2",
        "InterleavedZeroBubble" => "Interleaved ZB",
        "ZbV" => "ZB-V",
        "VHalf" => "V-Half",
        "VMin" => "V-Min",
        "DualPipeV" => "DualPipe-V",
        other => other,
    }
}

/// Joins the segments of an action where a step has more spans than a page should carry.
///
/// Spans of one rank, track, kind, chunk and microbatch become one, from the first start to the
/// last end, under the number of the first.
pub fn folded(timeline: &Timeline, most: usize) -> Timeline {
    if timeline.ranks.iter().map(Vec::len).sum::<usize>() <= most {
        return timeline.clone();
    }
    Timeline { ranks: timeline.ranks.iter().map(|spans| fold(spans)).collect() }
}

fn fold(spans: &[Span]) -> Vec<Span> {
    type Key = (Track, Kind, usize, usize);
    let mut whole: std::collections::BTreeMap<Key, Span> = std::collections::BTreeMap::new();
    for span in spans {
        let task = span.task;
        let key = (Track::of(span), task.kind, task.chunk, task.microbatch);
        let joined = whole.entry(key).or_insert_with(|| {
            let mut first = *span;
            first.task.segment = 0;
            first
        });
        joined.end = joined.end.max(span.end);
    }
    let mut spans: Vec<Span> = whole.into_values().collect();
    spans.sort_by(|a, b| a.lane.cmp(&b.lane).then(a.start.total_cmp(&b.start)));
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_or_have_three_digits() {
        assert_eq!(
            [33.0, 2.5, 0.125, 123.456, 0.0312].map(number).join(" "),
            "33 2.50 0.125 123 0.0312"
        );
    }
}
