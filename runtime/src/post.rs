//! Carries messages between actors; the one place that knows what lies between them.
//!
//! Today every actor lives in this process and a message is a pointer in actix's queue. Other
//! transports become variants of [`Transport`], chosen when a cluster starts.

use std::sync::mpsc::Sender;

use actix::Recipient;
use graphs::{address::Address, mesh::Mesh};

use crate::{message::Message, report::Report};

/// The way messages travel.
pub enum Transport {
    /// Within one process.
    Local {
        /// Compute actors in the order of [`Address::index`].
        workers: Vec<Recipient<Message>>,
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
            Transport::Local { workers } => workers[to.index(&self.mesh)].do_send(message),
        }
    }

    /// Tells the conductor; nobody listens any more once a step has failed.
    pub fn report(&self, report: Report) {
        let _ = self.conductor.send(report);
    }
}
