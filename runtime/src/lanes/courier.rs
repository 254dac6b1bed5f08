//! The communication lane of a rank that has a GPU beside others: one message after the other.
//!
//! A message is handed over once its tensors have arrived, so a compute stream never waits for
//! another GPU: the actors of a rank go on with whatever is there.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use actix::{Actor, Context, Handler};

use super::Parcel;
use crate::{
    brief::Brief,
    post::{Connect, Post},
    worker::failure,
};

/// The communication lane of a rank.
pub struct Courier {
    brief: Arc<Brief>,
    post: Option<Arc<Post>>,
}

impl Courier {
    /// A lane with nothing to do.
    pub fn new(brief: Arc<Brief>) -> Self {
        Courier { brief, post: None }
    }
}

impl Actor for Courier {
    type Context = Context<Self>;
}

impl Handler<Connect> for Courier {
    type Result = ();

    fn handle(&mut self, Connect(post): Connect, _: &mut Context<Self>) {
        self.post = Some(post);
    }
}

impl Handler<Parcel> for Courier {
    type Result = ();

    /// What NCCL refuses, or what takes too long, is the step's failure.
    fn handle(&mut self, parcel: Parcel, _: &mut Context<Self>) {
        let Parcel { to, message, .. } = parcel;
        let (begin, place) = (Instant::now(), self.brief.place(to));
        let sent = catch_unwind(AssertUnwindSafe(|| message.sent(place)));
        let Some(post) = &self.post else { return };
        match sent {
            Ok(mut message) => {
                message.note_travel((begin, Instant::now()));
                post.send(to, message);
            }
            Err(panic) => {
                let actor = format!("the communication lane to {to}");
                post.report(failure(actor, "a message between GPUs".into(), panic.as_ref()));
            }
        }
    }
}
