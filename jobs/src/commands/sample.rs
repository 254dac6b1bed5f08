//! `generate`: lets a trained model write.

use std::path::Path;

use ops::DType;
use runtime::{Inference, sample};

use crate::{data::Tokenizer, exit::Failure, folder, prepare::PrepareError};

/// How tokens are drawn.
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
}

/// Reads a model and prints what it writes after the prompt.
///
/// # Errors
///
/// What is wrong with the folder.
pub fn generate(dir: &Path, prompt: &str, taste: &Taste, json: bool) -> Result<u8, Failure> {
    if !(taste.temperature >= 0.0 && taste.temperature.is_finite()) {
        let got = taste.temperature;
        return Err(Failure::usage(format!("the temperature is {got}; expected 0 or more")));
    }
    if !(taste.top_p > 0.0 && taste.top_p <= 1.0) {
        let got = taste.top_p;
        return Err(Failure::usage(format!("`--top-p` is {got}; expected more than 0, at most 1")));
    }
    let trained = folder::open(dir)?;
    let inference = Inference::new(trained.graph, &trained.tensors, DType::F32)?;
    let text = write(&inference, &trained.tokenizer, prompt, taste)?;
    if json {
        println!("{}", serde_json::json!({ "schema": 1, "prompt": prompt, "text": text }));
    } else {
        println!("{prompt}{text}");
    }
    Ok(0)
}

/// What the model writes after a prompt, up to the end of the document.
///
/// # Errors
///
/// If the prompt cannot be tokenised.
pub fn write(
    inference: &Inference,
    tokenizer: &Tokenizer,
    prompt: &str,
    taste: &Taste,
) -> Result<String, Failure> {
    let encoded = tokenizer.encode(prompt).map_err(PrepareError::from)?;
    let end = tokenizer.end();
    let mut reading: Vec<i32> = [end].into_iter().chain(encoded).map(|t| t as i32).collect();
    let key = kernels::random::key(taste.seed, "sampling");
    let mut session = inference.session();
    let mut written = Vec::new();
    while written.len() < taste.tokens {
        let mut logits = session.read(&reading);
        logits.truncate(tokenizer.vocab());
        let uniform = kernels::random::uniform(key, written.len() as u64) as f32;
        let token = sample(&logits, taste.temperature, taste.top_p, uniform);
        if token as u32 == end {
            break;
        }
        written.push(token as u32);
        reading = vec![token];
    }
    Ok(tokenizer.decode(&written).map_err(PrepareError::from)?)
}
