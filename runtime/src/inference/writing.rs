//! Texts that the model goes on with, all at once, on all cores.
//!
//! The texts are dealt out to as many threads as there are cores, and each thread reads its own
//! side by side. Since bits do not depend on who stands beside a text, neither on the threads.

use std::{num::NonZeroUsize, thread};

use kernels::random;

use super::{Inference, Reading, Session, sample};

/// How a text begins, and its random numbers.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Tokens to be read first, at least one.
    pub prompt: Vec<i32>,
    /// Key of the random numbers; the `n`-th new token takes the `n`-th.
    pub key: u64,
}

/// How tokens are drawn, and when a text ends.
#[derive(Clone, Debug)]
pub struct Taste {
    /// New tokens at most.
    pub tokens: usize,
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// Mass of the tokens that are drawn from.
    pub top_p: f32,
    /// Tokens of the vocabulary that may be drawn: the first so many.
    pub vocab: usize,
    /// Token that ends a text, and is no part of it.
    pub end: Option<i32>,
}

/// Texts whose beginnings have been read.
#[derive(Debug)]
pub struct Writing<'a> {
    parts: Vec<Part<'a>>,
}

/// The texts of one thread.
#[derive(Debug)]
struct Part<'a> {
    session: Session<'a>,
    taste: &'a Taste,
    drafts: &'a [Draft],
    written: Vec<Vec<i32>>,
    /// Texts that have not ended.
    open: Vec<usize>,
}

impl Inference {
    /// Reads the beginnings of some texts and draws the first new token of each.
    pub fn begin<'a>(&'a self, drafts: &'a [Draft], taste: &'a Taste) -> Writing<'a> {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let each = drafts.len().div_ceil(threads).max(1);
        let part = |drafts: &'a [Draft]| Part {
            session: self.session(drafts.len()),
            taste,
            drafts,
            written: vec![Vec::new(); drafts.len()],
            open: Vec::new(),
        };
        let mut writing = Writing { parts: drafts.chunks(each).map(part).collect() };
        writing.on_all_cores(Part::begin);
        writing
    }
}

impl<'a> Writing<'a> {
    /// Writes until every text has ended; returns the new tokens, texts in order.
    pub fn finish(mut self) -> Vec<Vec<i32>> {
        self.on_all_cores(Part::finish);
        self.parts.into_iter().flat_map(|part| part.written).collect()
    }

    fn on_all_cores(&mut self, work: fn(&mut Part<'a>)) {
        let [first, others @ ..] = &mut self.parts[..] else { return };
        thread::scope(|scope| {
            others.iter_mut().for_each(|part| drop(scope.spawn(move || work(part))));
            work(first);
        });
    }
}

impl Part<'_> {
    fn begin(&mut self) {
        if self.taste.tokens == 0 {
            return;
        }
        for (text, draft) in self.drafts.iter().enumerate() {
            let reading = Reading { text, tokens: &draft.prompt };
            let token = draw(self.session.read(&[reading]), self.taste, draft.key, 0);
            self.accept(text, token);
        }
    }

    fn finish(&mut self) {
        while !self.open.is_empty() {
            let open = std::mem::take(&mut self.open);
            let reading = |&text: &usize| Reading {
                text,
                tokens: self.written[text].last_chunk::<1>().expect("a first token"),
            };
            let readings: Vec<Reading<'_>> = open.iter().map(reading).collect();
            let logits = self.session.read(&readings);
            let rows = logits.chunks_exact(logits.len() / open.len());
            let draw = |(logits, &text): (&[f32], &usize)| {
                draw(logits, self.taste, self.drafts[text].key, self.written[text].len())
            };
            let tokens: Vec<i32> = rows.zip(&open).map(draw).collect();
            open.iter().zip(tokens).for_each(|(text, token)| self.accept(*text, token));
        }
    }

    /// Adds a token to a text, which goes on unless this is its end.
    fn accept(&mut self, text: usize, token: i32) {
        if self.taste.end == Some(token) {
            return;
        }
        self.written[text].push(token);
        if self.written[text].len() < self.taste.tokens {
            self.open.push(text);
        }
    }
}

/// Draws the token of a text after so many new ones.
fn draw(logits: &[f32], taste: &Taste, key: u64, written: usize) -> i32 {
    let uniform = random::uniform(key, written as u64) as f32;
    let logits = &logits[..taste.vocab.min(logits.len())];
    sample(logits, taste.temperature, taste.top_p, uniform)
}
