//! The actor that cuts the feed into units and sends them to the stages that read tokens.
//!
//! It reads one step ahead while the stages compute, and never more: it waits for the conductor's
//! word before each step.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use actix::{Actor, Context, Handler};
use graphs::{address::Address, model::Source, plan::Side};
use ops::Tensor;

use crate::{
    board::Doing,
    brief::Brief,
    error::chain,
    feed::{Feed, FeedError},
    message::Message,
    post::Post,
    report::Report,
    worker::words,
};

/// Word of the conductor: send the units of the next step.
#[derive(actix::Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Load;

/// Tokens, targets and where the feed stands after them.
type Ahead = Result<(Tensor, Tensor, serde_json::Value), FeedError>;

/// The loader. Every field is used by its own thread alone.
pub struct Loader {
    brief: Arc<Brief>,
    post: Arc<Post>,
    feed: Box<dyn Feed>,
    /// The step read ahead, dropped when it is sent.
    ahead: Option<Ahead>,
}

impl Loader {
    /// A loader that reads from `feed` where it stands.
    pub fn new(brief: Arc<Brief>, post: Arc<Post>, feed: Box<dyn Feed>) -> Self {
        Loader { brief, post, feed, ahead: None }
    }

    fn read(&mut self) -> Ahead {
        let batch = &self.brief.plan.batch;
        let (tokens, targets) = self.feed.next(batch.sequences, batch.context)?;
        let unit = batch.microbatch * batch.context;
        let shape = [batch.units(), unit];
        let position = self.feed.position();
        Ok((Tensor::from_i32(&shape, tokens), Tensor::from_i32(&shape, targets), position))
    }

    fn send(&self, tokens_us: &Tensor, targets_us: &Tensor) {
        let (mesh, batch) = (&self.brief.plan.mesh, &self.brief.plan.batch);
        let unit_size = batch.microbatch * batch.context;
        let flat = |all: &Tensor, unit: usize| {
            let row = all.rows(unit..unit + 1);
            Tensor::from_bytes(&[unit_size], row.dtype(), row.bytes().clone())
        };
        for stage in self.stages() {
            for rank in 0..mesh.data_ranks() {
                let (replica, rank_of_ep) = (rank / mesh.ep, rank % mesh.ep);
                let to = Address { replica, stage, rank: rank_of_ep, side: Side::Stage };
                for microbatch in 0..batch.microbatches(mesh.data_ranks()) {
                    let unit = batch.unit(mesh.data_ranks(), rank, microbatch);
                    let (tokens, targets) = (flat(tokens_us, unit), flat(targets_us, unit));
                    self.post.send(to, Message::Unit { microbatch, tokens, targets });
                }
            }
        }
    }

    /// Stages with a node that reads tokens or targets.
    fn stages(&self) -> Vec<usize> {
        let plan = &self.brief.plan;
        let reads = |node: usize| {
            let inputs = &self.brief.graph.node(node).inputs;
            inputs.iter().any(|source| !matches!(source, Source::Node { .. }))
        };
        let chunks = plan.chunks.iter().filter(|chunk| chunk.nodes.clone().any(reads));
        let mut stages: Vec<usize> = chunks.map(|chunk| chunk.stage).collect();
        stages.sort_unstable();
        stages.dedup();
        stages
    }

    fn load(&mut self) -> Result<(), FeedError> {
        let ahead = self.ahead.take();
        let (tokens, targets, position) = match ahead {
            Some(step) => step?,
            None => self.read()?,
        };
        self.send(&tokens, &targets);
        self.post.report(Report::Loaded { position });
        self.ahead = Some(self.read());
        Ok(())
    }

    fn fail(&self, cause: String) {
        let action = "reading the next step".to_string();
        self.post.report(Report::Failed { actor: "loader".into(), action, cause, is_full: false });
    }
}

impl Actor for Loader {
    type Context = Context<Self>;
}

impl Handler<Load> for Loader {
    type Result = ();

    fn handle(&mut self, _: Load, _: &mut Context<Self>) {
        let slot = 2 * self.brief.plan.mesh.ranks();
        self.brief.board.write(slot, Doing::Working("reading text".into()));
        match catch_unwind(AssertUnwindSafe(|| self.load())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(chain(&error)),
            Err(panic) => self.fail(words(panic.as_ref())),
        }
        self.brief.board.write(slot, Doing::Resting);
    }
}
