//! Where a step's tokens come from, as the loader sees it.
//!
//! The runtime does not know corpora or tokenizers: it asks for the next sequences and keeps the
//! position in its checkpoints. What a feed gives depends on its position alone, never on the
//! plan, so a resumed run and a run under another plan see the same samples.

use std::error::Error;

/// An endless source of training sequences with an exact position.
pub trait Feed: Send {
    /// Returns the next `sequences` sequences of `context` tokens, and their targets.
    ///
    /// Both vectors have `sequences * context` elements, sequence after sequence; the target of a
    /// token is the token that follows it in the text.
    ///
    /// # Errors
    ///
    /// [`FeedError::Source`] if the text cannot be read.
    fn next(&mut self, sequences: usize, context: usize)
    -> Result<(Vec<i32>, Vec<i32>), FeedError>;

    /// Where the next call of [`Feed::next`] begins to read.
    fn position(&self) -> serde_json::Value;

    /// Continues at a position that [`Feed::position`] returned, in this process or an earlier.
    ///
    /// # Errors
    ///
    /// [`FeedError::Position`] if the position is of another feed; the feed then stays where it
    /// was.
    fn seek(&mut self, position: &serde_json::Value) -> Result<(), FeedError>;
}

/// Why a feed has no next sequence.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The text cannot be read; the cause names file and place.
    #[error("the training text cannot be read")]
    Source(#[source] Box<dyn Error + Send + Sync>),
    /// A checkpoint's position does not fit this feed.
    #[error("the position in the checkpoint does not fit the data: expected {expected}, got {got}")]
    Position {
        /// What this feed can continue from.
        expected: String,
        /// What the checkpoint says.
        got: String,
    },
}
