//! The spans of a rank in few bytes, for the data of a page.
//!
//! Each span is a row of whole numbers, each close to the one of the row before, written as
//! variable-length bytes (seven bits a byte, lowest first; signed numbers in zigzag), and the
//! whole in base 64. Per span: kind; then as differences microbatch, chunk, segment, start from
//! the end of the span before, number; the length; 0 or 1 + 2 * cause + whether the span waited
//! for is told; and of that the rank and the place in it, both from here.

use std::collections::BTreeMap;

use graphs::timeline::{Span, Timeline};

use crate::view::marks::{CAUSES, KINDS};

/// Rank and number of a span: where it stands in its rank.
pub type Places = BTreeMap<(usize, usize), usize>;

/// How times become whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Time of one tick.
    pub tick: f64,
}

impl Clock {
    /// Ticks that are exact where a few digits suffice, and else a four-millionth of the step.
    pub fn of<'a>(timelines: impl Iterator<Item = &'a Timeline> + Clone) -> Clock {
        let longest = timelines.clone().map(Timeline::makespan).fold(0.0, f64::max);
        let is_exact = |tick: &f64| {
            let spans = timelines.clone().flat_map(|timeline| timeline.ranks.iter().flatten());
            let mut times = spans.flat_map(|span| [span.start, span.end]);
            times.all(|time| ((time / tick) - (time / tick).round()).abs() < 1e-6)
        };
        let exact = [1.0, 0.5, 0.25, 0.1, 0.01].into_iter().find(is_exact);
        let fine = (longest / f64::from(1 << 22)).max(f64::MIN_POSITIVE);
        Clock { tick: exact.filter(|tick| longest / tick < f64::from(1 << 28)).unwrap_or(fine) }
    }

    /// A time in ticks.
    pub fn ticks(self, time: f64) -> i64 {
        (time / self.tick).round() as i64
    }
}

/// The spans of a rank, as the module says.
pub fn spans(timeline: &Timeline, places: &Places, rank: usize, clock: Clock) -> String {
    let mut row = Row::default();
    let mut bytes = Vec::new();
    for (place, span) in timeline.ranks[rank].iter().enumerate() {
        if place > 0 && timeline.ranks[rank][place - 1].lane != span.lane {
            row = Row::default();
        }
        row.write(span, clock, &mut bytes);
        let wait = span.wait;
        let on = wait.and_then(|wait| wait.on).filter(|on| places.contains_key(on));
        let cause = wait.map_or(0, |wait| {
            let cause = CAUSES.iter().position(|&cause| cause == wait.cause).unwrap_or(0);
            1 + 2 * cause + usize::from(on.is_some())
        });
        unsigned(cause as u64, &mut bytes);
        if let Some(on) = on {
            signed(on.0 as i64 - rank as i64, &mut bytes);
            signed(places[&on] as i64 - place as i64, &mut bytes);
        }
    }
    base64(&bytes)
}

/// The numbers of the row before.
#[derive(Default)]
struct Row {
    microbatch: i64,
    chunk: i64,
    segment: i64,
    end: i64,
    id: i64,
}

impl Row {
    fn write(&mut self, span: &Span, clock: Clock, bytes: &mut Vec<u8>) {
        let kind = KINDS.iter().position(|&kind| kind == span.task.kind).unwrap_or(0);
        let lane = span.lane as usize;
        let (start, end) = (clock.ticks(span.start), clock.ticks(span.end));
        let task = span.task;
        unsigned((3 * kind + lane) as u64, bytes);
        for (now, before) in [
            (task.microbatch as i64, &mut self.microbatch),
            (task.chunk as i64, &mut self.chunk),
            (task.segment as i64, &mut self.segment),
            (span.id as i64, &mut self.id),
        ] {
            signed(now - *before, bytes);
            *before = now;
        }
        signed(start - self.end, bytes);
        unsigned((end - start).max(0) as u64, bytes);
        self.end = end;
    }
}

/// Rows of levels over time: ticks since the row before, then the change of each class.
pub fn levels<'a>(
    rows: impl Iterator<Item = (f64, &'a [u64])>,
    classes: usize,
    clock: Clock,
    unit: u64,
) -> String {
    let mut bytes = Vec::new();
    let mut time = 0;
    let mut held = vec![0; classes];
    for (at, row) in rows {
        let now = clock.ticks(at);
        unsigned((now - time).max(0) as u64, &mut bytes);
        time = now;
        for (before, &level) in held.iter_mut().zip(row) {
            let level = (level / unit.max(1)) as i64;
            signed(level - *before, &mut bytes);
            *before = level;
        }
    }
    base64(&bytes)
}

/// Earliest starts and latest ends, as ticks before the start and after the end of their spans.
pub fn spread(spans: &[Span], spread: &[(f64, f64)], clock: Clock) -> String {
    let mut bytes = Vec::new();
    for (span, (first, last)) in spans.iter().zip(spread) {
        unsigned((clock.ticks(span.start) - clock.ticks(*first)).max(0) as u64, &mut bytes);
        unsigned((clock.ticks(*last) - clock.ticks(span.end)).max(0) as u64, &mut bytes);
    }
    base64(&bytes)
}

fn signed(number: i64, bytes: &mut Vec<u8>) {
    unsigned(((number << 1) ^ (number >> 63)) as u64, bytes);
}

fn unsigned(mut number: u64, bytes: &mut Vec<u8>) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Base 64 with the letters of RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { letter as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use graphs::timeline::{Cause, Kind, Lane, Task, Wait};

    use super::*;

    #[test]
    fn base_64_is_that_of_the_standard() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in pairs {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn small_numbers_take_a_byte_and_negative_ones_come_back() {
        let mut bytes = Vec::new();
        [0, -1, 1, -64, 63].into_iter().for_each(|number| signed(number, &mut bytes));
        assert_eq!(bytes, [0, 1, 2, 127, 126]);
        unsigned(300, &mut bytes);
        assert_eq!(bytes[5..], [0xac, 0x02]);
    }

    #[test]
    fn a_span_says_what_it_waited_for_from_where_it_stands() {
        let task = Task { kind: Kind::Backward, chunk: 1, segment: 0, microbatch: 2 };
        let wait = Some(Wait { since: 1.0, cause: Cause::Data, on: Some((1, 7)) });
        let lane = Lane::Compute;
        let span = Span { id: 5, lane, task, start: 3.0, end: 4.5, wait };
        let timeline = Timeline { ranks: vec![vec![span], vec![]] };
        let clock = Clock::of([&timeline].into_iter());
        assert_eq!(clock, Clock { tick: 0.5 });
        let places = Places::from([((1, 7), 3)]);
        // 3 * 3 + 0; +2, +1, 0, +5 in zigzag; start 6; length 3; cause 1, told; +1, +3.
        let bytes = [9, 4, 2, 0, 10, 12, 3, 4, 2, 6];
        assert_eq!(spans(&timeline, &places, 0, clock), base64(&bytes));
    }

    #[test]
    fn times_that_no_short_number_divides_are_cut_finely() {
        let task = Task { kind: Kind::Forward, chunk: 0, segment: 0, microbatch: 0 };
        let span =
            Span { id: 0, lane: Lane::Compute, task, start: 0.0, end: 0.333_333, wait: None };
        let timeline = Timeline { ranks: vec![vec![span]] };
        let clock = Clock::of([&timeline].into_iter());
        assert_eq!(clock.ticks(0.333_333), 1 << 22);
    }
}
