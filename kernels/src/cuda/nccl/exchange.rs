//! Ragged rows from every rank to every rank: first how many, then the rows.

use super::{
    super::{Arena, Buffer, DeviceError, Element, Stream, View, ViewMut},
    Communicator, Group,
};

/// How many rows a rank sends to each rank, and gets from each.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// To each rank, in their order.
    pub sent: Vec<usize>,
    /// From each rank, in their order.
    pub received: Vec<usize>,
}

/// What an exchange brought.
#[derive(Debug)]
pub struct Exchanged<T: Element> {
    /// Those of the first rank, then those of the second, and so on.
    pub values: Buffer<T>,
    /// The counts that each rank sent, one rank's after the other's.
    pub counts: Buffer<i32>,
    /// The same counts on the host.
    pub host_counts: Vec<i32>,
    /// How many rows went to each rank and came from each.
    pub rows: Rows,
}

impl Rows {
    /// For the way back.
    pub fn reversed(&self) -> Self {
        Rows { sent: self.received.clone(), received: self.sent.clone() }
    }
}

impl<'a> Group<'a> {
    /// Sends the first rows to the first rank, the next ones to the second, and so on, and receives
    /// in the same order; pairs that have no rows exchange no message.
    ///
    /// # Panics
    ///
    /// If there are not as many numbers as ranks, or the views are not as long as the rows.
    pub fn exchange_rows<T: Element>(
        &mut self,
        communicator: &'a Communicator,
        stream: &'a Stream,
        (width, rows): (usize, &Rows),
        from: View<'a, T>,
        to: ViewMut<'a, T>,
    ) {
        let ranks = communicator.ranks();
        assert_eq!((rows.sent.len(), rows.received.len()), (ranks, ranks), "numbers of rows");
        assert_eq!(from.len(), width * rows.sent.iter().sum::<usize>(), "elements to send");
        assert_eq!(to.len(), width * rows.received.iter().sum::<usize>(), "elements to receive");
        let (mut start, mut rest) = (0, to);
        for peer in 0..ranks {
            let end = start + width * rows.sent[peer];
            self.send(communicator, stream, from.part(start..end), peer);
            let (own, others) = rest.split_at(width * rows.received[peer]);
            self.receive(communicator, stream, own, peer);
            (start, rest) = (end, others);
        }
    }
}

impl Communicator {
    /// Sends rows to all ranks and receives theirs, whose numbers are known; see
    /// [`Group::exchange_rows`]. With [`Rows::reversed`] it is the way back.
    ///
    /// # Errors
    ///
    /// As [`group`](super::group).
    ///
    /// # Panics
    ///
    /// If there are not as many numbers as ranks, or the views are not as long as the rows.
    pub fn exchange_rows<T: Element>(
        &self,
        stream: &Stream,
        shape: (usize, &Rows),
        from: View<'_, T>,
        to: ViewMut<'_, T>,
    ) -> Result<(), DeviceError> {
        super::group(|group| group.exchange_rows(self, stream, shape, from, to))
    }

    /// Sends each rank its share of `counts`, and waits until all of theirs are on the host.
    ///
    /// # Errors
    ///
    /// As [`group`](super::group) and [`Communicator::wait`].
    ///
    /// # Panics
    ///
    /// If there are not as many counts for each rank, or one of those that come is negative.
    pub fn exchange_counts(
        &self,
        stream: &Stream,
        counts: View<'_, i32>,
        mut received: ViewMut<'_, i32>,
    ) -> Result<(Vec<i32>, Rows), DeviceError> {
        let ranks = self.ranks();
        assert!(counts.len().is_multiple_of(ranks), "{} counts, {ranks} ranks", counts.len());
        let each = counts.len() / ranks;
        let same = Rows { sent: vec![1; ranks], received: vec![1; ranks] };
        self.exchange_rows(stream, (each, &same), counts, received.again())?;
        // The download waits without a limit, so there must be nothing left to wait for.
        self.wait(&stream.event()?)?;
        let (mut out, mut back) = (vec![0; counts.len()], vec![0; counts.len()]);
        stream.download(counts, &mut out)?;
        stream.download(received.view(), &mut back)?;
        let rows = |counts: &[i32]| (0..ranks).map(|rank| sum_of(counts, rank, each)).collect();
        let rows = Rows { sent: rows(&out), received: rows(&back) };
        Ok((back, rows))
    }

    /// Sends the first rows to the first rank, the next ones to the second, and so on: as many as
    /// the rank's share of `counts` says, which goes first. What comes is cut from the arena, once
    /// its extents are known, so this waits for the counts and not for the rows.
    ///
    /// With `counts` of the rows of each expert, one rank's experts after the other's, and rows
    /// sorted by expert, it is the way of routed rows to their experts.
    ///
    /// # Errors
    ///
    /// As [`group`](super::group) and [`Communicator::wait`]; [`DeviceError::OutOfMemory`] if the
    /// arena has no room for what comes, and then this rank leaves its communicator, since the
    /// others will send it.
    ///
    /// # Panics
    ///
    /// If there are not as many counts for each rank, one is negative, or `from` is not as long as
    /// the rows.
    pub fn exchange<T: Element>(
        &self,
        (stream, arena): (&Stream, &Arena),
        width: usize,
        counts: View<'_, i32>,
        from: View<'_, T>,
    ) -> Result<Exchanged<T>, DeviceError> {
        let mut received = arena.buffer(counts.len()).inspect_err(|_| self.abort())?;
        let (host_counts, rows) = self.exchange_counts(stream, counts, received.view_mut())?;
        let coming: usize = rows.received.iter().sum();
        let mut values = arena.buffer(width * coming).inspect_err(|_| self.abort())?;
        self.exchange_rows(stream, (width, &rows), from, values.view_mut())?;
        Ok(Exchanged { values, counts: received, host_counts, rows })
    }
}

/// Rows that a rank's share of the counts adds up to.
fn sum_of(counts: &[i32], rank: usize, each: usize) -> usize {
    let share = &counts[rank * each..(rank + 1) * each];
    share.iter().map(|count| usize::try_from(*count).expect("a count is not negative")).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_rank_are_those_of_its_share() {
        let sums: Vec<usize> = (0..3).map(|rank| sum_of(&[1, 2, 0, 0, 7, 1], rank, 2)).collect();
        assert_eq!(sums, [3, 0, 8]);
    }
}
