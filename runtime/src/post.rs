//! Carries messages between actors; the one place that knows what lies between them.
//!
//! Today every actor lives in this process and a message is a pointer in actix's queue. Other
//! transports become variants of [`Transport`], chosen when a cluster starts.

use std::{sync::mpsc::Sender, time::Instant};

use actix::Recipient;
use graphs::{address::Address, mesh::Mesh, plan::CopyStep};

use crate::{
    lanes::{CopyJob, Parcel},
    message::Message,
    report::Report,
};

/// The way messages travel.
pub enum Transport {
    /// Within one process.
    Local {
        /// Compute actors in the order of [`Address::index`].
        workers: Vec<Recipient<Message>>,
        /// Communication lanes by rank, if messages between ranks take a link.
        carriers: Vec<Recipient<Parcel>>,
        /// Copy lanes by rank: to the host, and back.
        copiers: Vec<Recipient<CopyJob>>,
    },
}

/// The first message each actor gets: the addresses of everybody.
#[derive(actix::Message, Clone)]
#[rtype(result = "()")]
pub struct Connect(pub std::sync::Arc<Post>);

/// The addresses of everybody, and the line to the conductor.
pub struct Post {
    mesh: Mesh,
    transport: Transport,
    conductor: Sender<Report>,
}

impl Post {
    /// Joins the pieces that a cluster makes at its start.
    pub(crate) fn new(mesh: Mesh, transport: Transport, conductor: Sender<Report>) -> Self {
        Post { mesh, transport, conductor }
    }

    /// Puts a message in an actor's queue.
    ///
    /// `do_send` ignores actix's own mailbox limit; the credits of the plan are the limit. A
    /// message to an actor that has died is dropped: the conductor has heard of the death.
    pub fn send(&self, to: Address, message: Message) {
        match &self.transport {
            Transport::Local { workers, .. } => workers[to.index(&self.mesh)].do_send(message),
        }
    }

    /// Sends tensors from one compute actor to another: over the link of its rank if there is one
    /// and they leave it.
    pub fn carry(&self, from: Address, to: Address, message: Message) {
        let rank = |address: Address| address.index(&self.mesh) / 2;
        let Transport::Local { carriers, .. } = &self.transport;
        match carriers.get(rank(from)).filter(|_| rank(from) != rank(to)) {
            Some(carrier) => {
                let (bytes, sent) = (message.bytes(), Instant::now());
                carrier.do_send(Parcel { to, message, bytes, sent });
            }
            None => self.send(to, message),
        }
    }

    /// Gives the copy lane of a rank something to do.
    pub fn copy(&self, job: CopyJob) {
        let Transport::Local { copiers, .. } = &self.transport;
        let way = usize::from(job.step == CopyStep::Fetch);
        copiers[job.of.index(&self.mesh) / 2 * 2 + way].do_send(job);
    }

    /// Tells the conductor; nobody listens any more once a step has failed.
    pub fn report(&self, report: Report) {
        let _ = self.conductor.send(report);
    }
}
