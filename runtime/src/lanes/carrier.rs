//! The communication lane of a rank whose messages take a link.
//!
//! One message after the other, at the speed of the link. Sums of gradients that leave while
//! programs run yield to all other messages, as nobody waits for them there: they travel in the
//! time between, in pieces.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, AsyncContext, Context, Handler};
use graphs::{address::Address, cluster::Link};

use super::wait_until;
use crate::{
    message::Message,
    post::{Connect, Post},
};

/// A message on its way to another rank.
#[derive(actix::Message, Debug)]
#[rtype(result = "()")]
pub struct Parcel {
    /// To whom.
    pub to: Address,
    /// What.
    pub message: Message,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// When it was sent.
    pub sent: Instant,
}

/// The communication lane of a rank.
pub struct Carrier {
    link: Link,
    /// When the link is free of messages.
    free: Instant,
    /// Until when the time between messages has been given to sums.
    given: Instant,
    /// Sums that have not left, in the order of their turns; bounded by the parameters of the rank.
    waiting: VecDeque<Waiting>,
    post: Option<Arc<Post>>,
}

/// A sum on its way, or about to be.
struct Waiting {
    parcel: Parcel,
    begin: Option<Instant>,
    /// Time that it still takes of the link.
    left: Duration,
}

impl Carrier {
    /// A lane whose link is free.
    pub fn new(link: Link) -> Self {
        let now = Instant::now();
        Carrier { link, free: now, given: now, waiting: VecDeque::new(), post: None }
    }

    fn seconds(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.link.each)
    }

    fn deliver(&self, to: Address, mut message: Message, begin: Instant, end: Instant) {
        message.note_travel((begin, end));
        if let Some(post) = &self.post {
            post.send(to, message);
        }
    }

    /// Gives the time until `until` in which nothing was sent to the sums; delivers those that
    /// have arrived.
    fn give(&mut self, until: Instant) {
        let mut now = self.given.max(self.free);
        while let Some(mut sum) = self.waiting.pop_front() {
            now = now.max(sum.parcel.sent);
            if now < until {
                sum.begin.get_or_insert(now);
            }
            let spent = sum.left.min(until.saturating_duration_since(now));
            now += spent;
            sum.left -= spent;
            if sum.left > Duration::ZERO {
                self.waiting.push_front(sum);
                break;
            }
            let Parcel { to, message, .. } = sum.parcel;
            self.deliver(to, message, sum.begin.unwrap_or(now), now);
        }
        self.given = self.given.max(now.min(until));
    }

    /// Looks again when the first sum may have arrived.
    fn look_later(&self, context: &mut Context<Self>) {
        if let Some(sum) = self.waiting.front() {
            let due = self.given.max(self.free).max(sum.parcel.sent) + sum.left;
            let wait = due.saturating_duration_since(Instant::now());
            context.run_later(wait, |carrier, context| {
                carrier.give(Instant::now());
                carrier.look_later(context);
            });
        }
    }
}

impl Actor for Carrier {
    type Context = Context<Self>;
}

impl Handler<Connect> for Carrier {
    type Result = ();

    fn handle(&mut self, Connect(post): Connect, _: &mut Context<Self>) {
        self.post = Some(post);
    }
}

impl Handler<Parcel> for Carrier {
    type Result = ();

    fn handle(&mut self, parcel: Parcel, context: &mut Context<Self>) {
        if let Message::Gradient { .. } = parcel.message {
            let left = self.seconds(parcel.bytes) + Duration::from_secs_f64(self.link.latency);
            self.waiting.push_back(Waiting { parcel, begin: None, left });
            if self.waiting.len() == 1 {
                self.look_later(context);
            }
            return;
        }
        let Parcel { to, message, bytes, sent } = parcel;
        let begin = self.free.max(sent);
        self.give(begin);
        self.free = begin + self.seconds(bytes);
        let arrival = self.free + Duration::from_secs_f64(self.link.latency);
        wait_until(arrival);
        self.deliver(to, message, begin, arrival);
    }
}
