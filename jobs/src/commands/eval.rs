//! `eval`: the negative log-likelihood of every token of a text.

use std::path::Path;

use ops::DType;
use runtime::Inference;

use crate::{
    exit::Failure,
    folder::{self, Trained},
    prepare::PrepareError,
};

/// What is evaluated.
#[derive(Clone, Debug)]
pub enum Text {
    /// A text file.
    File(std::path::PathBuf),
    /// Token numbers separated by blanks.
    Tokens(String),
}

/// Prints the likelihood of every token after the first.
///
/// # Errors
///
/// What is wrong with the folder or the text.
pub fn eval(dir: &Path, text: &Text, json: bool) -> Result<u8, Failure> {
    let trained = folder::open(dir)?;
    let tokens = tokens(&trained, text)?;
    let context = trained.context;
    let inference = Inference::new(trained.graph, &trained.tensors, DType::F32)?;
    let nll = nll(&inference, &tokens, context);
    let mean = nll.iter().map(|x| f64::from(*x)).sum::<f64>() / nll.len() as f64;
    if json {
        println!("{}", serde_json::json!({ "schema": 1, "nll": nll, "mean": mean }));
    } else {
        for (token, nll) in tokens[1..].iter().zip(&nll) {
            println!("{token}\t{nll:.6}");
        }
        println!("mean {mean:.6} nats over {} tokens", nll.len());
    }
    Ok(0)
}

/// Negative log-likelihood of every token after the first, in windows of `context` tokens; a
/// window begins where the one before it ended and sees nothing of it.
pub fn nll(inference: &Inference, tokens: &[i32], context: usize) -> Vec<f32> {
    let windows = (0..tokens.len() - 1).step_by(context);
    let window = |begin: usize| {
        let end = (begin + context).min(tokens.len() - 1);
        inference.nll(&tokens[begin..end], &tokens[begin + 1..end + 1])
    };
    windows.flat_map(window).collect()
}

fn tokens(trained: &Trained, text: &Text) -> Result<Vec<i32>, Failure> {
    let vocab = crate::prepare::vocabulary(&trained.graph);
    let tokens: Vec<i32> = match text {
        Text::File(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::environment(format!("{}: {error}", path.display())))?;
            let encoded = trained.tokenizer.encode(&text).map_err(PrepareError::from)?;
            encoded.into_iter().map(|token| token as i32).collect()
        }
        Text::Tokens(list) => {
            let number = |word: &str| {
                let token = word.parse().ok().filter(|t| (0..vocab as i32).contains(t));
                token.ok_or_else(|| {
                    Failure::usage(format!("`{word}` is no token; tokens are 0..{}", vocab - 1))
                })
            };
            list.split_whitespace().map(number).collect::<Result<_, _>>()?
        }
    };
    match tokens.len() {
        0 | 1 => Err(Failure::usage("two tokens are the least that can be evaluated".into())),
        _ => Ok(tokens),
    }
}
