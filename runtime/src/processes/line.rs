//! The one thread of a process that speaks MPI: it sends what actors give it, and hands out what
//! comes for them.
//!
//! It keeps no core busy: with nothing to do it sleeps, longer each time, and an order wakes it at
//! once. MPI can only be asked whether something has come, so that is found out within
//! [`LONGEST`]; while bytes are under way it looks more often, since they move only then.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError},
    },
    time::Duration,
};

use graphs::address::Address;
use kernels::mpi::{Received, World};

use super::{
    frame::{Control, Frame},
    wire::{Packing, packed, unpacked},
};
use crate::{board::Sight, brief::Brief, message::Message, post::Post, report::Report};

/// How long it sleeps at first.
const SHORTEST: Duration = Duration::from_micros(20);

/// How long it sleeps at most.
const LONGEST: Duration = Duration::from_millis(1);

/// What the thread is told to do.
pub(super) enum Order {
    /// Sends to a process.
    Send(usize, Packing),
    /// Hands what comes from now on to the actors of a cluster.
    Host(u64, Arc<Brief>, Arc<Post>),
    /// Forgets the actors, which are needed no longer.
    Free,
    /// Ends all processes at once.
    Abort(u8),
    /// Leaves when everything has been sent.
    Close,
}

/// A cluster's end of the line: puts what leaves this process in the thread's queue.
#[derive(Clone, Debug)]
pub struct Line {
    pub(super) orders: Sender<Order>,
    pub(super) cluster: u64,
}

impl Line {
    /// Sends to an actor of another process.
    pub(crate) fn message(&self, process: usize, to: Address, message: Message) {
        self.send(process, Frame::Message { cluster: self.cluster, to, message });
    }

    /// Sends to the conductor.
    pub(crate) fn report(&self, report: Report) {
        self.send(0, Frame::Report { cluster: self.cluster, report });
    }

    /// Sends to another process.
    ///
    /// If the thread is gone the run is over, and nobody waits for the message.
    pub(super) fn send(&self, process: usize, frame: Frame) {
        let _ = self.orders.send(Order::Send(process, packed(frame)));
    }
}

/// What the thread works with; nobody else sees it.
pub(super) struct Porter {
    world: World,
    orders: Receiver<Order>,
    /// Hands on what is not for actors.
    heard: Sender<(usize, Control)>,
    /// The actors of this process, with the number of their cluster.
    hosted: Option<(u64, Arc<Brief>, Arc<Post>)>,
}

impl Porter {
    /// A porter without actors.
    pub fn new(world: World, orders: Receiver<Order>, heard: Sender<(usize, Control)>) -> Self {
        Porter { world, orders, heard, hosted: None }
    }

    /// Works until it is told to close, and everything has left.
    pub fn run(mut self) {
        let (mut pause, mut is_closing) = (SHORTEST, false);
        loop {
            let arrived = self.world.go_on();
            let is_quiet = arrived.is_empty();
            arrived.into_iter().for_each(|message| self.hand_out(message));
            if is_closing && !self.world.is_busy() {
                return;
            }
            let order = match self.orders.try_recv() {
                Err(TryRecvError::Empty) if is_quiet => self.doze(pause),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Order::Close),
                Ok(order) => Some(order),
            };
            let is_active = !is_quiet || order.is_some() || self.world.is_busy();
            pause = if is_active { SHORTEST } else { LONGEST.min(2 * pause) };
            match order {
                Some(Order::Close) => is_closing = true,
                Some(order) => self.obey(order),
                None => {}
            }
        }
    }

    /// Sleeps, until there is an order or the time is over.
    fn doze(&self, pause: Duration) -> Option<Order> {
        match self.orders.recv_timeout(pause) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Order::Close),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Send(to, Packing { head, parts }) => self.world.send(to, &head, &parts),
            Order::Host(cluster, brief, post) => self.hosted = Some((cluster, brief, post)),
            Order::Free => self.hosted = None,
            Order::Abort(code) => self.world.abort(code),
            Order::Close => {}
        }
    }

    /// Hands a message to whom it is for; what is for a cluster that is gone is dropped.
    fn hand_out(&mut self, message: Received) {
        let Received { from, head, parts } = message;
        let frame = match unpacked(&head, parts) {
            Ok(frame) => frame,
            Err(damaged) => {
                let (actor, cause) = (format!("process {from}"), damaged.to_string());
                let action = "a message to another process".into();
                return self.report(Report::Failed { actor, action, cause, is_full: false });
            }
        };
        match frame {
            Frame::Message { cluster, to, message } => {
                if let Some((_, _, post)) = self.hosted.as_ref().filter(|it| it.0 == cluster) {
                    post.send(to, message);
                }
            }
            Frame::Report { cluster, report } => {
                if self.hosted.as_ref().is_some_and(|it| it.0 == cluster) {
                    self.report(report);
                }
            }
            Frame::Ask { number } => {
                let answer = Control::Answer { number, sight: self.sight() };
                let Packing { head, parts } = packed(Frame::Control(answer));
                self.world.send(from, &head, &parts);
            }
            // Whoever leads this process may have left already.
            Frame::Control(control) => drop(self.heard.send((from, control))),
        }
    }

    fn report(&self, report: Report) {
        if let Some((_, _, post)) = &self.hosted {
            post.report(report);
        }
    }

    /// What the actors of this process do; what moves on the line counts as a move.
    fn sight(&self) -> Sight {
        let mut sight =
            self.hosted.as_ref().map_or_else(Sight::default, |(_, brief, _)| brief.sight());
        sight.moves += self.world.moved();
        sight
    }
}
