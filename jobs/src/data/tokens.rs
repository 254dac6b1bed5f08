//! A tokenised corpus on disk: written once, read at any place.
//!
//! ```text
//! magic[8]  bytes per token u64  tokens u64  blake3 of the tokens [32]  tokens, little endian
//! ```
//!
//! All documents one after the other, each followed by the token that ends it. Two bytes a token
//! if the vocabulary allows.

use std::{
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::{
    cache,
    error::{DataError, cannot},
    source::Listing,
    tokenizer::Tokenizer,
};

const MAGIC: &[u8; 8] = b"troupe01";
const HEADER: u64 = 56;

/// Text that is given to the cores at once.
const CHUNK_BYTES: usize = 4 << 20;

/// The tokens of a corpus.
pub struct TokenFile {
    file: File,
    path: std::path::PathBuf,
    width: u64,
    tokens: u64,
    hash: String,
}

impl TokenFile {
    /// Opens the tokens of a corpus, tokenising it first if `cache` does not have them.
    ///
    /// # Errors
    ///
    /// Any error of the documents; [`DataError::Empty`] if there is no token.
    pub fn open(listing: &Listing, tokenizer: &Tokenizer, cache: &Path) -> Result<Self, DataError> {
        let key = cache::key([listing.key().as_bytes(), tokenizer.key()?.as_bytes()]);
        let path = cache::made(cache, &format!("tokens-{key}.bin"), |file, path| {
            write(listing, tokenizer, file, path)
        })?;
        let tokens = TokenFile::read_header(&path)?;
        if tokens.tokens == 0 {
            return Err(DataError::Empty { what: listing.used().description });
        }
        Ok(tokens)
    }

    fn read_header(path: &Path) -> Result<Self, DataError> {
        let damaged = |reason: &str| DataError::Document {
            path: path.to_path_buf(),
            line: None,
            reason: format!("expected a token file, got {reason}; remove it and run again"),
        };
        let mut file = File::open(path).map_err(cannot("read", path))?;
        let mut header = [0; HEADER as usize];
        file.read_exact(&mut header).map_err(|_| damaged("a shorter file"))?;
        let number = |at: usize| {
            u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes were cut"))
        };
        let (width, tokens) = (number(8), number(16));
        if &header[..8] != MAGIC || !matches!(width, 2 | 4) {
            return Err(damaged("another format"));
        }
        let bytes = file.metadata().map_err(cannot("read", path))?.len();
        if tokens.checked_mul(width).and_then(|n| n.checked_add(HEADER)) != Some(bytes) {
            return Err(damaged("another length"));
        }
        let hash: String = header[24..].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(TokenFile { file, path: path.to_path_buf(), width, tokens, hash })
    }

    /// Number of tokens, ends of documents included; never zero.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Hexadecimal hash of all tokens, the same on every machine.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Reads `count` tokens from `start` on; after the last comes the first again.
    ///
    /// # Errors
    ///
    /// [`DataError::File`] if the disk refuses.
    pub fn read(&mut self, start: u64, count: usize) -> Result<Vec<i32>, DataError> {
        let mut tokens = Vec::with_capacity(count);
        let mut at = start % self.tokens;
        while tokens.len() < count {
            let run =
                (count - tokens.len()).min(usize::try_from(self.tokens - at).unwrap_or(count));
            self.read_run(at, run, &mut tokens)?;
            at = 0;
        }
        Ok(tokens)
    }

    fn read_run(&mut self, at: u64, run: usize, into: &mut Vec<i32>) -> Result<(), DataError> {
        let mut bytes = vec![0; run * self.width as usize];
        self.file
            .seek(SeekFrom::Start(HEADER + at * self.width))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(cannot("read", &self.path))?;
        match self.width {
            2 => into.extend(bytes.as_chunks().0.iter().map(|&b| i32::from(u16::from_le_bytes(b)))),
            _ => into.extend(bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b))),
        }
        Ok(())
    }
}

