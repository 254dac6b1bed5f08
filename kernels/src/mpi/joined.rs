//! The world of a program that was built with MPI.
//!
//! A message is a head, which says how long its parts are, and then each part in pieces. MPI keeps
//! the order of what goes from one process to another under one tag, so the pieces need no numbers:
//! those that a head announces are asked for in the order of heads.

use std::{collections::VecDeque, ops::Range, os::raw::c_int};

use bytes::Bytes;
use mpi::{
    environment::{self, Universe},
    ffi,
    point_to_point::{Message, Status},
    topology::SimpleCommunicator,
    traits::{AsRaw, Communicator, Equivalence, MatchedReceiveVec, Source},
};

use super::{MpiError, Part, Received};

/// What a head is sent under.
const HEAD: c_int = 1;

/// What a piece of a part is sent under.
const PIECE: c_int = 2;

/// Bytes of a piece at most: far from what a count of MPI can say, and little enough that each
/// tells in time that something still moves.
const PIECE_BYTES: usize = 64 << 20;

/// Bytes of a number in a head.
const NUMBER: usize = size_of::<u64>();

/// The library's name and version.
pub fn library() -> Option<String> {
    let whole = environment::library_version().ok()?;
    let line = whole.lines().next()?;
    Some(line.split(',').next().unwrap_or(line).trim_end_matches('\0').trim().to_string())
}

/// The place of this process among all that were started together.
pub struct World {
    all: SimpleCommunicator,
    sending: Vec<Sending>,
    /// In the order in which their heads came.
    arriving: VecDeque<Arriving>,
    moved: u64,
    /// Dropped last, which is MPI's end in this process.
    _universe: Universe,
}

/// Bytes on their way, kept where they are until MPI has read them.
struct Sending {
    request: ffi::MPI_Request,
    bytes: Bytes,
    is_piece: bool,
}

/// A message whose head is here.
struct Arriving {
    from: usize,
    head: Vec<u8>,
    parts: Vec<Part>,
    /// Pieces that MPI still writes into the parts.
    pieces: Vec<ffi::MPI_Request>,
}

impl World {
    /// Joins the processes that were started together; the calling thread makes every later call.
    ///
    /// # Errors
    ///
    /// [`MpiError::NotInitialised`] if this process has joined before.
    pub fn join() -> Result<Self, MpiError> {
        let begun = mpi::initialize_with_threading(mpi::Threading::Funneled);
        let (universe, _) = begun.ok_or(MpiError::NotInitialised)?;
        let all = universe.world();
        let (sending, arriving) = (Vec::new(), VecDeque::new());
        Ok(World { all, sending, arriving, moved: 0, _universe: universe })
    }

    /// The number of this process.
    pub fn rank(&self) -> usize {
        self.all.rank() as usize
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.all.size() as usize
    }

    /// The host of this process.
    pub fn host(&self) -> String {
        environment::processor_name().unwrap_or_default()
    }

    /// Begins to send a message.
    ///
    /// # Panics
    ///
    /// If there is no process of this number.
    pub fn send(&mut self, to: usize, head: &[u8], parts: &[Bytes]) {
        assert!(to < self.size(), "process {to} of {}", self.size());
        let lengths = parts.iter().map(|part| part.len());
        let numbers = std::iter::once(parts.len()).chain(lengths);
        let mut first: Vec<u8> = numbers.flat_map(|n| (n as u64).to_le_bytes()).collect();
        first.extend_from_slice(head);
        self.begin(to, HEAD, first.into());
        for part in parts {
            pieces(part.len()).for_each(|piece| self.begin(to, PIECE, part.slice(piece)));
        }
    }

    fn begin(&mut self, to: usize, tag: c_int, bytes: Bytes) {
        let kind = u8::equivalent_datatype().as_raw();
        let (from, count) = (bytes.as_ptr(), bytes.len() as c_int);
        // SAFETY: the pointer is good for `count` bytes, which nobody changes, since they are
        // `Bytes`, and which stay where they are until the request is done: only then, or never,
        // is `Sending` dropped. MPI writes the request before it returns.
        let request = unsafe {
            let mut request = ffi::RSMPI_REQUEST_NULL;
            let all = self.all.as_raw();
            ffi::MPI_Isend(from.cast(), count, kind, to as c_int, tag, all, &mut request);
            request
        };
        self.sending.push(Sending { request, bytes, is_piece: tag == PIECE });
    }

    /// Goes on with all that is under way; returns the messages that are complete, those of one
    /// process in the order in which it sent them.
    pub fn go_on(&mut self) -> Vec<Received> {
        let left = self.sending.extract_if(.., |it| is_done(&mut it.request));
        self.moved += left.filter(|it| it.is_piece).count() as u64;
        while let Some(found) = self.all.any_process().immediate_matched_probe_with_tag(HEAD) {
            self.open(found);
        }
        for message in &mut self.arriving {
            let before = message.pieces.len();
            message.pieces.retain_mut(|request| !is_done(request));
            self.moved += (before - message.pieces.len()) as u64;
        }
        self.take_complete()
    }

