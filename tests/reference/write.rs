//! Writes Troupe's side of the comparison with PyTorch: `cargo run --example reference -- DIR`.
//!
//! For each case: `export/`, a model as transformers loads it; `case.json`, what was computed and
//! the losses; `ours.safetensors`, everything else. `check.py` reads them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use jobs::{
    data::{Choice, Tokenizer},
    huggingface,
};
use ops::{DType, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

mod cases;
mod compute;

use crate::{
    cases::Case,
    compute::{Computed, Input},
};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("usage: reference DIR")?;
    for case in cases::cases() {
        println!("{}: seed {}, {}", case.name, case.seed, case.title);
        let input = compute::input(&case)?;
        let computed = compute::compute(&case, &input)?;
        write(&Path::new(&folder).join(case.name), &case, input, computed)?;
    }
    Ok(())
}

fn write(folder: &Path, case: &Case, input: Input, computed: Computed) -> Result<()> {
    fs::create_dir_all(folder)?;
    let trained = &computed.trained;
    let tokenizer = Tokenizer::open(&Choice::Bytes, Box::new(std::iter::empty()), folder)?;
    let export = folder.join("export");
    huggingface::write(&export, &case.decoder, case.context, &input.start, &tokenizer, DType::F32)?;
    let said = json!({
        "case": case,
        "loss": computed.loss,
        "losses": trained.losses,
        "clipped_heads": trained.clipped_heads,
    });
    fs::write(folder.join("case.json"), serde_json::to_string_pretty(&said)?)?;
    let tensors = named(case, input, computed);
    let views: Result<Vec<_>> = tensors.iter().map(|(name, t)| Ok((name, view(t)?))).collect();
    safetensors::serialize_to_file(views?, None, &folder.join("ours.safetensors"))?;
    Ok(())
}

/// Everything that came out, under the names that `check.py` asks for.
fn named(case: &Case, input: Input, computed: Computed) -> BTreeMap<String, Tensor> {
    let Computed { logits, trained, .. } = computed;
    let figures = [("tokens", input.tokens), ("targets", input.targets), ("logits", logits)];
    let mut all: BTreeMap<_, _> = figures.map(|(name, t)| (name.to_string(), t)).into();
    let under = |kind: &'static str| move |(name, t)| (format!("{kind}.{name}"), t);
    all.extend(trained.gradients.into_iter().map(under("gradient")));
    all.extend(trained.parameters.into_iter().map(under("parameter")));
    if case.steps > 0 {
        let shape = [case.steps, case.decoder.layers, case.decoder.heads];
        let max_logits = trained.max_logits.into_iter().flatten().flatten().collect();
        all.insert("max_logits".into(), Tensor::from_f32(&shape, max_logits));
    }
    all
}

fn view(tensor: &Tensor) -> Result<TensorView<'_>> {
    let dtype = match tensor.dtype() {
        DType::I32 => Dtype::I32,
        DType::Bf16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
    };
    Ok(TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes())?)
}
