//! The lanes of a rank beside its computing actors: communication and copies.
//!
//! Each lane is an actor on a thread of its own, so it truly runs beside computation. Within one
//! process a message is a pointer and takes no time; a cluster may be told to send at the speed of
//! a link, and to copy at that of a bus, so that what a plan hides, and what it does not, can be
//! seen and measured on one machine.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Arbiter, Context, Handler};
use graphs::{
    address::Address,
    cluster::Machine,
    flight::{Batch, Lump},
    plan::CopyStep,
};
use kernels::cuda::Event;
use ops::Tensor;

use crate::{
    brief::Brief,
    flights::FlightKey,
    message::Message,
    post::{Connect, Here, Post},
    worker::failure,
};

mod carrier;
mod courier;

pub use self::{
    carrier::{Carrier, Parcel},
    courier::Courier,
};

/// Activations on their way to the host, or back.
#[derive(actix::Message, Debug)]
#[rtype(result = "()")]
pub struct CopyJob {
    /// Whose they are.
    pub of: Address,
    /// Of which flight.
    pub key: FlightKey,
    /// [`CopyStep::Offload`] or [`CopyStep::Fetch`].
    pub step: CopyStep,
    /// What is copied.
    pub batch: Batch<Tensor>,
    /// Place in the GPU's work behind which it is complete, if it is on one.
    pub after: Option<Event>,
}

/// The copy lane of a rank, one way: one batch after the other, at the speed of the bus.
pub struct Copier {
    /// Bytes a second; as fast as memory if there is none.
    speed: Option<f64>,
    post: Option<Arc<Post>>,
}

impl Copier {
    /// A lane with nothing to do.
    pub fn new(speed: Option<f64>) -> Self {
        Copier { speed, post: None }
    }
}

impl Actor for Copier {
    type Context = Context<Self>;
}

impl Handler<Connect> for Copier {
    type Result = ();

    fn handle(&mut self, Connect(post): Connect, _: &mut Context<Self>) {
        self.post = Some(post);
    }
}

impl Handler<CopyJob> for Copier {
    type Result = ();

    fn handle(&mut self, job: CopyJob, _: &mut Context<Self>) {
        let CopyJob { of, key, step, batch, after } = job;
        let begin = Instant::now();
        let bytes: u64 = batch.iter().map(|(_, lump)| lump.amount().fixed).sum();
        let copy = |lump: &Lump<Tensor>| copied(lump, step, after.as_ref());
        let copies = catch_unwind(AssertUnwindSafe(|| {
            batch.iter().map(|(item, lump)| (*item, copy(lump))).collect()
        }));
        drop(batch);
        let Some(post) = &self.post else { return };
        let copies = match copies {
            Ok(copies) => copies,
            Err(panic) => {
                let action = format!("{step:?}").to_lowercase();
                return post.report(failure(format!("the copy lane of {of}"), action, &*panic));
            }
        };
        if let Some(speed) = self.speed {
            wait_until(begin + Duration::from_secs_f64(bytes as f64 / speed));
        }
        let interval = (begin, Instant::now());
        post.send(of, Message::Copied { key, step, batch: copies, interval });
    }
}

/// The same in memory of its own: on the host, or back from there.
fn copied(lump: &Lump<Tensor>, step: CopyStep, after: Option<&Event>) -> Lump<Tensor> {
    match (lump, step) {
        (Lump::Plain(tensor), CopyStep::Fetch) => Lump::Plain(tensor.fetched()),
        (Lump::Plain(tensor), _) => Lump::Plain(tensor.parked(after)),
        (Lump::Fp8(stored), CopyStep::Fetch) => Lump::Fp8(stored.fetched()),
        (Lump::Fp8(stored), _) => Lump::Fp8(stored.parked(after)),
    }
}

fn wait_until(then: Instant) {
    let left = then.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}

/// The lanes of the ranks of a process, in their order.
#[derive(Default)]
pub(crate) struct Lanes {
    carriers: Vec<Addr<Carrier>>,
    couriers: Vec<Addr<Courier>>,
    copiers: Vec<Addr<Copier>>,
}

impl Lanes {
    /// Starts the lanes that so many ranks of a plan need, each on a thread of its own.
    pub(crate) fn start(
        machine: Option<&Machine>,
        brief: &Arc<Brief>,
        ranks: usize,
        arbiters: &mut Vec<Arbiter>,
    ) -> Self {
        let mut lanes = Lanes::default();
        let plan = &brief.plan;
        let is_apart = brief.places.windows(2).any(|two| !two[0].is(&two[1]));
        for _ in 0..ranks {
            if let Some(link) = machine.and_then(|it| it.link) {
                let arbiter = Arbiter::new();
                let start = move |_: &mut Context<Carrier>| Carrier::new(link);
                lanes.carriers.push(Carrier::start_in_arbiter(&arbiter.handle(), start));
                arbiters.push(arbiter);
            }
            if is_apart {
                let (arbiter, brief) = (Arbiter::new(), brief.clone());
                let start = move |_: &mut Context<Courier>| Courier::new(brief);
                lanes.couriers.push(Courier::start_in_arbiter(&arbiter.handle(), start));
                arbiters.push(arbiter);
            }
            if plan.policies.offloads().is_some() {
                let host = machine.and_then(|it| it.host);
                // One to the host, one back: a bus carries both ways at a time.
                for _ in 0..2 {
                    let arbiter = Arbiter::new();
                    let start = move |_: &mut Context<Copier>| Copier::new(host);
                    lanes.copiers.push(Copier::start_in_arbiter(&arbiter.handle(), start));
                    arbiters.push(arbiter);
                }
            }
        }
        lanes
    }

    /// The queues of these lanes.
    pub(crate) fn here(&self) -> Here {
        let carriers = self.carriers.iter().map(|lane| lane.clone().recipient());
        let couriers = self.couriers.iter().map(|lane| lane.clone().recipient());
        let carriers = carriers.chain(couriers).collect();
        let copiers = self.copiers.iter().map(|lane| lane.clone().recipient()).collect();
        Here { first: 0, workers: Vec::new(), carriers, copiers }
    }

    /// Tells the lanes everybody's address.
    pub(crate) fn connect(&self, post: &Arc<Post>) {
        self.carriers.iter().for_each(|lane| lane.do_send(Connect(post.clone())));
        self.couriers.iter().for_each(|lane| lane.do_send(Connect(post.clone())));
        self.copiers.iter().for_each(|lane| lane.do_send(Connect(post.clone())));
    }
}
