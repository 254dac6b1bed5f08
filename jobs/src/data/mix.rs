//! Corpora mixed by weight into an endless, exactly resumable row of sequences.
//!
//! Each sequence comes from one corpus: from the one that is farthest behind its share of the
//! tokens so far. A corpus is cut into windows of `context` tokens; a sequence is a window and
//! the token after it, so that every token is a target once in an epoch. The last window of an
//! epoch goes round to the first tokens.

use std::{collections::BTreeMap, path::Path};

use runtime::feed::{Feed, FeedError};
use serde::{Deserialize, Serialize};

use super::{
    error::DataError,
    shuffle::{mixed, permuted},
    source::{Listing, Source, Used},
    statistics::{entropy_nats, shares},
    tokenizer::{Choice, Tokenizer},
    tokens::TokenFile,
};

/// Tokens of each corpus that [`Mix::unigram_nats`] looks at.
const SAMPLE_TOKENS: u64 = 16 << 20;

/// One corpus of a mix, as a job says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    /// Name in the job.
    pub name: String,
    /// Where its documents come from.
    pub source: Source,
    /// Share of the tokens; only the ratio of weights counts.
    pub weight: f64,
}

/// An endless row of training sequences.
pub struct Mix {
    parts: Vec<Part>,
    seed: Option<u64>,
}

struct Part {
    name: String,
    /// Share of all tokens; the shares of a mix sum to one.
    share: f64,
    file: TokenFile,
    used: Used,
    /// Tokens given so far.
    taken: u64,
}

/// What a checkpoint keeps.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Position {
    /// Seed of the order of windows.
    seed: Option<u64>,
    /// One place for each corpus.
    corpora: BTreeMap<String, Place>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Tokens given so far.
    taken: u64,
    /// Hash of the corpus, so that a run never continues silently on other text.
    corpus: String,
}

impl Mix {
    /// Opens the tokenizer and all corpora, tokenising what `cache` does not have yet.
    ///
    /// With a seed, the windows of each corpus come in an order that depends on seed and epoch;
    /// without, in the order of the text. A tokenizer that is to be trained sees the corpora in
    /// the given order.
    ///
    /// # Errors
    ///
    /// [`DataError::Weight`] if a weight is not above zero, [`DataError::Empty`] if there is no
    /// corpus, and any error of the documents or the tokenizer.
    pub fn open(
        corpora: &[Corpus],
        tokenizer: &Choice,
        cache: &Path,
        seed: Option<u64>,
    ) -> Result<(Self, Tokenizer), DataError> {
        let all = total_weight(corpora)?;
        let listings = corpora.iter().map(|corpus| corpus.source.list());
        let listings: Vec<Listing> = listings.collect::<Result<_, _>>()?;
        let documents = Box::new(listings.iter().flat_map(Listing::documents));
        let tokenizer = Tokenizer::open(tokenizer, documents, cache)?;
        let mut parts = Vec::new();
        for (corpus, listing) in corpora.iter().zip(&listings) {
            let file = TokenFile::open(listing, &tokenizer, cache)?;
            let (name, share) = (corpus.name.clone(), corpus.weight / all);
            parts.push(Part { name, share, file, used: listing.used(), taken: 0 });
        }
        Ok((Mix { parts, seed }, tokenizer))
    }

    /// What is read, by name of the corpus.
    pub fn used(&self) -> impl Iterator<Item = (&str, &Used)> {
        self.parts.iter().map(|part| (part.name.as_str(), &part.used))
    }

    /// Tokens of all corpora together, each counted once.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.file.tokens()).sum()
    }

    /// Times that each corpus has been read whole.
    pub fn epochs(&self) -> impl Iterator<Item = (&str, u64)> {
        self.parts.iter().map(|part| (part.name.as_str(), part.taken / part.file.tokens()))
    }

    /// Entropy of the token frequencies of the mix, in nats: the loss of a model that knows only
    /// how frequent words are. Looks at the first 16 Mi tokens of each corpus.
    ///
    /// # Errors
    ///
    /// [`DataError::File`] if the disk refuses.
    pub fn unigram_nats(&mut self, vocab: usize) -> Result<f64, DataError> {
        let mut frequencies = vec![0.0; vocab];
        for part in &mut self.parts {
            let count = part.file.tokens().min(SAMPLE_TOKENS) as usize;
            let part_shares = shares(part.file.read(0, count)?, vocab);
            for (sum, own) in frequencies.iter_mut().zip(part_shares) {
                *sum += part.share * own;
            }
        }
        Ok(entropy_nats(&frequencies))
    }

    /// The corpus that would be farthest behind after `context` more tokens; the first of equals.
    fn hungriest(&self, context: usize) -> usize {
        let given: u64 = self.parts.iter().map(|part| part.taken).sum();
        let after = (given + context as u64) as f64;
        let behind = |part: &Part| part.share * after - part.taken as f64;
        let mut best = 0;
        for (index, part) in self.parts.iter().enumerate() {
            if behind(part) > behind(&self.parts[best]) {
                best = index;
            }
        }
        best
    }
}

