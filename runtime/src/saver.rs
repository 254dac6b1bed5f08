//! The actor that writes checkpoints while training goes on.
//!
//! At most one checkpoint is being written; the next waits for it, so memory holds two copies of
//! the weights and never more.

use std::{
    path::PathBuf,
    sync::mpsc::{self, Receiver, Sender},
};

use actix::{Actor, Addr, Arbiter, Context, Handler};

use crate::checkpoint::{CheckpointError, State, prune};

/// Order to write a checkpoint.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Save(Box<State>);

/// Order to end the thread.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Close;

struct Writer {
    dir: PathBuf,
    keep: usize,
    done: Sender<Result<PathBuf, CheckpointError>>,
}

impl Actor for Writer {
    type Context = Context<Self>;
}

impl Handler<Save> for Writer {
    type Result = ();

    fn handle(&mut self, Save(state): Save, _: &mut Context<Self>) {
        let saved = state.save(&self.dir);
        let pruned = saved.and_then(|path| prune(&self.dir, self.keep).map(|_| path));
        // The saver may have given up waiting after a failure of training.
        let _ = self.done.send(pruned);
    }
}

impl Handler<Close> for Writer {
    type Result = ();

    fn handle(&mut self, _: Close, _: &mut Context<Self>) {
        Arbiter::current().stop();
    }
}

/// Writes checkpoints into one folder.
pub struct Saver {
    address: Addr<Writer>,
    arbiter: Option<Arbiter>,
    done: Receiver<Result<PathBuf, CheckpointError>>,
    writing: bool,
}

impl Saver {
    /// Starts the actor; must be called while a cluster is running, whose actix system it joins.
    ///
    /// `keep` newest checkpoints stay in `dir`.
    pub fn start(dir: PathBuf, keep: usize) -> Self {
        let (sender, done) = mpsc::channel();
        let arbiter = Arbiter::new();
        let writer = Writer { dir, keep, done: sender };
        let address = Writer::start_in_arbiter(&arbiter.handle(), |_| writer);
        Saver { address, arbiter: Some(arbiter), done, writing: false }
    }

    /// Waits for the checkpoint before this one, then lets this one be written.
    ///
    /// # Errors
    ///
    /// What went wrong with the checkpoint before this one.
    pub fn save(&mut self, state: State) -> Result<(), CheckpointError> {
        self.wait()?;
        self.address.do_send(Save(Box::new(state)));
        self.writing = true;
        Ok(())
    }

    /// Waits until the last checkpoint is on disk and returns its folder, if one was on its way.
    ///
    /// # Errors
    ///
    /// What went wrong with it.
    pub fn wait(&mut self) -> Result<Option<PathBuf>, CheckpointError> {
        if !std::mem::take(&mut self.writing) {
            return Ok(None);
        }
        let outcome = self.done.recv().expect("the writer answers every order");
        outcome.map(Some)
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.address.do_send(Close);
        if let Some(arbiter) = self.arbiter.take() {
            // A panic of the writer has been seen by whoever waited for it.
            let _ = arbiter.join();
        }
    }
}
