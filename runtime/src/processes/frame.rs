//! What goes from process to process: what actors say, and what the processes themselves do.

use std::path::PathBuf;

use graphs::address::Address;

use super::wire::{Damaged, Packing, Unpacking, Wire};
use crate::{board::Sight, message::Message, report::Report};

/// A message between processes.
#[derive(Debug)]
pub(super) enum Frame {
    /// To an actor of the receiving process.
    Message {
        /// Number of the cluster among those of the run.
        cluster: u64,
        /// To whom.
        to: Address,
        /// What.
        message: Message,
    },
    /// To the conductor, which is in process 0.
    Report {
        /// Number of the cluster among those of the run.
        cluster: u64,
        /// What.
        report: Report,
    },
    /// Whether the process is there, and what its actors do.
    Ask {
        /// Number of the question.
        number: u64,
    },
    /// To those who lead the processes.
    Control(Control),
}

/// What those who lead the processes tell each other.
#[derive(Debug)]
pub(crate) enum Control {
    /// A follower has its actors, and waits for the conductor's word.
    Ready {
        /// Number of the cluster among those of the run.
        cluster: u64,
        /// Everything that has to be the same in all processes, by name.
        alike: Vec<(String, String)>,
    },
    /// The conductor needs the actors of this cluster no longer.
    End {
        /// Number of the cluster among those of the run.
        cluster: u64,
    },
    /// The run goes on with its next phase, from a checkpoint.
    GoOn {
        /// Folder of the checkpoint.
        checkpoint: PathBuf,
    },
    /// The run is over.
    Leave {
        /// Exit code of all processes.
        code: u8,
    },
    /// A follower cannot go on.
    Refused {
        /// Exit code that fits.
        code: u8,
        /// Why, in words.
        text: String,
    },
    /// What the actors of a process do.
    Answer {
        /// Number of the question.
        number: u64,
        /// What was seen.
        sight: Sight,
    },
}

impl Wire for Frame {
    fn put(self, to: &mut Packing) {
        match self {
            Frame::Message { cluster, to: actor, message } => {
                (0_u8, cluster, actor, message).put(to);
            }
            Frame::Report { cluster, report } => (1_u8, cluster, report).put(to),
            Frame::Ask { number } => (2_u8, number).put(to),
            Frame::Control(control) => (3_u8, control).put(to),
        }
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(match u8::take(from)? {
            0 => {
                let (cluster, to, message) = Wire::take(from)?;
                Frame::Message { cluster, to, message }
            }
            1 => {
                let (cluster, report) = Wire::take(from)?;
                Frame::Report { cluster, report }
            }
            2 => Frame::Ask { number: Wire::take(from)? },
            3 => Frame::Control(Wire::take(from)?),
            _ => return Err(Damaged),
        })
    }
}

impl Wire for Control {
    fn put(self, to: &mut Packing) {
        match self {
            Control::Ready { cluster, alike } => (0_u8, cluster, alike).put(to),
            Control::End { cluster } => (1_u8, cluster).put(to),
            Control::GoOn { checkpoint } => {
                (2_u8, checkpoint.to_string_lossy().into_owned()).put(to);
            }
            Control::Leave { code } => (3_u8, code).put(to),
            Control::Refused { code, text } => (4_u8, code, text).put(to),
            Control::Answer { number, sight } => (5_u8, number, sight).put(to),
        }
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(match u8::take(from)? {
            0 => {
                let (cluster, alike) = Wire::take(from)?;
                Control::Ready { cluster, alike }
            }
            1 => Control::End { cluster: Wire::take(from)? },
            2 => Control::GoOn { checkpoint: String::take(from)?.into() },
            3 => Control::Leave { code: Wire::take(from)? },
            4 => {
                let (code, text) = Wire::take(from)?;
                Control::Refused { code, text }
            }
            5 => {
                let (number, sight) = Wire::take(from)?;
                Control::Answer { number, sight }
            }
            _ => return Err(Damaged),
        })
    }
}

impl Wire for Sight {
    fn put(self, to: &mut Packing) {
        let Sight { moves, is_working, story } = self;
        (moves, is_working, story).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (moves, is_working, story) = Wire::take(from)?;
        Ok(Sight { moves, is_working, story })
    }
}
