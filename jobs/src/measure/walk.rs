//! One microbatch through the whole model on one thread, each operator timed.

use std::{collections::BTreeMap, time::Instant};

use graphs::{
    model::{Node, NodeId, Source},
    price::Sample,
};
use ops::{Context, DType, Floats, Op, Saved, Tensor};

use super::Subject;
use crate::prepare::vocabulary;

/// A model with weights, ready to be walked through.
pub struct Walk<'a> {
    subject: &'a Subject<'a>,
    context: Context,
    weights: Vec<Vec<Tensor>>,
    /// Operators as one expert group has them.
    parts: BTreeMap<NodeId, Op>,
    tokens: Tensor,
    targets: Tensor,
}

/// Rows of the groups, and the experts of each.
struct Groups {
    starts: Vec<usize>,
    experts: usize,
}

impl<'a> Walk<'a> {
    /// A model with fresh weights and random tokens.
    pub fn new(subject: &'a Subject<'a>) -> Self {
        let batch = subject.plan.batch;
        let count = batch.microbatch * batch.context;
        let key = kernels::random::key(subject.seed, "measure");
        let vocab = vocabulary(subject.graph) as u64;
        let token = |index: usize| (kernels::random::bits(key, index as u64) % vocab) as i32;
        let ids =
            |from: usize| Tensor::from_i32(&[count], (from..from + count).map(token).collect());
        let visits = subject.plan.chunks.iter().flat_map(|chunk| &chunk.visits);
        Walk {
            subject,
            context: Context {
                sequence: batch.context,
                dtype: subject.dtype,
                loss_scale: 1.0 / batch.tokens() as f32,
            },
            weights: subject.graph.nodes().map(|node| weights(subject, node)).collect(),
            parts: visits.flat_map(|visit| visit.nodes.clone()).collect(),
            tokens: ids(0),
            targets: ids(1),
        }
    }

    /// Runs every node forward and backward; a sample for each, in order.
    pub fn pass(&mut self) -> Vec<Sample> {
        let graph = self.subject.graph;
        let mut made: Vec<Vec<Tensor>> = Vec::with_capacity(graph.len());
        let mut groups = None;
        let mut samples = Vec::with_capacity(graph.len());
        for (id, node) in graph.nodes().enumerate() {
            let inputs: Vec<Tensor> = node.inputs.iter().map(|it| self.input(it, &made)).collect();
            let (sample, outputs) = match (self.parts.get(&id), &groups) {
                (Some(part), Some(groups)) => self.in_groups(id, node, part, &inputs, groups),
                _ => self.whole(id, node, &inputs),
            };
            if let Op::Dispatch(dispatch) = &node.op {
                let experts = dispatch.experts / self.subject.plan.mesh.ep;
                groups = Some(Groups { starts: starts(outputs[1].i32(), experts), experts });
            }
            samples.push(sample);
            made.push(outputs);
        }
        samples
    }

    fn input(&self, source: &Source, made: &[Vec<Tensor>]) -> Tensor {
        match *source {
            Source::Tokens => self.tokens.clone(),
            Source::Targets => self.targets.clone(),
            Source::Node { node, port } => made[node][port].clone(),
        }
    }

    fn whole(&self, id: NodeId, node: &Node, inputs: &[Tensor]) -> (Sample, Vec<Tensor>) {
        let mut sample = self.sample(&node.op, self.tokens.len());
        let outputs = self.time(node, &node.op, &self.weights[id], inputs, &mut sample);
        (sample, outputs)
    }