    /// Takes a head and asks for the pieces that it announces.
    fn open(&mut self, (message, status): (Message, Status)) {
        let from = status.source_rank();
        let (first, _) = (message, status).matched_receive_vec::<u8>();
        let (lengths, head) = announced(&first);
        let mut parts: Vec<Part> = lengths.into_iter().map(Part::new).collect();
        let mut requests = Vec::new();
        for part in &mut parts {
            let bytes = part.bytes_mut();
            for piece in pieces(bytes.len()) {
                requests.push(ask(&self.all, from, &mut bytes[piece]));
            }
        }
        let (from, head) = (from as usize, head.to_vec());
        self.arriving.push_back(Arriving { from, head, parts, pieces: requests });
    }

    /// The complete messages that no earlier one of their sender holds up.
    fn take_complete(&mut self) -> Vec<Received> {
        let (mut complete, mut left) = (Vec::new(), VecDeque::new());
        for message in self.arriving.drain(..) {
            let is_held_up = left.iter().any(|it: &Arriving| it.from == message.from);
            if message.pieces.is_empty() && !is_held_up {
                let Arriving { from, head, parts, .. } = message;
                complete.push(Received { from, head, parts });
            } else {
                left.push_back(message);
            }
        }
        self.arriving = left;
        complete
    }

    /// Whether something is under way, to others or from them.
    pub fn is_busy(&self) -> bool {
        !self.sending.is_empty() || !self.arriving.is_empty()
    }

    /// Pieces of parts that have left or arrived so far: two equal readings mean that nothing but
    /// heads moved between them.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Ends all processes at once; what started them ends with this code.
    pub fn abort(&self, code: u8) -> ! {
        self.all.abort(c_int::from(code))
    }
}

impl Drop for World {
    /// What MPI may still read or write stays where it is for ever.
    fn drop(&mut self) {
        self.sending.drain(..).for_each(|it| std::mem::forget(it.bytes));
        self.arriving.drain(..).for_each(|it| std::mem::forget(it.parts));
    }
}

/// Asks for a piece of a part from a process.
fn ask(all: &SimpleCommunicator, from: c_int, to: &mut [u8]) -> ffi::MPI_Request {
    let kind = u8::equivalent_datatype().as_raw();
    let (bytes, count) = (to.as_mut_ptr(), to.len() as c_int);
    // SAFETY: the pointer is good for `count` bytes of a `Part` that `Arriving` keeps, untouched,
    // until all its requests are done, or for ever; its words do not move with it. MPI writes the
    // request before it returns.
    unsafe {
        let mut request = ffi::RSMPI_REQUEST_NULL;
        ffi::MPI_Irecv(bytes.cast(), count, kind, from, PIECE, all.as_raw(), &mut request);
        request
    }
}

/// Whether MPI is done with a request.
fn is_done(request: &mut ffi::MPI_Request) -> bool {
    let mut flag = 0;
    // SAFETY: the request came from MPI and nobody else has it; MPI reads it, writes it and the
    // flag, and may be told that nobody wants a status.
    unsafe { ffi::MPI_Test(request, &mut flag, ffi::RSMPI_STATUS_IGNORE) };
    flag != 0
}

/// The pieces that so many bytes are sent in.
fn pieces(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(PIECE_BYTES).map(move |begin| begin..len.min(begin + PIECE_BYTES))
}

/// The lengths of the parts that a head announces, and what stands behind them; all of it if it is
/// no head of ours.
fn announced(first: &[u8]) -> (Vec<usize>, &[u8]) {
    let number = |at: usize| {
        let bytes = first.get(at * NUMBER..(at + 1) * NUMBER)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let count = number(0).filter(|count| *count < first.len() / NUMBER);
    let lengths = count.and_then(|count| (1..=count).map(number).collect::<Option<Vec<_>>>());
    match lengths {
        Some(lengths) => {
            let head = &first[(1 + lengths.len()) * NUMBER..];
            (lengths, head)
        }
        None => (Vec::new(), first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_the_parts_are_and_another_is_left_as_it_is() {
        let numbers = [2_u64, 5, 0].map(u64::to_le_bytes).concat();
        let first = [&numbers[..], b"head"].concat();
        assert_eq!(announced(&first), (vec![5, 0], &b"head"[..]));
        assert_eq!(announced(b"other"), (vec![], &b"other"[..]));
        assert_eq!(announced(&7_u64.to_le_bytes()), (vec![], &7_u64.to_le_bytes()[..]));
    }

    #[test]
    fn pieces_are_all_of_a_part_in_order() {
        let all: Vec<_> = pieces(2 * PIECE_BYTES + 3).collect();
        let (one, two) = (PIECE_BYTES, 2 * PIECE_BYTES);
        assert_eq!(all, [0..one, one..two, two..two + 3]);
        assert_eq!(pieces(0).count(), 0);
    }
}
