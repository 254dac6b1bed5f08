//! Byte-level byte pair encoding trained on the beginning of a corpus.
//!
//! Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units",
//! arXiv:1508.07909, section 3.2, over bytes as in GPT-2. Text is first cut by the pattern of
//! Llama 3, so that no token crosses from a word into another.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use tokenizers::{
    AddedToken, TokenizerBuilder,
    decoders::DecoderWrapper,
    models::bpe::{BPE, BpeTrainer},
    normalizers::NormalizerWrapper,
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::PostProcessorWrapper,
    tokenizer::{Result as Outcome, SplitDelimiterBehavior},
};

use super::{DataError, Documents, END, bytes, cache, cannot, failed};

/// The cut into words of Llama 3's tokenizer, as in its `tokenizer.json`.
const WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Bytes of text that are looked at; more hardly changes the merges of small vocabularies.
const SAMPLE_BYTES: usize = 16 << 20;

/// The smallest vocabulary: all bytes and the end of a document.
const SMALLEST: usize = 257;

/// File of the tokenizer trained on the first documents of `corpus`, made if it is not there.
pub(super) fn trained(
    corpus: Documents,
    vocab: usize,
    folder: &Path,
) -> Result<PathBuf, DataError> {
    if vocab < SMALLEST {
        let what = format!("of bytes needs a vocabulary of {SMALLEST} or more, got {vocab}");
        return Err(DataError::Tokenizer { what, source: None });
    }
    let texts = sample(corpus)?;
    let size = vocab.to_le_bytes();
    let parts = [WORDS.as_bytes(), END.as_bytes(), &size];
    let key = cache::key(parts.into_iter().chain(texts.iter().map(String::as_bytes)));
    cache::made(folder, &format!("tokenizer-{key}.json"), |file, path| {
        let json = train(&texts, vocab).map_err(failed("cannot be trained"))?;
        file.write_all(json.as_bytes()).map_err(cannot("write", path))
    })
}

/// Documents until the bound is reached; the one that crosses it is the last.
fn sample(corpus: Documents) -> Result<Vec<String>, DataError> {
    let mut texts = Vec::new();
    let mut bytes = 0;
    for text in corpus {
        let text = text?;
        bytes += text.len();
        texts.push(text);
        if bytes >= SAMPLE_BYTES {
            break;
        }
    }
    Ok(texts)
}

fn train(texts: &[String], vocab: usize) -> Outcome<String> {
    let level = ByteLevel::new(false, true, false);
    let words = Split::new(
        SplitPattern::Regex(WORDS.to_string()),
        SplitDelimiterBehavior::Isolated,
        false,
    )?;
    let cut: PreTokenizerWrapper = Sequence::new(vec![words.into(), level.into()]).into();
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
    .with_model(BPE::default())
    .with_pre_tokenizer(Some(cut))
    .with_decoder(Some(level.into()))
    .build()?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END, true)])
        .initial_alphabet(bytes::alphabet().collect())
        .build();
    tokenizer.train(&mut trainer, texts.iter())?;
    tokenizer.to_string(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        let words = ["pub", "fn", "struct", "let mut", "impl", "self.", "->", "u32", "é"];
        let pick = |i: usize| words[(i * i + i / 3) % words.len()];
        (0..400)
            .map(|i| format!("{} {}{} {}\n", pick(i), pick(i + 1), i % 17, pick(3 * i)))
            .collect()
    }

    #[test]
    fn training_twice_gives_the_same_bytes() {
        let first = train(&texts(), 400).unwrap();
        for _ in 0..4 {
            assert!(train(&texts(), 400).unwrap() == first);
        }
    }

    #[test]
    fn a_trained_tokenizer_is_kept_under_a_name_of_its_text_and_size() {
        let dir = tempfile::tempdir().unwrap();
        let corpus = |n| -> Documents { Box::new(texts().into_iter().take(n).map(Ok)) };
        let path = trained(corpus(300), 300, dir.path()).unwrap();
        assert_eq!(trained(corpus(300), 300, dir.path()).unwrap(), path);
        assert_ne!(trained(corpus(299), 300, dir.path()).unwrap(), path);
        assert_ne!(trained(corpus(300), 301, dir.path()).unwrap(), path);
    }

    #[test]
    fn a_vocabulary_smaller_than_the_bytes_is_refused() {
        let error = trained(Box::new(std::iter::empty()), 256, Path::new("x")).unwrap_err();
        let text = "tokenizer of bytes needs a vocabulary of 257 or more, got 256";
        assert_eq!(error.to_string(), text);
    }
}
