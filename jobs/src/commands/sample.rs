//! `generate`: lets a trained model write.

use std::{num::NonZeroUsize, path::Path};

use kernels::random;
use ops::DType;
use runtime::{Draft, Inference};
use serde_json::json;

use crate::{data::Tokenizer, exit::Failure, folder, prepare::PrepareError};

/// Stands between texts.
const BETWEEN: &str = "--------\n";

/// How texts are drawn.
#[derive(Clone, Debug)]
pub struct Taste {
    /// Tokens at most.
    pub tokens: usize,
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// Mass of the tokens that are drawn from.
    pub top_p: f32,
    /// Key of the random numbers.
    pub seed: u64,
    /// Texts, each with random numbers of its own; the first is that which would be alone.
    pub samples: NonZeroUsize,
}

/// Reads a model and prints what it writes after the prompt, in the given precision.
///
/// # Errors
///
/// What is wrong with the folder.
pub fn generate(
    dir: &Path,
    prompt: &str,
    taste: &Taste,
    dtype: DType,
    json: bool,
) -> Result<u8, Failure> {
    if !(taste.temperature >= 0.0 && taste.temperature.is_finite()) {
        let got = taste.temperature;
        return Err(Failure::usage(format!("the temperature is {got}; expected 0 or more")));
    }
    if !(taste.top_p > 0.0 && taste.top_p <= 1.0) {
        let got = taste.top_p;
        return Err(Failure::usage(format!("`--top-p` is {got}; expected more than 0, at most 1")));
    }
    let trained = folder::open(dir)?;
    let inference = Inference::new(trained.graph, &trained.tensors, dtype)?;
    let texts = write(&inference, &trained.tokenizer, prompt, taste)?;
    if json {
        println!("{}", answer(prompt, &texts));
    } else {
        let whole: Vec<String> = texts.iter().map(|text| format!("{prompt}{text}\n")).collect();
        print!("{}", whole.join(BETWEEN));
    }
    Ok(0)
}

/// One text stands by itself, several are a list.
fn answer(prompt: &str, texts: &[String]) -> serde_json::Value {
    match texts {
        [text] => json!({ "schema": 1, "prompt": prompt, "text": text }),
        _ => json!({ "schema": 1, "prompt": prompt, "texts": texts }),
    }
}

/// What the model writes after a prompt, up to the end of the document, as often as asked.
///
/// # Errors
///
/// If the prompt cannot be tokenised.
pub fn write(
    inference: &Inference,
    tokenizer: &Tokenizer,
    prompt: &str,
    taste: &Taste,
) -> Result<Vec<String>, Failure> {
    let encoded = tokenizer.encode(prompt).map_err(PrepareError::from)?;
    let end = tokenizer.end();
    let prompt: Vec<i32> = [end].into_iter().chain(encoded).map(|t| t as i32).collect();
    let draft = |sample| Draft { prompt: prompt.clone(), key: stream(taste.seed, sample) };
    let drafts: Vec<Draft> = (0..taste.samples.get()).map(draft).collect();
    let Taste { tokens, temperature, top_p, .. } = *taste;
    let (vocab, end) = (tokenizer.vocab(), Some(end as i32));
    let taste = runtime::Taste { tokens, temperature, top_p, vocab, end };
    let text = |written: Vec<i32>| {
        let tokens: Vec<u32> = written.into_iter().map(|token| token as u32).collect();
        tokenizer.decode(&tokens).map_err(|error| PrepareError::from(error).into())
    };
    inference.begin(&drafts, &taste).finish().into_iter().map(text).collect()
}

/// Key of the random numbers of one of several texts.
fn stream(seed: u64, sample: usize) -> u64 {
    match sample {
        0 => random::key(seed, "sampling"),
        _ => random::key(seed, &format!("sampling.{sample}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_stands_by_itself_and_several_in_a_list() {
        let texts = ["a", "b"].map(String::from);
        assert_eq!(answer("p", &texts[..1])["text"], "a");
        assert_eq!(answer("p", &texts)["texts"], json!(["a", "b"]));
    }

    #[test]
    fn every_text_has_random_numbers_of_its_own() {
        let keys: std::collections::BTreeSet<u64> = (0..100).map(|n| stream(7, n)).collect();
        assert_eq!(keys.len(), 100);
    }
}