    /// The rows of each group by themselves; the sample is the mean of the groups.
    fn in_groups(
        &self,
        id: NodeId,
        node: &Node,
        part: &Op,
        inputs: &[Tensor],
        Groups { starts, experts }: &Groups,
    ) -> (Sample, Vec<Tensor>) {
        let count = starts.len() - 1;
        let mut sample = self.sample(part, starts[count].div_ceil(count));
        let mut pieces = Vec::new();
        for group in 0..count {
            let own = |input: &Tensor| match input.dtype() {
                DType::I32 => input.rows(group * experts..(group + 1) * experts),
                _ => input.rows(starts[group]..starts[group + 1]),
            };
            let inputs: Vec<Tensor> = inputs.iter().map(own).collect();
            let weights = match &self.weights[id][..] {
                [] => &[],
                all => &all[group * experts..(group + 1) * experts],
            };
            pieces.push(self.time(node, part, weights, &inputs, &mut sample));
        }
        for time in [&mut sample.forward, &mut sample.input, &mut sample.weight] {
            *time /= count as f64;
        }
        let ports = 0..node.outputs.len();
        let outputs = ports.map(|port| joined(pieces.iter().map(|piece| &piece[port])));
        (sample, outputs.collect())
    }

    fn sample(&self, op: &Op, amount: usize) -> Sample {
        Sample {
            op: op.clone(),
            bf16: self.subject.dtype == DType::Bf16,
            amount,
            sequence: self.context.sequence,
            forward: 0.0,
            input: 0.0,
            weight: 0.0,
        }
    }

    /// Adds the times of one operator to the sample; outputs serve as their own gradients.
    fn time(
        &self,
        node: &Node,
        op: &Op,
        weights: &[Tensor],
        inputs: &[Tensor],
        sample: &mut Sample,
    ) -> Vec<Tensor> {
        let (op, at) = (op.operator(), &self.context);
        let begin = Instant::now();
        let forward = op.forward(at, weights, inputs);
        sample.forward += begin.elapsed().as_secs_f64();
        let Saved { input, weight } = forward.saved;
        let gradient = |output: &Tensor| match output.dtype() {
            DType::I32 => Tensor::from_i32(&[0], Vec::new()),
            _ => output.clone(),
        };
        let dy: Vec<Tensor> = forward.outputs.iter().map(gradient).collect();
        if node.inputs.iter().any(|source| matches!(source, Source::Node { .. })) {
            let begin = Instant::now();
            drop(op.backward_input(at, weights, &input, &dy));
            sample.input += begin.elapsed().as_secs_f64();
        }
        if !weights.is_empty() {
            let zeros = |w: &Tensor| Floats::from(vec![0.0; w.len()]);
            let mut dw: Vec<Floats> = weights.iter().map(zeros).collect();
            let begin = Instant::now();
            op.backward_weight(at, weights, &weight, &dy, &mut dw);
            sample.weight += begin.elapsed().as_secs_f64();
        }
        forward.outputs
    }
}

fn weights(subject: &Subject<'_>, node: &Node) -> Vec<Tensor> {
    let own = &subject.graph.parameters()[node.parameters.clone()];
    let weight = |parameter: &graphs::model::Parameter| {
        let spec = &parameter.spec;
        let format = if spec.exact { DType::F32 } else { subject.dtype };
        Tensor::rounded(&spec.shape, spec.initial(subject.seed, &parameter.name), format)
    };
    own.iter().map(weight).collect()
}

/// First row of each group of `experts` experts, and the end.
fn starts(counts_e: &[i32], experts: usize) -> Vec<usize> {
    let mut starts = vec![0];
    for group in counts_e.chunks(experts) {
        let rows: i32 = group.iter().sum();
        starts.push(starts[starts.len() - 1] + rows as usize);
    }
    starts
}

/// Pieces one below the other.
fn joined<'t>(pieces: impl Iterator<Item = &'t Tensor> + Clone) -> Tensor {
    let rows = pieces.clone().map(|piece| piece.shape()[0]).sum();
    let first = pieces.clone().next().expect("there is a group");
    let shape = [&[rows], &first.shape()[1..]].concat();
    let bytes: Vec<u8> = pieces.clone().flat_map(|piece| piece.bytes().iter().copied()).collect();
    Tensor::from_bytes(&shape, first.dtype(), bytes.into())
}
