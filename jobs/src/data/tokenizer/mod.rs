//! Text to tokens and back.

mod bytes;
mod file;
mod train;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    cache,
    error::{DataError, cannot},
    source::Documents,
};

/// Text of the token that ends a document, in tokenizers that are made here.
pub const END: &str = "<|end_of_text|>";

/// Which tokenizer a job asks for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub enum Choice {
    /// One token for each byte, and one for the end of a document: 257 in all.
    Bytes,
    /// A `tokenizer.json` of Hugging Face.
    File(PathBuf),
    /// Byte-level byte pair encoding, trained on the beginning of the corpus.
    Bpe {
        /// Tokens in all, with the 256 bytes and the end of a document; fewer if the text has no
        /// more pairs that occur twice.
        vocab: usize,
    },
}

/// Text to tokens and back, with one token that ends a document.
pub struct Tokenizer {
    kind: Kind,
    end: u32,
}

enum Kind {
    Bytes,
    Pieces(Box<tokenizers::Tokenizer>),
}

/// Passes the library's reason on under the name of what failed.
fn failed(
    what: impl Into<String>,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> DataError {
    let what = what.into();
    move |source| DataError::Tokenizer { what, source: Some(source) }
}

impl Tokenizer {
    /// The tokenizer that knows bytes alone.
    pub fn bytes() -> Self {
        Tokenizer { kind: Kind::Bytes, end: bytes::END_ID }
    }

    /// Makes, reads or trains a tokenizer.
    ///
    /// Training looks at the first documents of `corpus` only, 16 MiB of them, and is
    /// deterministic; the result is kept in `cache`, named by a hash of that text and the
    /// vocabulary.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenizer`] if the file is none, has no token that ends a document, or the
    /// vocabulary is too small; any error of the corpus.
    pub fn open(choice: &Choice, corpus: Documents, cache: &Path) -> Result<Self, DataError> {
        match choice {
            Choice::Bytes => Ok(Tokenizer::bytes()),
            Choice::File(path) => file::read(path),
            Choice::Bpe { vocab } => {
                let path = train::trained(corpus, *vocab, cache)?;
                file::read(&path)
            }
        }
    }

    /// Reads the text of a `tokenizer.json` that has the given token at the end of documents.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenizer`] if it is none or does not know the token.
    pub fn from_json(json: &str, end: &str) -> Result<Self, DataError> {
        let mut pieces =
            tokenizers::Tokenizer::from_bytes(json).map_err(failed("text is not understood"))?;
        // A document that quotes a special token must not end there.
        pieces.set_encode_special_tokens(true);
        let Some(end) = pieces.token_to_id(end) else {
            let what = format!("has no token `{end}`, which should end documents");
            return Err(DataError::Tokenizer { what, source: None });
        };
        Ok(Tokenizer { kind: Kind::Pieces(Box::new(pieces)), end })
    }

    /// The token after the last of each document.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// One more than the largest token, at most what the model's vocabulary must hold.
    pub fn vocab(&self) -> usize {
        match &self.kind {
            Kind::Bytes => bytes::END_ID as usize + 1,
            Kind::Pieces(pieces) => {
                let largest = pieces.get_vocab(true).into_values().max();
                largest.map_or(0, |largest| largest as usize + 1)
            }
        }
    }

    /// Tokens of a text, without the end of the document.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenizer`] if the text cannot be written in this vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.kind {
            Kind::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Kind::Pieces(pieces) => {
                let encoding =
                    pieces.encode_fast(text, false).map_err(failed("cannot encode a text"))?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// Tokens of many texts, on all cores.
    pub(super) fn encode_all(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>, DataError> {
        match &self.kind {
            Kind::Bytes => texts.iter().map(|text| self.encode(text)).collect(),
            Kind::Pieces(pieces) => {
                let all = pieces
                    .encode_batch_fast(texts, false)
                    .map_err(failed("cannot encode a document"))?;
                Ok(all.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
            }
        }
    }

    /// Text of tokens; ends of documents give nothing, broken characters a replacement sign.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenizer`] if the library refuses.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        match &self.kind {
            Kind::Bytes => Ok(bytes::decode(tokens)),
            Kind::Pieces(pieces) => pieces.decode(tokens, true).map_err(failed("cannot decode")),
        }
    }

    /// The tokenizer as the text of a `tokenizer.json`, for export.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokenizer`] if the library refuses.
    pub fn to_json(&self) -> Result<String, DataError> {
        match &self.kind {
            Kind::Bytes => Ok(bytes::to_json()),
            Kind::Pieces(pieces) => pieces.to_string(true).map_err(failed("cannot be written")),
        }
    }

    /// Text of the token that ends a document.
    pub fn end_text(&self) -> String {
        match &self.kind {
            Kind::Bytes => END.to_string(),
            Kind::Pieces(pieces) => pieces.id_to_token(self.end).unwrap_or_default(),
        }
    }

    /// Changes whenever the tokens of a text may change.
    pub(super) fn key(&self) -> Result<String, DataError> {
        let json = self.to_json()?;
        Ok(cache::key([json.as_bytes(), &self.end.to_le_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] = [
        "",
        "fn main() {\n\tlet é = 1_000;\n}\n\n",
        " 你好 🙂",
        "a <|end_of_text|> b",
        "\u{0}\r\n ",
    ];

    fn corpus() -> Documents<'static> {
        let text = "pub fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n".repeat(20);
        Box::new((0..10).map(move |i| Ok(format!("{text}// {i}\n"))))
    }

    /// Text that survives, the same tokens through the exported file, and one token for the end.
    fn check(tokenizer: &Tokenizer) {
        let exported =
            Tokenizer::from_json(&tokenizer.to_json().unwrap(), &tokenizer.end_text()).unwrap();
        assert_eq!(exported.end(), tokenizer.end());
        assert_eq!(exported.vocab(), tokenizer.vocab());
        for text in TEXTS {
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokens.iter().all(|&id| (id as usize) < tokenizer.vocab()));
            assert!(!tokens.contains(&tokenizer.end()), "{text:?}");
            assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
            assert_eq!(exported.encode(text).unwrap(), tokens, "{text:?}");
        }
        let many = tokenizer.encode_all(TEXTS.map(String::from).to_vec()).unwrap();
        assert_eq!(many[1], tokenizer.encode(TEXTS[1]).unwrap());
    }

    #[test]
    fn bytes_are_257_tokens_and_their_file_says_the_same() {
        let cache = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::open(&Choice::Bytes, corpus(), cache.path()).unwrap();
        assert_eq!((tokenizer.vocab(), tokenizer.end()), (257, 256));
        assert_eq!(tokenizer.encode("aé").unwrap(), [97, 0xc3, 0xa9]);
        check(&tokenizer);
    }

    #[test]
    fn trained_tokens_are_longer_than_bytes_and_give_the_text_back() {
        let cache = tempfile::tempdir().unwrap();
        let choice = Choice::Bpe { vocab: 275 };
        let tokenizer = Tokenizer::open(&choice, corpus(), cache.path()).unwrap();
        assert_eq!(tokenizer.vocab(), 275);
        let text = "pub fn add(a: u32, b: u32) -> u32 {\n";
        assert!(tokenizer.encode(text).unwrap().len() < text.len() * 2 / 3);
        check(&tokenizer);
    }

    #[test]
    fn a_file_is_read_with_its_own_end_of_document() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let json = bytes::to_json().replace(END, "[EOS]");
        std::fs::write(&path, &json).unwrap();
        let open = || Tokenizer::open(&Choice::File(path.clone()), corpus(), dir.path());
        assert_eq!(open().unwrap().end_text(), "[EOS]");
        std::fs::write(&path, json.replace("[EOS]", "<fin>")).unwrap();
        let error = open().err().unwrap().to_string();
        assert!(error.contains("eos_token"), "{error}");
        let config = r#"{"eos_token": {"content": "<fin>"}}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        assert_eq!(open().unwrap().end(), 256);
    }
}