/// Sum of the weights, each of them checked.
fn total_weight(corpora: &[Corpus]) -> Result<f64, DataError> {
    if corpora.is_empty() {
        return Err(DataError::Empty { what: "the mix names no corpus".into() });
    }
    let bad = |corpus: &&Corpus| !(corpus.weight > 0.0 && corpus.weight.is_finite());
    match corpora.iter().find(bad) {
        Some(Corpus { name, weight, .. }) => {
            Err(DataError::Weight { corpus: name.clone(), weight: *weight })
        }
        None => Ok(corpora.iter().map(|corpus| corpus.weight).sum()),
    }
}

impl Part {
    /// The next window and the token after it.
    fn next(&mut self, context: usize, seed: Option<u64>) -> Result<Vec<i32>, DataError> {
        let context_tokens = context as u64;
        let windows = self.file.tokens().div_ceil(context_tokens);
        let (epoch, slot) = {
            let sequence = self.taken / context_tokens;
            (sequence / windows, sequence % windows)
        };
        let window = match seed {
            Some(seed) => permuted(slot, windows, seed ^ mixed(epoch + 1)),
            None => slot,
        };
        self.taken += context_tokens;
        self.file.read(window * context_tokens, context + 1)
    }
}

impl Feed for Mix {
    fn next(
        &mut self,
        sequences: usize,
        context: usize,
    ) -> Result<(Vec<i32>, Vec<i32>), FeedError> {
        let mut inputs = Vec::with_capacity(sequences * context);
        let mut targets = Vec::with_capacity(sequences * context);
        for _ in 0..sequences {
            let part = self.hungriest(context);
            let tokens = self.parts[part]
                .next(context, self.seed)
                .map_err(|error| FeedError::Source(Box::new(error)))?;
            inputs.extend(&tokens[..context]);
            targets.extend(&tokens[1..]);
        }
        Ok((inputs, targets))
    }

    fn position(&self) -> serde_json::Value {
        let place = |part: &Part| {
            let corpus = part.file.hash().to_string();
            (part.name.clone(), Place { taken: part.taken, corpus })
        };
        let corpora = self.parts.iter().map(place).collect();
        let position = Position { seed: self.seed, corpora };
        serde_json::to_value(position).expect("a position is plain data")
    }

    fn seek(&mut self, position: &serde_json::Value) -> Result<(), FeedError> {
        let other = |got: String| FeedError::Position { expected: self.described(), got };
        let position: Position =
            serde_json::from_value(position.clone()).map_err(|_| other(position.to_string()))?;
        let fits = |part: &Part| {
            position.corpora.get(&part.name).is_some_and(|p| p.corpus == part.file.hash())
        };
        let same = position.corpora.len() == self.parts.len() && self.parts.iter().all(fits);
        if !same || position.seed != self.seed {
            return Err(other(position.described()));
        }
        for part in &mut self.parts {
            part.taken = position.corpora[&part.name].taken;
        }
        Ok(())
    }
}

impl Mix {
    fn described(&self) -> String {
        let corpora = self.parts.iter().map(|part| (part.name.as_str(), part.file.hash()));
        described(self.seed, corpora)
    }
}

impl Position {
    fn described(&self) -> String {
        let corpora = self.corpora.iter().map(|(name, place)| (name.as_str(), &*place.corpus));
        described(self.seed, corpora)
    }
}

