//! Troupe's side of a case: logits, one step's gradients, and what training makes of the model.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, anyhow};
use graphs::{ModelGraph, plan::Batch};
use ops::{DType, Place, Rule, Tensor, optim::Optimizer};
use runtime::{
    cluster::{Cluster, Setup},
    feed::{Feed, FeedError},
    inference::Inference,
    rate::{Decay, Rate, Shape},
};

use super::cases::{Case, Draws};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// What a case starts from, the same for both sides.
pub struct Input {
    /// The model.
    pub graph: ModelGraph,
    /// Its values before the first step.
    pub start: Tensors,
    /// Tokens of all steps, or of one if nothing is trained, `[steps, sequences, context]`.
    pub tokens: Tensor,
    /// The token after each.
    pub targets: Tensor,
}

/// What came out of a case.
pub struct Computed {
    /// Logits of the first step's tokens before any update, `[sequences, context, v]`.
    pub logits: Tensor,
    /// Mean negative log-likelihood of the first step's targets, by [`Inference`].
    pub loss: f64,
    /// What the actors made of it.
    pub trained: Trained,
}

/// What training left behind; empty if the case trains nothing.
#[derive(Default)]
pub struct Trained {
    /// Loss of each step.
    pub losses: Vec<f64>,
    /// Heads that were clipped, over all steps.
    pub clipped_heads: usize,
    /// Largest softmax input of each step, layer and head.
    pub max_logits: Vec<Vec<Vec<f32>>>,
    /// Gradients of the first step.
    pub gradients: Tensors,
    /// The model after the last step.
    pub parameters: Tensors,
}

/// Draws what a case starts from.
pub fn input(case: &Case) -> Result<Input> {
    let graph = ModelGraph::new(&case.decoder.expand()).map_err(|errors| anyhow!("{errors:?}"))?;
    let start = start(case, &graph)?;
    let (tokens, targets) = text(case)?;
    Ok(Input { graph, start, tokens, targets })
}

/// Computes a case.
pub fn compute(case: &Case, input: &Input) -> Result<Computed> {
    let model = Inference::new(input.graph.clone(), &input.start, DType::F32)?;
    let (logits, loss) = evaluate(case, &model, input.tokens.i32(), input.targets.i32());
    let trained = if case.steps == 0 { Trained::default() } else { train(case, input)? };
    Ok(Computed { logits, loss, trained })
}

/// Fresh values, with gains and biases moved away from the ones and zeros that hide mistakes.
fn start(case: &Case, graph: &ModelGraph) -> Result<Tensors> {
    let mut cluster = cluster(case, graph.clone(), Tensors::new())?;
    let mut fresh = cluster.snapshot()?.tensors;
    let mut draws = Draws(case.seed ^ 0xb1a5);
    let mut start = Tensors::new();
    for parameter in graph.parameters() {
        let tensor =
            fresh.remove(&parameter.name).ok_or_else(|| anyhow!("no {}", parameter.name))?;
        let amount = match (parameter.spec.rule, tensor.shape().len()) {
            (Rule::Balance, _) => 0.05,
            (_, 1) => 0.2,
            _ => 0.0,
        };
        let values = tensor.f32().iter().map(|x| x + amount * draws.signed()).collect();
        start.insert(parameter.name.clone(), Tensor::from_f32(tensor.shape(), values));
    }
    Ok(start)
}

