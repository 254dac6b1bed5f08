//! Corpora mixed by weight into an endless, exactly resumable row of sequences.
//!
//! Each sequence comes from one corpus: from the one that is farthest behind its share of the
//! tokens so far. A corpus is cut into windows of `context` tokens; a sequence is a window and
//! the token after it, so that every token is a target once in an epoch. The last window of an
//! epoch goes round to the first tokens.
//!
//! In the next phase of a run a corpus goes on where it stood if the context is the same. With
//! another context the windows are others, so it begins a new epoch, cut anew and in an order of
//! its own. Shares are counted from the beginning of the phase; a corpus that a phase does not
//! read keeps its place.

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
    /// Places of corpora that only earlier phases read.
    left: BTreeMap<String, Place>,
}

struct Part {
    name: String,
    /// Share of all tokens; the shares of a mix sum to one.
    share: f64,
    file: TokenFile,
    used: Used,
    at: Progress,
}

/// How far a corpus has been read.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Progress {
    /// Tokens given since it was cut into windows.
    taken: u64,
    /// Those of them that earlier phases took.
    #[serde(default, skip_serializing_if = "is_zero")]
    before: u64,
    /// Times that it was cut anew after something had been read.
    #[serde(default, skip_serializing_if = "is_zero")]
    cuts: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Progress {
    /// Where the next phase begins to read.
    ///
    /// Windows of another length cannot go on with an epoch, whose order has left holes all over
    /// the text. Taking this step twice is taking it once, so a run may end between two phases.
    fn next(self, is_cut_anew: bool) -> Self {
        match is_cut_anew && self.taken > 0 {
            true => Progress { taken: 0, before: 0, cuts: self.cuts + 1 },
            false => Progress { before: self.taken, ..self },
        }
    }

    /// Key of the order of windows in an epoch; no two cuts have one in common.
    fn order(self, epoch: u64) -> u64 {
        mixed((self.cuts << 32) + epoch + 1)
    }
}

/// What a checkpoint keeps.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Position {
    /// Seed of the order of windows.
    seed: Option<u64>,
    /// One place for each corpus.
    corpora: BTreeMap<String, Place>,
    /// Places of corpora that only earlier phases read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    left: BTreeMap<String, Place>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Place {
    #[serde(flatten)]
    at: Progress,
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
        let (mut mixes, tokenizer) = Mix::open_all(&[corpora.to_vec()], tokenizer, cache, seed)?;
        Ok((mixes.remove(0), tokenizer))
    }

    /// Opens the mixes of all phases under one tokenizer, which sees every corpus once if it is to
    /// be trained; corpora of one name are one.
    ///
    /// # Errors
    ///
    /// As [`Mix::open`].
    pub fn open_all(
        mixes: &[Vec<Corpus>],
        tokenizer: &Choice,
        cache: &Path,
        seed: Option<u64>,
    ) -> Result<(Vec<Self>, Tokenizer), DataError> {
        mixes.iter().try_for_each(|corpora| total_weight(corpora).map(drop))?;
        let mut listings: Vec<(&str, Listing)> = Vec::new();
        for corpus in mixes.iter().flatten() {
            if listings.iter().all(|(name, _)| *name != corpus.name) {
                listings.push((&corpus.name, corpus.source.list()?));
            }
        }
        let documents = Box::new(listings.iter().flat_map(|(_, listing)| listing.documents()));
        let tokenizer = Tokenizer::open(tokenizer, documents, cache)?;
        let listings: BTreeMap<&str, Listing> = listings.into_iter().collect();
        let read = |corpora: &Vec<Corpus>| {
            let all = total_weight(corpora)?;
            let part = |corpus: &Corpus| {
                let listing = &listings[corpus.name.as_str()];
                let file = TokenFile::open(listing, &tokenizer, cache)?;
                let (name, share) = (corpus.name.clone(), corpus.weight / all);
                Ok(Part { name, share, file, used: listing.used(), at: Progress::default() })
            };
            let parts = corpora.iter().map(part).collect::<Result<_, DataError>>()?;
            Ok(Mix { parts, seed, left: BTreeMap::new() })
        };
        let mixes = mixes.iter().map(read).collect::<Result<_, DataError>>()?;
        Ok((mixes, tokenizer))
    }

    /// What is read, by name of the corpus.
    pub fn used(&self) -> impl Iterator<Item = (&str, &Used)> {
        self.parts.iter().map(|part| (part.name.as_str(), &part.used))
    }

    /// Tokens of all corpora together, each counted once.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.file.tokens()).sum()
    }

    /// Times that each corpus has been read whole since it was cut.
    pub fn epochs(&self) -> impl Iterator<Item = (&str, u64)> {
        self.parts.iter().map(|part| (part.name.as_str(), part.at.taken / part.file.tokens()))
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
        let given: u64 = self.parts.iter().map(Part::given).sum();
        let after = (given + context as u64) as f64;
        let behind = |part: &Part| part.share * after - part.given() as f64;
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
    /// Tokens given in this phase.
    fn given(&self) -> u64 {
        self.at.taken.saturating_sub(self.at.before)
    }

    fn place(&self) -> Place {
        Place { at: self.at, corpus: self.file.hash().to_string() }
    }

    /// The next window and the token after it.
    fn next(&mut self, context: usize, seed: Option<u64>) -> Result<Vec<i32>, DataError> {
        let context_tokens = context as u64;
        let windows = self.file.tokens().div_ceil(context_tokens);
        let (epoch, slot) = {
            let sequence = self.at.taken / context_tokens;
            (sequence / windows, sequence % windows)
        };
        let window = match seed {
            Some(seed) => permuted(slot, windows, seed ^ self.at.order(epoch)),
            None => slot,
        };
        self.at.taken += context_tokens;
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
        let place = |part: &Part| (part.name.clone(), part.place());
        let corpora = self.parts.iter().map(place).collect();
        let position = Position { seed: self.seed, corpora, left: self.left.clone() };
        serde_json::to_value(position).expect("a position is plain data")
    }

    fn seek(&mut self, position: &serde_json::Value) -> Result<(), FeedError> {
        let position = self.understood(position)?;
        let has = |part: &Part| position.corpora.contains_key(&part.name);
        let same = position.corpora.len() == self.parts.len() && self.parts.iter().all(has);
        if !same || !self.fits(&position.corpora) {
            return Err(self.other(position.described()));
        }
        for part in &mut self.parts {
            part.at = position.corpora[&part.name].at;
        }
        self.left = position.left;
        Ok(())
    }
}

