//! What a person sees: the progress line of a run, the picture of the loss, and steps drawn.
//!
//! A [`scene`] holds the steps to draw; `marks` says how each kind of work looks, `reading` what
//! can be read off a step. [`terminal`] draws it in letters, [`drawing`] as SVG, [`page`] as a
//! page of its own, [`perfetto`] writes it as a trace. [`late`] compares a run with its plan.

pub mod columns;
pub mod drawing;
pub mod folded;
pub mod held;
pub mod late;
pub mod marks;
pub mod page;
pub mod perfetto;
pub mod phases;
pub mod plot;
pub mod progress;
mod protobuf;
pub mod reading;
pub mod scene;
pub mod terminal;
pub mod traced;
pub mod words;
