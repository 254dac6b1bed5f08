//! The sums of lanes on their way to the holders of slices.
//!
//! However lanes and rows are spread, the lanes of an element are added from the first to the
//! last, left to right, so every plan and every form of ZeRO gives the same bits.

use std::ops::Range;

use graphs::share::{Reduction, Share};
use ops::{Floats, SquaresOf};

use crate::{
    digest,
    message::Message,
    report::{Hash, Joined, Report},
    trace::Part,
    worker::Worker,
};

/// The gradient of a slice that a chain leads through an actor.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// Sum over the lanes of all holders before this one.
    before: Option<Floats>,
    /// The own lanes, once they are complete.
    own: Option<Vec<Floats>>,
}

/// What is reported of gradients that were joined at one time, once all others are there.
#[derive(Debug)]
pub(super) struct Joining {
    /// Parameters, and hashes of their gradients if the cluster audits.
    gradients: Vec<(usize, Option<Hash>)>,
    squares: SquaresOf,
}

impl Joining {
    /// Waits for a GPU, which the verdict does anyway.
    fn known(self) -> impl Iterator<Item = Joined> {
        let each = self.gradients.into_iter().zip(self.squares.known());
        each.map(|((parameter, hash), squares)| Joined { parameter, squares, hash })
    }
}

impl Worker {
    /// Lets go of the own lanes of a parameter, which are complete, slice by slice.
    pub(super) fn send_gradient(&mut self, parameter: usize) {
        let brief = self.brief.clone();
        let share = &brief.shares[parameter];
        let columns = brief.graph.parameters()[parameter].columns();
        let lanes = self.holdings.take_lanes(parameter);
        for (slice, lanes) in cut(share, columns, lanes) {
            match share.reduction {
                Reduction::Scatter => self.scatter(parameter, slice, added(None, lanes)),
                Reduction::Chain => {
                    let passing = self.phase.passing.entry((parameter, slice)).or_default();
                    passing.own = Some(lanes);
                    self.pass_on(parameter, slice);
                }
            }
        }
    }

    /// Takes a part of the own slice, a sum from the holder before, or the whole one from the last.
    pub(crate) fn collect(&mut self, parameter: usize, slice: usize, from: usize, sum: Floats) {
        let share = &self.brief.shares[parameter];
        match share.reduction {
            Reduction::Scatter => self.gather_part(parameter, from, sum),
            Reduction::Chain if from + 1 == share.holders.len() => self.join(parameter, sum),
            Reduction::Chain => {
                let passing = self.phase.passing.entry((parameter, slice)).or_default();
                passing.before = Some(sum);
                self.pass_on(parameter, slice);
            }
        }
        self.report_joined();
    }

    /// Hands the own lane of a slice to the slice's holder.
    fn scatter(&mut self, parameter: usize, slice: usize, sum: Floats) {
        let from = self.holdings.position(parameter);
        if slice == from {
            return self.gather_part(parameter, from, sum);
        }
        let to = self.brief.shares[parameter].holders[slice];
        self.pass(to, gradient(parameter, slice, from, sum));
    }

    /// Adds the parts of the own slice, from the first lane to the last, once all are there.
    fn gather_part(&mut self, parameter: usize, from: usize, sum: Floats) {
        let parts = self.phase.parts.entry(parameter).or_default();
        parts.insert(from, sum);
        if parts.len() == self.brief.shares[parameter].holders.len() {
            let parts = self.phase.parts.remove(&parameter).unwrap_or_default();
            self.join(parameter, added(None, parts.into_values()));
        }
    }

    /// Adds the own lanes to the sum of the holders before, once both are there, and sends it on.
    fn pass_on(&mut self, parameter: usize, slice: usize) {
        let from = self.holdings.position(parameter);
        let passing = self.phase.passing.get(&(parameter, slice));
        let is_whole = |it: &Passing| it.own.is_some() && (from == 0 || it.before.is_some());
        if !passing.is_some_and(is_whole) {
            return;
        }
        let passing = self.phase.passing.remove(&(parameter, slice)).unwrap_or_default();
        let sum = added(passing.before, passing.own.unwrap_or_default());
        let holders = &self.brief.shares[parameter].holders;
        let to = if from + 1 < holders.len() { from + 1 } else { slice };
        if to == from {
            return self.join(parameter, sum);
        }
        let to = holders[to];
        self.pass(to, gradient(parameter, slice, from, sum));
    }

