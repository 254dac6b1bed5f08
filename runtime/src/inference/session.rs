//! Some texts read side by side, each with latents of its own.
//!
//! For each attention and past token, only the normalised latent and the rotated shared key are
//! kept (DeepSeek-V2, arXiv:2405.04434, section 2.1.2). Products, norms and routing treat every
//! row by itself and attention sees one text, so a text's logits have the same bits alone or beside
//! others, and however its tokens are cut into reads.

use ops::ready::{Inputs, Latents, Rows};

use super::steps::{Steps, TOKENS, Work};

/// Tokens to be read, of one of the texts.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Number of the text.
    pub text: usize,
    /// Its next tokens, at least one.
    pub tokens: &'a [i32],
}

/// Texts being read and sampled.
#[derive(Debug)]
pub struct Session<'a> {
    steps: &'a Steps,
    /// What each attention keeps.
    past: Vec<Latents>,
    /// Tokens read of each text.
    lengths: Vec<usize>,
    edges: Vec<Rows>,
    /// Outputs of a step while it runs.
    outputs: Vec<Rows>,
    /// Text of each row.
    texts: Vec<usize>,
    last: Vec<f32>,
    logits: Vec<f32>,
}

impl<'a> Session<'a> {
    pub(super) fn new(steps: &'a Steps, texts: usize) -> Self {
        let past = steps.all.iter().filter_map(|step| match &step.work {
            Work::Attend(attention) => Some(attention.latents(texts)),
            Work::Plain(_) => None,
        });
        Session {
            steps,
            past: past.collect(),
            lengths: vec![0; texts],
            edges: vec![Rows::default(); steps.edges],
            outputs: Vec::new(),
            texts: Vec::new(),
            last: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Tokens read so far of a text.
    pub fn len(&self, text: usize) -> usize {
        self.lengths[text]
    }

    /// Whether nothing has been read yet.
    pub fn is_empty(&self) -> bool {
        self.lengths.iter().all(|length| *length == 0)
    }

    /// Bytes kept of a text.
    pub fn cache_bytes(&self, text: usize) -> usize {
        self.past.iter().map(|past| past.bytes(text)).sum()
    }

    /// Reads more tokens of some texts; returns the logits `[readings, v]` of what comes after.
    ///
    /// # Panics
    ///
    /// If a reading is empty, or has a token outside the vocabulary.
    pub fn read(&mut self, readings: &[Reading<'_>]) -> &[f32] {
        self.take(readings);
        let mut past = self.past.iter_mut();
        for step in &self.steps.all {
            self.outputs
                .extend(step.outputs.iter().map(|&edge| std::mem::take(&mut self.edges[edge])));
            let inputs = Inputs { edges: &self.edges, chosen: &step.inputs };
            match &step.work {
                Work::Plain(ready) => ready.run(inputs, &mut self.outputs),
                Work::Attend(attention) => {
                    let past = past.next().expect("one for each attention");
                    attention.run(&self.texts, past, inputs, &mut self.outputs[0]);
                }
            }
            for (edge, rows) in step.outputs.iter().zip(self.outputs.drain(..)) {
                self.edges[*edge] = rows;
            }
        }
        self.conclude(readings)
    }

    fn take(&mut self, readings: &[Reading<'_>]) {
        self.texts.clear();
        let tokens = &mut self.edges[TOKENS].whole;
        tokens.clear();
        for reading in readings {
            assert!(!reading.tokens.is_empty(), "no token to read");
            tokens.extend_from_slice(reading.tokens);
            self.texts.extend(reading.tokens.iter().map(|_| reading.text));
            self.lengths[reading.text] += reading.tokens.len();
        }
    }

    /// Multiplies the last row of each reading by the head.
    fn conclude(&mut self, readings: &[Reading<'_>]) -> &[f32] {
        let (head, rows) = (&self.steps.head, &self.edges[self.steps.last].floats);
        self.last.clear();
        let mut end = 0;
        for reading in readings {
            end += reading.tokens.len() * head.input();
            self.last.extend_from_slice(&rows[end - head.input()..end]);
        }
        head.multiply(&self.last, &mut self.logits);
        &self.logits
    }
}