/// Tokenises all documents; the header is filled in when the tokens are known.
fn write(
    listing: &Listing,
    tokenizer: &Tokenizer,
    file: &mut BufWriter<File>,
    path: &Path,
) -> Result<(), DataError> {
    let width: u64 = if tokenizer.vocab() <= 1 << 16 { 2 } else { 4 };
    let mut hasher = blake3::Hasher::new();
    let (mut bytes, mut is_blank) = (0, true);
    file.write_all(&[0; HEADER as usize]).map_err(cannot("write", path))?;
    for texts in Chunks(listing.documents()) {
        for mut tokens in tokenizer.encode_all(texts?)? {
            is_blank &= tokens.is_empty();
            tokens.push(tokenizer.end());
            let encoded = encoded(&tokens, width);
            hasher.update(&encoded);
            bytes += encoded.len() as u64;
            file.write_all(&encoded).map_err(cannot("write", path))?;
        }
    }
    if is_blank {
        let what = format!("{} have no character", listing.used().description);
        return Err(DataError::Empty { what });
    }
    let mut header = MAGIC.to_vec();
    header.extend(width.to_le_bytes());
    header.extend((bytes / width).to_le_bytes());
    header.extend(hasher.finalize().as_bytes());
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(&header))
        .map_err(cannot("write", path))
}

fn encoded(tokens: &[u32], width: u64) -> Vec<u8> {
    let bytes = tokens.iter().map(|token| token.to_le_bytes());
    bytes.flat_map(|bytes| bytes.into_iter().take(width as usize)).collect()
}

/// Documents in groups that are worth sharing out to the cores.
struct Chunks<'a>(super::source::Documents<'a>);

impl Iterator for Chunks<'_> {
    type Item = Result<Vec<String>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut texts = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES {
            match self.0.next() {
                Some(Ok(text)) => {
                    bytes += text.len();
                    texts.push(text);
                }
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        (!texts.is_empty()).then_some(Ok(texts))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::{Choice, Source};

    fn opened(files: &[(&str, &str)], cache: &Path) -> Result<TokenFile, DataError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let listing = Source::Folder { path: dir.path().into() }.list().unwrap();
        let none = Box::new(std::iter::empty());
        let tokenizer = Tokenizer::open(&Choice::Bytes, none, cache).unwrap();
        TokenFile::open(&listing, &tokenizer, cache)
    }

    #[test]
    fn documents_end_with_a_token_and_reading_goes_round() {
        let cache = tempfile::tempdir().unwrap();
        let mut tokens = opened(&[("a", "ab"), ("b", ""), ("c", "c")], cache.path()).unwrap();
        assert_eq!(tokens.tokens(), 6);
        assert_eq!(tokens.read(0, 6).unwrap(), [97, 98, 256, 256, 99, 256]);
        assert_eq!(tokens.read(4, 5).unwrap(), [99, 256, 97, 98, 256]);
        assert_eq!(tokens.read(11, 14).unwrap().len(), 14);
    }

    #[test]
    fn documents_without_a_character_are_no_text() {
        let cache = tempfile::tempdir().unwrap();
        let error = opened(&[("a", ""), ("b", "")], cache.path()).err().unwrap().to_string();
        assert!(error.starts_with("no text to train on") && error.ends_with("no character"));
    }

    #[test]
    fn equal_text_has_an_equal_hash_wherever_it_lies() {
        let cache = tempfile::tempdir().unwrap();
        let one = opened(&[("a", "ab")], cache.path()).unwrap();
        let two = opened(&[("b", "ab")], cache.path()).unwrap();
        let three = opened(&[("b", "ac")], cache.path()).unwrap();
        assert_eq!(one.hash(), two.hash());
        assert_ne!(one.hash(), three.hash());
        assert_eq!(one.hash().len(), 64);
    }

    #[test]
    fn a_truncated_token_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.bin");
        let whole = opened(&[("a", "ab")], dir.path()).unwrap();
        let bytes = fs::read(&whole.path).unwrap();
        for length in [bytes.len() - 1, 20] {
            fs::write(&path, &bytes[..length]).unwrap();
            let error = TokenFile::read_header(&path).err().unwrap().to_string();
            assert!(error.contains("tokens.bin: expected a token file"), "{error}");
        }
    }

    #[test]
    fn wide_tokens_keep_four_bytes() {
        assert_eq!(encoded(&[1, 70_000], 4), [1, 0, 0, 0, 0x70, 0x11, 1, 0]);
        assert_eq!(encoded(&[1, 300], 2), [1, 0, 44, 1]);
    }
}