    /// Keeps the gradient of the own slice for the update.
    fn join(&mut self, parameter: usize, sum: Floats) {
        self.phase.done.joined += sum.bytes();
        self.phase.joined.insert(parameter, sum);
        self.phase.unmeasured.push(parameter);
        self.phase.unjoined = self.phase.unjoined.map(|count| count - 1);
    }

    /// Begins to sum the squares of what has been joined since the last time, neighbours of one
    /// length together.
    fn measure(&mut self) {
        let brief = self.brief.clone();
        let joined = &self.phase.joined;
        let columns = |parameter: &usize| brief.graph.parameters()[*parameter].columns();
        let extents = |parameter: &usize| (joined[parameter].len(), columns(parameter));
        let unmeasured = std::mem::take(&mut self.phase.unmeasured);
        for alike in unmeasured.chunk_by(|a, b| extents(a) == extents(b)) {
            let columns = columns(&alike[0]);
            let sums: Vec<&Floats> = alike.iter().map(|parameter| &joined[parameter]).collect();
            let squares = Floats::squares(&sums, columns);
            let hash = |(parameter, sum): (&usize, &&Floats)| {
                let first = self.holdings.owned(*parameter).rows.start;
                let hash = brief.audit.then(|| digest::of_rows(first, columns, &sum.to_host()));
                (*parameter, hash)
            };
            let gradients = alike.iter().zip(&sums).map(hash).collect();
            self.phase.reports.push(Joining { gradients, squares });
        }
    }

    /// Reports once all gradients of own slices are joined, which includes the own lanes; begins to
    /// sum the squares of those that are.
    pub(super) fn report_joined(&mut self) {
        self.measure();
        if self.phase.unjoined == Some(0) {
            self.phase.unjoined = None;
            let gradients = std::mem::take(&mut self.phase.reports);
            let gradients = gradients.into_iter().flat_map(Joining::known).collect();
            self.note_part(Part::Reduce);
            self.post().report(Report::Joined { from: self.me, gradients });
        }
    }
}

fn gradient(parameter: usize, slice: usize, from: usize, sum: Floats) -> Message {
    Message::Gradient { parameter, slice, from, sum, travelled: None }
}

/// The lanes of each slice that is not empty; a slice of all rows takes them as they are.
fn cut(share: &Share, columns: usize, lanes: Vec<Floats>) -> Vec<(usize, Vec<Floats>)> {
    let slices: Vec<(usize, Range<usize>)> = share.slices().collect();
    if let [(holder, _)] = slices[..] {
        return vec![(holder, lanes)];
    }
    let of = |rows: Range<usize>| {
        let elements = rows.start * columns..rows.end * columns;
        lanes.iter().map(|lane| lane.part(elements.clone())).collect()
    };
    slices.into_iter().map(|(holder, rows)| (holder, of(rows))).collect()
}

/// Adds lanes to a sum, from the first to the last.
fn added(before: Option<Floats>, lanes: impl IntoIterator<Item = Floats>) -> Floats {
    let mut lanes = before.into_iter().chain(lanes);
    let mut sum = lanes.next().unwrap_or_default();
    for lane in lanes {
        sum.add(&lane);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_added_from_the_first_to_the_last_however_they_are_spread() {
        let lanes = [1.0_f32, 1e8, -1e8, 1.0].map(|lane| Floats::from(vec![lane]));
        let whole = added(None, lanes.to_vec());
        assert_eq!(whole.host(), [((1.0_f32 + 1e8) + -1e8) + 1.0]);
        for cut in 1..4 {
            let first = added(None, lanes[..cut].to_vec());
            assert_eq!(added(Some(first), lanes[cut..].to_vec()), whole);
        }
    }
}
