//! Carries messages between actors; the one place that knows what lies between them.
//!
//! Within a process a message is a pointer in actix's queue. What is for an actor of another
//! process goes to the thread that speaks MPI; see [`crate::processes`].

use std::{ops::Range, sync::mpsc::Sender, time::Instant};

use actix::Recipient;
use graphs::{address::Address, mesh::Mesh, plan::CopyStep};

use crate::{
    lanes::{CopyJob, Parcel},
    message::Message,
    processes::{Line, Spread},
    report::Report,
};

/// The way messages travel.
pub enum Transport {
    /// Within one process, which has all ranks.
    Local(Here),
    /// Between several, each with some of the ranks.
    Processes(Here, Far),
}

/// The queues of the actors of this process.
pub struct Here {
    /// Its first rank.
    pub first: usize,
    /// Compute actors in the order of [`Address::index`], from those of the first rank on.
    pub workers: Vec<Recipient<Message>>,
    /// Communication lanes by rank, if messages between ranks take a link.
    pub carriers: Vec<Recipient<Parcel>>,
    /// Copy lanes by rank: to the host, and back.
    pub copiers: Vec<Recipient<CopyJob>>,
}

/// The way to the actors of other processes.
pub struct Far {
    /// The number of this process.
    pub own: usize,
    /// Which process has which ranks.
    pub spread: Spread,
    /// To all of them.
    pub line: Line,
}

impl Far {
    /// The ranks of this process.
    pub fn ranks(&self) -> Range<usize> {
        self.spread.ranks(self.own)
    }
}

/// The first message each actor gets: the addresses of everybody.
#[derive(actix::Message, Clone)]
#[rtype(result = "()")]
pub struct Connect(pub std::sync::Arc<Post>);

/// The addresses of everybody, and the line to the conductor.
pub struct Post {
    mesh: Mesh,
    transport: Transport,
    /// Where reports are heard, if that is in this process.
    conductor: Option<Sender<Report>>,
}

impl Post {
    /// Joins the pieces that a cluster makes at its start.
    pub(crate) fn new(
        mesh: Mesh,
        here: Here,
        far: Option<Far>,
        conductor: Option<Sender<Report>>,
    ) -> Self {
        let transport = match far {
            None => Transport::Local(here),
            Some(far) => Transport::Processes(here, far),
        };
        Post { mesh, transport, conductor }
    }

    fn here(&self) -> &Here {
        match &self.transport {
            Transport::Local(here) | Transport::Processes(here, _) => here,
        }
    }

    fn rank(&self, of: Address) -> usize {
        of.index(&self.mesh) / 2
    }

    /// Puts a message in an actor's queue, or on the way to its process.
    ///
    /// `do_send` ignores actix's own mailbox limit; the credits of the plan are the limit. A
    /// message to an actor that has died is dropped: the conductor has heard of the death.
    pub fn send(&self, to: Address, message: Message) {
        let (here, far) = match &self.transport {
            Transport::Local(here) => (here, None),
            Transport::Processes(here, far) => {
                let process = far.spread.process(self.rank(to));
                (here, (process != far.own).then_some((process, far)))
            }
        };
        match far {
            Some((process, far)) => far.line.message(process, to, message),
            None => here.workers[to.index(&self.mesh) - 2 * here.first].do_send(message),
        }
    }

    /// Sends tensors from one compute actor to another: over the link of its rank if there is one
    /// and they leave it.
    pub fn carry(&self, from: Address, to: Address, message: Message) {
        let (here, rank) = (self.here(), self.rank(from));
        match here.carriers.get(rank - here.first).filter(|_| rank != self.rank(to)) {
            Some(carrier) => {
                let (bytes, sent) = (message.bytes(), Instant::now());
                carrier.do_send(Parcel { to, message, bytes, sent });
            }
            None => self.send(to, message),
        }
    }

    /// Gives the copy lane of a rank something to do.
    pub fn copy(&self, job: CopyJob) {
        let here = self.here();
        let way = usize::from(job.step == CopyStep::Fetch);
        here.copiers[(self.rank(job.of) - here.first) * 2 + way].do_send(job);
    }

    /// Tells the conductor; nobody listens any more once a step has failed.
    pub fn report(&self, report: Report) {
        match (&self.conductor, &self.transport) {
            (Some(conductor), _) => drop(conductor.send(report)),
            (None, Transport::Processes(_, far)) => far.line.report(report),
            (None, Transport::Local(_)) => {}
        }
    }
}
