//! What a person sees of a run: the progress line and the picture of the loss.

pub mod plot;
pub mod progress;
