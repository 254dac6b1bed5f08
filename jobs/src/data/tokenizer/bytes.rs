//! One token for each byte, and the same said in the language of Hugging Face's `tokenizers`.

use serde_json::{Map, Value, json};

use super::END;

/// The token after the 256 bytes.
pub(super) const END_ID: u32 = 256;

/// Text of bytes; other tokens give nothing.
pub(super) fn decode(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A byte-level BPE without merges, whose tokens are numbered like the bytes.
pub(super) fn to_json() -> String {
    let mut vocab: Map<String, Value> =
        (0..=255).map(|byte| (letter(byte).to_string(), byte.into())).collect();
    vocab.insert(END.to_string(), END_ID.into());
    let step = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    let end = json!({
        "id": END_ID, "content": END, "special": true, "normalized": false,
        "single_word": false, "lstrip": false, "rstrip": false
    });
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end],
        "normalizer": null, "pre_tokenizer": step, "post_processor": null, "decoder": step,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": []
        }
    });
    format!("{whole:#}")
}

/// The visible character that stands for a byte in byte-level vocabularies, as in GPT-2.
///
/// Visible Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and following.
fn letter(byte: u8) -> char {
    let visible = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if visible(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|&b| !visible(b)).count() as u32;
    char::from_u32(0x100 + hidden_before).expect("68 letters follow U+0100")
}

/// All letters, which is the alphabet training starts from.
pub(super) fn alphabet() -> impl Iterator<Item = char> {
    (0..=255).map(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_gpt2() {
        for (byte, expected) in [(b' ', 'Ġ'), (b'\n', 'Ċ'), (b'a', 'a'), (0xAD, 'Ń'), (0xFF, 'ÿ')]
        {
            assert_eq!(letter(byte), expected);
        }
    }
}