impl Mix {
    /// Begins the phase after the one that ended at `position`.
    ///
    /// What both phases read goes on where it stood, or is cut anew if the context is another.
    ///
    /// # Errors
    ///
    /// [`FeedError::Position`] if a corpus that was read before has changed.
    pub fn follow(
        &mut self,
        position: &serde_json::Value,
        is_cut_anew: bool,
    ) -> Result<(), FeedError> {
        let Position { corpora, mut left, .. } = self.understood(position)?;
        left.extend(corpora);
        if !self.fits(&left) {
            return Err(self.other(described(self.seed, hashes(&left))));
        }
        left.values_mut().for_each(|place| place.at = place.at.next(is_cut_anew));
        for part in &mut self.parts {
            part.at = left.remove(&part.name).map_or(Progress::default(), |place| place.at);
        }
        self.left = left;
        Ok(())
    }

    /// A position of a feed with this seed.
    fn understood(&self, position: &serde_json::Value) -> Result<Position, FeedError> {
        let read: Position = serde_json::from_value(position.clone())
            .map_err(|_| self.other(position.to_string()))?;
        if read.seed == self.seed { Ok(read) } else { Err(self.other(read.described())) }
    }

    /// Whether the corpora are still those that the places are of.
    fn fits(&self, places: &BTreeMap<String, Place>) -> bool {
        let fits = |part: &Part| {
            places.get(&part.name).is_none_or(|place| place.corpus == part.file.hash())
        };
        self.parts.iter().all(fits)
    }

    fn other(&self, got: String) -> FeedError {
        FeedError::Position { expected: self.described(), got }
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
        described(self.seed, hashes(&self.corpora))
    }
}

/// The hash of each corpus by name.
fn hashes(places: &BTreeMap<String, Place>) -> impl Iterator<Item = (&str, &str)> {
    places.iter().map(|(name, place)| (name.as_str(), &*place.corpus))
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
                assert!((part.at.taken as f64 - due).abs() <= 8.0, "{} at {step}", part.name);
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
    fn a_corpus_that_two_phases_read_goes_on_and_shares_begin_anew() {
        let (mut first, dir) = mix(&[(1000, 3.0), (1000, 1.0)], Some(5));
        first.next(40, 8).unwrap();
        let corpus = |letter: &str, weight| {
            let glob = dir.path().join(format!("{letter}.txt")).display().to_string();
            Corpus { name: letter.into(), source: Source::Text { glob }, weight }
        };
        fs::write(dir.path().join("n.txt"), "n".repeat(500)).unwrap();
        let corpora = [corpus("b", 1.0), corpus("n", 1.0)];
        let open =
            || Mix::open(&corpora, &Choice::Bytes, &dir.path().join("c"), Some(5)).unwrap().0;
        let mut second = open();
        second.follow(&first.position(), false).unwrap();
        assert_eq!(second.parts[0].at, Progress { taken: 80, before: 80, cuts: 0 });
        assert_eq!(second.left.keys().collect::<Vec<_>>(), ["a"]);
        second.next(10, 8).unwrap();
        assert_eq!(second.parts.iter().map(Part::given).collect::<Vec<_>>(), [40, 40]);
        let mut resumed = open();
        resumed.seek(&second.position()).unwrap();
        assert_eq!(resumed.next(30, 8).unwrap(), second.next(30, 8).unwrap());
        let (mut third, _dir) = mix(&[(1000, 3.0), (1000, 1.0)], Some(5));
        third.follow(&second.position(), false).unwrap();
        assert_eq!(third.parts[0].at.taken, 240, "the corpus that rested has kept its place");
    }

    #[test]
    fn another_context_cuts_anew_in_an_order_of_its_own_and_twice_is_once() {
        let (mut first, _dir) = ramp(127, Some(7));
        let epoch = first.next(16, 8).unwrap().1;
        first.next(3, 8).unwrap();
        let (mut long, _dir) = ramp(127, Some(7));
        long.follow(&first.position(), true).unwrap();
        let position = long.position();
        let (mut again, _dir) = ramp(127, Some(7));
        again.follow(&position, true).unwrap();
        let mut targets = long.next(4, 32).unwrap().1;
        assert_eq!(again.next(4, 32).unwrap().1, targets);
        targets.sort_unstable();
        assert!(targets.into_iter().eq((0..127).chain([256])), "every token once");
        let (mut back, _dir) = ramp(127, Some(7));
        back.follow(&long.position(), true).unwrap();
        assert_ne!(back.next(16, 8).unwrap().1, epoch, "no order comes twice");
    }

    #[test]
    fn a_corpus_that_changed_between_phases_is_refused() {
        let (first, _dir) = mix(&[(1000, 2.0)], Some(1));
        let (mut second, _dir) = mix(&[(1001, 2.0)], Some(1));
        let error = second.follow(&first.position(), true).unwrap_err().to_string();
        assert!(error.contains("expected `a` "), "{error}");
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
