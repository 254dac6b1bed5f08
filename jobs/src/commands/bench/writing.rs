//! `bench --generate`: new tokens per second of a model with fresh weights.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Instant};

use ops::Tensor;
use runtime::{Draft, Inference, Taste};
use serde_json::json;

use crate::{exit::Failure, job::Job, memory, prepare, view::progress::grouped};

/// Measurements, after one that warms up; the figure is their median.
const MEASUREMENTS: usize = 5;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Texts side by side.
    pub batch: NonZeroUsize,
    /// Tokens of each prompt.
    pub prompt_tokens: NonZeroUsize,
    /// New tokens of each text.
    pub new_tokens: NonZeroUsize,
}

/// Lets a job's model write, in the job's precision, and prints how quickly.
///
/// # Errors
///
/// A job whose model cannot be read or does not fit the memory.
pub fn bench(job: &Job, size: Size, as_json: bool) -> Result<u8, Failure> {
    let Size { batch, new_tokens, prompt_tokens } = size;
    let inference = fresh(job)?;
    let seconds = median(&inference, job.seed, size);
    let tokens = batch.get() * new_tokens.get();
    let rate = tokens as f64 / seconds;
    if as_json {
        let answer = json!({
            "schema": 1,
            "job": job.name,
            "tokens_per_second": rate,
            "batch": batch,
            "seconds_per_token": seconds / new_tokens.get() as f64,
        });
        println!("{answer}");
    } else {
        println!("{}: {} new tokens/s", job.name, grouped(rate as u64));
        println!(
            "{seconds:.3} s for {new_tokens} new tokens in each of {batch} texts, median of \
             {MEASUREMENTS}; reading prompts of {prompt_tokens} is not counted"
        );
    }
    Ok(0)
}

/// The job's model with fresh weights.
fn fresh(job: &Job) -> Result<Inference, Failure> {
    let network = prepare::network(job)?;
    // Values, and once more as they are packed.
    memory::fits(2 * memory::of_values(&network.graph), "this model")?;
    let value = |about: &graphs::model::Parameter| {
        let value = Tensor::from_f32(&about.spec.shape, about.spec.initial(job.seed, &about.name));
        (about.name.clone(), value)
    };
    let tensors: BTreeMap<_, _> = network.graph.parameters().iter().map(value).collect();
    Ok(Inference::new(network.graph, &tensors, job.precision.dtype())?)
}

/// Seconds for all new tokens but the first of each text, which comes with its prompt.
fn median(inference: &Inference, seed: u64, size: Size) -> f64 {
    let vocab = prepare::vocabulary(inference.graph());
    let key = kernels::random::key(seed, "bench");
    let token = |index| (kernels::random::bits(key, index as u64) % vocab as u64) as i32;
    let prompt = |text: usize| {
        let first = text * size.prompt_tokens.get();
        (first..first + size.prompt_tokens.get()).map(token).collect()
    };
    let draft = |text| Draft { prompt: prompt(text), key: 0 };
    let drafts: Vec<Draft> = (0..size.batch.get()).map(draft).collect();
    let tokens = size.new_tokens.get() + 1;
    let taste = Taste { tokens, temperature: 0.0, top_p: 1.0, vocab, end: None };
    let mut seconds: Vec<f64> = (0..=MEASUREMENTS)
        .map(|_| {
            let writing = inference.begin(&drafts, &taste);
            let started = Instant::now();
            writing.finish();
            started.elapsed().as_secs_f64()
        })
        .skip(1)
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[MEASUREMENTS / 2]
}