/// Names and short hashes of corpora, for people.
fn described<'a>(seed: Option<u64>, corpora: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let order = seed.map_or("in the order of the text".to_string(), |s| format!("seed {s}"));
    let mut names: Vec<String> =
        corpora.map(|(name, hash)| format!("`{name}` {}", &hash[..hash.len().min(8)])).collect();
    names.sort();
    format!("{} {order}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Corpora `a`, `b`, .. of documents of one letter each, of the given lengths.
    fn mix(lengths: &[(usize, f64)], seed: Option<u64>) -> (Mix, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let corpora: Vec<Corpus> = lengths
            .iter()
            .zip('a'..)
            .map(|(&(length, weight), letter)| {
                let path = dir.path().join(format!("{letter}.txt"));
                fs::write(&path, letter.to_string().repeat(length)).unwrap();
                let glob = path.display().to_string();
                Corpus { name: letter.to_string(), source: Source::Text { glob }, weight }
            })
            .collect();
        let (mix, _) = Mix::open(&corpora, &Choice::Bytes, &dir.path().join("c"), seed).unwrap();
        (mix, dir)
    }

    /// One corpus whose tokens are all different: the bytes 0..n and the end.
    fn ramp(n: u8, seed: Option<u64>) -> (Mix, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ramp.txt");
        fs::write(&path, (0..n).map(char::from).collect::<String>()).unwrap();
        let source = Source::Text { glob: path.display().to_string() };
        let corpora = [Corpus { name: "ramp".into(), source, weight: 3.0 }];
        let (mix, _) = Mix::open(&corpora, &Choice::Bytes, &dir.path().join("c"), seed).unwrap();
        (mix, dir)
    }

    #[test]
    fn targets_are_the_inputs_one_token_later_and_none_is_lost() {
        let (mut mix, _dir) = ramp(7, None);
        let (inputs, targets) = mix.next(2, 4).unwrap();
        assert_eq!(inputs, [0, 1, 2, 3, 4, 5, 6, 256]);
        assert_eq!(targets, [1, 2, 3, 4, 5, 6, 256, 0]);
        assert_eq!(mix.epochs().next(), Some(("ramp", 1)));
        assert_eq!(mix.next(1, 4).unwrap().0, [0, 1, 2, 3]);
    }

    #[test]
    fn a_last_window_goes_round_and_the_next_epoch_starts_at_the_first_token() {
        let (mut mix, _dir) = ramp(5, None);
        let (inputs, targets) = mix.next(3, 4).unwrap();
        assert_eq!(inputs, [0, 1, 2, 3, 4, 256, 0, 1, 0, 1, 2, 3]);
        assert_eq!(targets[4..8], [256, 0, 1, 2]);
    }

    #[test]
    fn shuffled_epochs_hold_every_token_once_in_different_orders() {
        let (mut mix, _dir) = ramp(127, Some(7));
        let mut epochs: Vec<Vec<i32>> = (0..2).map(|_| mix.next(16, 8).unwrap().1).collect();
        assert_ne!(epochs[0], epochs[1]);
        for epoch in &mut epochs {
            epoch.sort_unstable();
            assert!(epoch.iter().copied().eq((0..127).chain([256])));
        }
    }

    #[test]
    fn no_corpus_is_ever_more_than_a_sequence_away_from_its_share() {
        let (mut mix, _dir) = mix(&[(100, 0.62), (40, 0.23), (7, 0.15)], Some(1));
        for step in 1..500 {
            mix.next(1, 8).unwrap();
            for part in &mix.parts {
                let due = part.share * f64::from(step * 8);
                assert!((part.taken as f64 - due).abs() <= 8.0, "{} at {step}", part.name);
            }
        }
        assert!(mix.epochs().all(|(_, epochs)| epochs > 3));
    }

    #[test]
    fn a_position_continues_exactly_and_does_not_depend_on_the_size_of_the_batch() {
        for seed in [None, Some(3)] {
            let (mut one, _dir) = mix(&[(1000, 2.0), (90, 1.0)], seed);
            let (mut two, _dir) = mix(&[(1000, 2.0), (90, 1.0)], seed);
            for _ in 0..12 {
                one.next(1, 16).unwrap();
            }
            two.next(12, 16).unwrap();
            assert_eq!(one.position(), two.position());
            let text = one.position().to_string();
            let (mut three, _dir) = mix(&[(1000, 2.0), (90, 1.0)], seed);
            three.seek(&serde_json::from_str(&text).unwrap()).unwrap();
            for _ in 0..20 {
                assert_eq!(three.next(3, 16).unwrap(), two.next(3, 16).unwrap());
            }
        }
    }

    #[test]
    fn a_position_in_other_text_is_refused() {
        let (one, _dir) = mix(&[(1000, 2.0)], None);
        let (mut two, _dir) = mix(&[(1001, 2.0)], None);
        let (mut three, _dir) = mix(&[(1000, 2.0)], Some(1));
        for mix in [&mut two, &mut three] {
            let error = mix.seek(&one.position()).unwrap_err().to_string();
            assert!(error.contains("expected `a` "), "{error}");
        }
        assert!(two.seek(&serde_json::json!({"step": 1})).is_err());
    }

    #[test]
    fn weights_that_are_no_shares_are_refused() {
        let corpus =
            |weight| Corpus { name: "a".into(), source: Source::Text { glob: "x".into() }, weight };
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = total_weight(&[corpus(1.0), corpus(weight)]).unwrap_err().to_string();
            assert!(error.starts_with("corpus `a` has weight"), "{error}");
        }
        assert!(total_weight(&[]).is_err());
    }

    #[test]
    fn the_entropy_of_a_mix_is_that_of_its_shares() {
        let (mut mix, _dir) = mix(&[(100_000, 1.0), (100_000, 3.0)], None);
        let nats = mix.unigram_nats(257).unwrap();
        let expected = -(0.25 * 0.25_f64.ln() + 0.75 * 0.75_f64.ln());
        assert!((nats - expected).abs() < 1e-3, "{nats}, ends of documents add a little");
    }
}
