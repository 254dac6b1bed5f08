//! Steps in letters, a line for each rank and a column for each moment.
//!
//! ```text
//! ZB-H1   11.1 % idle, 27 units
//! r0 FFFF···BWFBWFBWFBWFBWBWBWBW
//! ```

use std::fmt::Write;

use graphs::timeline::Span;

use crate::view::{
    marks::{Track, letter},
    progress, reading,
    scene::{Scene, Step, Unit},
};

/// Columns between two steps that stand side by side.
const GAP: usize = 9;

/// What a terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Columns.
    pub width: usize,
    /// Whether it knows only ASCII.
    pub ascii: bool,
    /// Whether it takes colours.
    pub colour: bool,
    /// Whether a line below each rank says what it holds.
    pub memory: bool,
}

/// Draws all steps on one scale, beside each other if they fit.
pub fn draw(scene: &Scene, terminal: Terminal) -> String {
    let widest = scene.steps.iter().map(labels).max().unwrap_or(0);
    let room = terminal.width.saturating_sub(widest).max(10);
    let scale = Scale::of(&scene.steps, room);
    let first = scene.steps.first();
    let blocks: Vec<Vec<Line>> = scene
        .steps
        .iter()
        .enumerate()
        .map(|(number, step)| {
            let other = first.filter(|_| number > 0);
            block(step, other, &scale, terminal)
        })
        .collect();
    let widths = blocks.iter().map(|lines| lines.iter().map(|line| line.width).max().unwrap_or(0));
    let widths: Vec<usize> = widths.collect();
    let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    let body = if total <= terminal.width { beside(&blocks, &widths) } else { below(&blocks) };
    format!("{body}\n{}\n", legend(scene, &scale, terminal))
}

/// A line of letters; colours have no width.
#[derive(Clone, Default)]
struct Line {
    text: String,
    width: usize,
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Line { width: text.chars().count(), text }
    }
}

/// How much time a column is.
struct Scale {
    column: f64,
    exact: bool,
}

impl Scale {
    /// The longest time of which all starts and ends are multiples, if the steps fit; else as
    /// many columns as there are.
    fn of(steps: &[Step], room: usize) -> Scale {
        let longest = steps.iter().map(|step| step.shown().makespan()).fold(0.0, f64::max);
        let is_whole = |column: f64| {
            let times = steps.iter().flat_map(|step| step.shown().ranks.iter().flatten());
            let mut times = times.flat_map(|span| [span.start, span.end]);
            times.all(|time| ((time / column) - (time / column).round()).abs() < 1e-6)
        };
        let units = steps.iter().all(|step| step.unit == Unit::Units);
        let mut columns = [4.0, 2.0, 1.0, 0.5, 0.25, 0.2, 0.1].into_iter();
        let fits = |column: &f64| longest / column <= room as f64 && is_whole(*column);
        match columns.find(fits).filter(|_| units) {
            Some(column) => Scale { column, exact: true },
            None => Scale { column: (longest / room as f64).max(f64::MIN_POSITIVE), exact: false },
        }
    }

    fn columns(&self, makespan: f64) -> usize {
        (makespan / self.column - 1e-6).ceil().max(0.0) as usize
    }
}

/// Columns that the longest label of a step takes, the blank after it included.
fn labels(step: &Step) -> usize {
    label(step.shown().ranks.len().saturating_sub(1), 'r', step).chars().count()
}

fn label(rank: usize, mark: char, step: &Step) -> String {
    let digits = step.shown().ranks.len().saturating_sub(1).to_string().len();
    format!("{:<1$} ", format!("{mark}{rank}"), digits + 1)
}

fn block(step: &Step, other: Option<&Step>, scale: &Scale, terminal: Terminal) -> Vec<Line> {
    let makespan = step.shown().makespan();
    let change = other.map_or(String::new(), |other| {
        let change = 100.0 * (makespan / other.shown().makespan() - 1.0);
        format!("  ({change:+.0} %)")
    });
    let idle = 100.0 * step.idle();
    let time = step.unit.words(makespan);
    let name = format!("{:<6}", step.name);
    let mut lines = vec![Line::from(format!("{name}  {idle:.1} % idle, {time}{change}"))];
    for (rank, spans) in step.shown().ranks.iter().enumerate() {
        for (track, mark) in [(Track::Compute, 'r'), (Track::Experts, 'e')] {
            let of_track = || spans.iter().filter(|span| Track::of(span) == track);
            if track == Track::Experts && of_track().next().is_none() {
                continue;
            }
            let letters = row(of_track(), scale, scale.columns(makespan));
            lines.push(painted(&label(rank, mark, step), &letters, terminal));
        }
        if terminal.memory {
            lines.push(ribbon(step, rank, scale, terminal).into());
        }
    }
    lines
}

/// The letter that fills most of each column; a blank where more than half is idle.
fn row<'a>(spans: impl Iterator<Item = &'a Span>, scale: &Scale, columns: usize) -> Vec<char> {
    let mut shares: Vec<Vec<(char, f64)>> = vec![Vec::new(); columns];
    for span in spans {
        let (start, end) = (span.start / scale.column, span.end / scale.column);
        let last = ((end - 1e-6).floor().max(0.0) as usize).min(columns.saturating_sub(1));
        let first = ((start + 1e-6).floor() as usize).min(last);
        for (column, parts) in (first..).zip(&mut shares[first..=last]) {
            let share = end.min((column + 1) as f64) - start.max(column as f64);
            let mark = letter(span.task.kind);
            match parts.iter_mut().find(|(letter, _)| *letter == mark) {
                Some((_, sum)) => *sum += share,
                None => parts.push((mark, share)),
            }
        }
    }
    let most = |parts: &Vec<(char, f64)>| {
        let idle = 1.0 - parts.iter().map(|(_, share)| share).sum::<f64>();
        let best = parts.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        best.filter(|_| idle <= 0.5).map_or(' ', |(letter, _)| *letter)
    };
    shares.iter().map(most).collect()
}

