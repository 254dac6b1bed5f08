//! From files to training sequences.
//!
//! ```text
//! files ── source ──▶ documents ── tokenizer ──▶ token files (cached) ── mix ──▶ sequences
//! ```
//!
//! Everything has one stable order: the same files, tokenizer and seed give the same sequences on
//! every machine and under every plan. A document that cannot be read is an error, never skipped.

mod cache;
mod error;
mod mix;
mod shuffle;
mod source;
mod statistics;
mod tokenizer;
mod tokens;

pub use self::{
    error::DataError,
    mix::{Corpus, Mix},
    source::{Documents, Listing, Source, Used},
    statistics::unigram_nats,
    tokenizer::{Choice, END, Tokenizer},
    tokens::TokenFile,
};