/// Tokens and targets of all steps.
fn text(case: &Case) -> Result<(Tensor, Tensor)> {
    let mut feed = RandomText::of(case);
    let steps = case.steps.max(1);
    let (mut tokens, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..steps {
        let (more, next) = feed.next(case.sequences, case.context)?;
        tokens.extend(more);
        targets.extend(next);
    }
    let shape = [steps, case.sequences, case.context];
    Ok((Tensor::from_i32(&shape, tokens), Tensor::from_i32(&shape, targets)))
}

/// Logits and mean loss of the first step's text.
fn evaluate(case: &Case, model: &Inference, tokens: &[i32], targets: &[i32]) -> (Tensor, f64) {
    let (mut logits, mut loss) = (Vec::new(), 0.0);
    let texts = tokens.chunks(case.context).zip(targets.chunks(case.context));
    for (tokens, targets) in texts.take(case.sequences) {
        logits.extend_from_slice(&model.logits(tokens).f32());
        loss += model.nll(tokens, targets).iter().map(|x| f64::from(*x)).sum::<f64>();
    }
    let shape = [case.sequences, case.context, case.decoder.vocab];
    (Tensor::from_f32(&shape, logits), loss / (case.sequences * case.context) as f64)
}

/// Trains through the actors.
fn train(case: &Case, input: &Input) -> Result<Trained> {
    let mut cluster = cluster(case, input.graph.clone(), input.start.clone())?;
    let mut trained = Trained::default();
    for step in 0..case.steps {
        let report = cluster.step()?;
        trained.losses.push(report.loss);
        trained.clipped_heads += report.clipped_heads;
        trained.max_logits.push(report.max_logits);
        if step == 0 {
            let all = cluster.snapshot()?.tensors.into_iter();
            let gradient = |(name, tensor): (String, Tensor)| {
                Some((name.strip_prefix("gradient.")?.to_string(), tensor))
            };
            trained.gradients = all.filter_map(gradient).collect();
        }
    }
    let mut all = cluster.snapshot()?.tensors;
    all.retain(|name, _| input.start.contains_key(name));
    trained.parameters = all;
    Ok(trained)
}

/// Actors of a case, from given tensors or, if there are none, from fresh values.
fn cluster(case: &Case, graph: ModelGraph, tensors: Tensors) -> Result<Cluster> {
    let batch = Batch {
        sequences: case.sequences,
        context: case.context,
        microbatch: case.plan.microbatch,
        lanes: Some(case.plan.mesh.data_ranks()),
    };
    let plan = graphs::lower(&graph, &case.plan, batch).map_err(|errors| anyhow!("{errors:?}"))?;
    let places = vec![Place::Host; plan.mesh.ranks()];
    let setup = Setup {
        plan,
        graph,
        optimizer: Optimizer::MuonClip(case.optimizer.clone()),
        rate: rate(case),
        clip: case.clip,
        dtype: DType::F32,
        seed: case.seed,
        audit: true,
        tensors,
        step: 0,
        tokens: 0,
        patience: Duration::from_secs(60),
        places,
        machine: None,
    };
    Ok(Cluster::start(setup, Box::new(RandomText::of(case)))?)
}

fn rate(case: &Case) -> Rate {
    let tokens = |steps: usize| (steps * case.sequences * case.context) as f64;
    let steps = &case.rate;
    let decay = Decay {
        shape: Shape::Cosine,
        begin: tokens(steps.decay_begin),
        over: tokens(steps.decay_steps),
        to: steps.to,
    };
    let warmup_end = tokens(steps.warmup_steps);
    Rate { begin: 0, peak: steps.peak, warmup_end, decay: Some(decay) }
}

/// Random text in which low token numbers are likelier, so that there is something to learn.
struct RandomText {
    draws: Draws,
    vocab: usize,
}

impl RandomText {
    fn of(case: &Case) -> Self {
        RandomText { draws: Draws(case.seed ^ 0x7e47), vocab: case.decoder.vocab }
    }

    fn token(&mut self) -> i32 {
        self.draws.below(self.vocab).min(self.draws.below(self.vocab)) as i32
    }
}

impl Feed for RandomText {
    fn next(
        &mut self,
        sequences: usize,
        context: usize,
    ) -> Result<(Vec<i32>, Vec<i32>), FeedError> {
        let (mut tokens, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..sequences {
            let text: Vec<i32> = (0..=context).map(|_| self.token()).collect();
            tokens.extend(&text[..context]);
            targets.extend(&text[1..]);
        }
        Ok((tokens, targets))
    }

    fn position(&self) -> serde_json::Value {
        self.draws.0.into()
    }

    fn seek(&mut self, position: &serde_json::Value) -> Result<(), FeedError> {
        let got = || FeedError::Position { expected: "a state".into(), got: position.to_string() };
        self.draws.0 = position.as_u64().ok_or_else(got)?;
        Ok(())
    }
}