/// A row with its label, idle columns dotted, letters coloured if the terminal takes it.
fn painted(label: &str, letters: &[char], terminal: Terminal) -> Line {
    let idle = if terminal.ascii { '.' } else { '·' };
    let mut text = label.to_string();
    let mut last = "";
    for &letter in letters {
        let colour = if terminal.colour { colour(letter) } else { "" };
        if colour != last {
            let _ = write!(text, "{}{colour}", if last.is_empty() { "" } else { "\x1b[0m" });
            last = colour;
        }
        text.push(if letter == ' ' { idle } else { letter });
    }
    if !last.is_empty() {
        text += "\x1b[0m";
    }
    Line { text, width: label.chars().count() + letters.len() }
}

fn colour(letter: char) -> &'static str {
    match letter {
        'F' => "\x1b[34m",
        'B' => "\x1b[33m",
        'W' => "\x1b[32m",
        'X' => "\x1b[35m",
        ' ' => "",
        _ => "\x1b[36m",
    }
}

/// What a rank holds, as blocks of the height of the fullest moment of each column.
fn ribbon(step: &Step, rank: usize, scale: &Scale, terminal: Terminal) -> String {
    let points: Vec<(f64, f64)> = match &step.memory {
        Some(memory) => {
            let of = |(time, held): &(f64, Vec<u64>)| (*time, held.iter().sum::<u64>() as f64);
            memory.ranks[rank].iter().map(of).collect()
        }
        None => {
            let held = reading::held(&step.shown().ranks[rank]).into_iter();
            held.map(|(time, held)| (time, held as f64)).collect()
        }
    };
    let most = match &step.memory {
        Some(memory) => (0..memory.ranks.len()).map(|rank| memory.peak(rank)).max().unwrap_or(0),
        None => {
            let ranks = step.shown().ranks.iter();
            ranks.map(|spans| reading::peak(&reading::held(spans))).max().unwrap_or(0) as u64
        }
    };
    let own = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let levels = fullest(&points, scale, scale.columns(step.shown().makespan()));
    let line: String =
        levels.into_iter().map(|level| bar(level / most.max(1) as f64, terminal.ascii)).collect();
    let own = match &step.memory {
        Some(_) => progress::bytes(own as usize),
        None => format!("{own} held"),
    };
    format!("{:<1$}{line} {own}", "", labels(step))
}

/// The highest level of each column.
fn fullest(points: &[(f64, f64)], scale: &Scale, columns: usize) -> Vec<f64> {
    let mut level = 0.0;
    let mut next = points.iter().peekable();
    let column = |column: usize| {
        // What changes at the very end of a column belongs to the one after it.
        let end = (column + 1) as f64 * scale.column * (1.0 - 1e-9);
        let mut most: f64 = match next.peek() {
            Some((time, _)) if *time <= column as f64 * scale.column => 0.0,
            _ => level,
        };
        while let Some(&(_, value)) = next.next_if(|(time, _)| *time < end) {
            level = value;
            most = most.max(level);
        }
        most
    };
    (0..columns).map(column).collect()
}

fn bar(share: f64, ascii: bool) -> char {
    let bars = if ascii { " .:-=+*#@" } else { " ▁▂▃▄▅▆▇█" };
    bars.chars().nth((8.0 * share.clamp(0.0, 1.0)).ceil() as usize).unwrap_or(' ')
}

fn below(blocks: &[Vec<Line>]) -> String {
    let block = |lines: &Vec<Line>| lines.iter().map(|line| format!("{}\n", line.text)).collect();
    blocks.iter().map(block).collect::<Vec<String>>().join("\n")
}

fn beside(blocks: &[Vec<Line>], widths: &[usize]) -> String {
    let rows = blocks.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for row in 0..rows {
        let mut line = String::new();
        let mut missing = 0;
        for (lines, width) in blocks.iter().zip(widths) {
            let nothing = Line::default();
            let own = lines.get(row).unwrap_or(&nothing);
            line += &" ".repeat(missing);
            line += &own.text;
            missing = width - own.width + GAP;
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// What the letters mean, of those that stand there, and what a column is.
fn legend(scene: &Scene, scale: &Scale, terminal: Terminal) -> String {
    let spans = scene.steps.iter().flat_map(|step| step.shown().ranks.iter().flatten());
    let mut kinds: Vec<_> = spans
        .filter(|span| matches!(Track::of(span), Track::Compute | Track::Experts))
        .map(|span| span.task.kind)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut names: Vec<String> = Vec::new();
    for kind in kinds {
        let name = format!("{} {}", letter(kind), super::marks::words(kind));
        // Experts share their letters with the stage and stand on a row of their own.
        if !names.iter().any(|other| other.starts_with(letter(kind))) {
            names.push(name);
        }
    }
    let idle = if terminal.ascii { '.' } else { '·' };
    names.push(format!("{idle} idle"));
    let unit = scene.steps.first().map_or(Unit::Units, |step| step.unit);
    let column = unit.words(scale.column);
    let how = if scale.exact { "" } else { ", the letter of most of it" };
    format!("{}; a column is {column}{how}", names.join(", "))
}

#[cfg(test)]
mod tests;
