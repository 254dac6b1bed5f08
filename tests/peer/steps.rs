//! Writes the text of a job's first steps for other programs: `--example steps -- JOB STEPS FILE`.
//!
//! `FILE` becomes a safetensors file with `tokens` and `targets`, `[steps, sequences, context]`:
//! what the loader of `troupe run JOB` gives to its actors, in the same order.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use jobs::{Request, folder, load, prepare};
use runtime::Feed;
use safetensors::tensor::{Dtype, TensorView};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [job, steps, file] = arguments.as_slice() else {
        return Err(anyhow!("usage: steps JOB STEPS FILE"));
    };
    let steps: usize = steps.parse().context("the number of steps")?;
    let request = Request { job: job.clone(), ..Request::default() };
    let job = load(&request).map_err(|report| anyhow!("{report}"))?.job;
    let graph = prepare::network(&job)?.graph;
    let (mut mix, _) = prepare::text(&job, &graph, None, &folder::cache())?;
    let batch = job.batch(job.plan());
    let (mut tokens, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..steps {
        let (more, next) = mix.next(batch.sequences, batch.context)?;
        tokens.extend(more.iter().flat_map(|token| token.to_le_bytes()));
        targets.extend(next.iter().flat_map(|token| token.to_le_bytes()));
    }
    let shape = vec![steps, batch.sequences, batch.context];
    let view = |bytes| TensorView::new(Dtype::I32, shape.clone(), bytes);
    let views = [("tokens", view(&tokens)?), ("targets", view(&targets)?)];
    safetensors::serialize_to_file(views, None, Path::new(file))?;
    Ok(())
}
