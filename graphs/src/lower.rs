//! From a model and the plan asked for to a plan that can be run: every level, in order.

use ops::Op;

use crate::{
    action::Action,
    bare::Step,
    check,
    error::PlanError,
    flight::{self, Task, keepings},
    model::ModelGraph,
    passes::{copies, credits, messages, overlap, reduce, rising, split},
    place,
    plan::{Batch, Plan, Program, Side},
    route::{self, Routes},
    schedule::{Interleaved, Pipeline, Schedule},
    spec::{Credits, PlanSpec},
};

/// The largest degree of an axis, and of anything that is counted.
const DEGREE_LIMIT: usize = 1 << 20;

/// Sequences of the largest unit; with the longest context its work still counts in 64 bits.
const MICROBATCH_LIMIT: usize = 1 << 10;

/// Chunks times microbatches of the longest step that is planned.
const STEP_LIMIT: usize = 1 << 18;

/// Lowers a model to a plan; the same for the same arguments, on every rank.
///
/// `spec.microbatch` holds, whatever `batch.microbatch` says.
///
/// # Errors
///
/// All the [`PlanError`]s that can be known at once: first those of numbers that do not fit each
/// other, then those of the cut.
pub fn lower(graph: &ModelGraph, spec: &PlanSpec, batch: Batch) -> Result<Plan, Vec<PlanError>> {
    let batch = Batch { microbatch: spec.microbatch, ..batch };
    let degrees = degrees(spec, batch);
    if !degrees.is_empty() {
        return Err(degrees);
    }
    let mut errors = numbers(graph, spec, batch);
    let places = match place::place(graph, &spec.stages, spec.mesh.chunks(), batch) {
        Ok(places) if errors.is_empty() => places,
        places => {
            errors.extend(places.err().into_iter().flatten());
            return Err(errors);
        }
    };
    let stages = spec.schedule().places(pipeline(spec, batch));
    let chunk = |(nodes, stage)| route::chunk(graph, nodes, stage, spec.mesh.ep);
    let chunks = places.into_iter().zip(stages).map(chunk).collect::<Vec<_>>();
    let channels = route::channels(&chunks);
    let orders = orders(spec, batch)?;
    let (communicators, policies, zero) = (spec.communicators, spec.policies(), spec.zero);
    let (mesh, offload_states, programs) = (spec.mesh, spec.offload_states, Vec::new());
    let reduces_early = spec.reduces_early();
    let mut plan = Plan {
        mesh,
        batch,
        chunks,
        orders,
        channels,
        communicators,
        policies,
        zero,
        offload_states,
        reduces_early,
        programs,
    };
    find_restored(graph, &mut plan);
    plan.programs = programs_of(spec, &plan);
    check::programs(&plan).map_err(wrapped)?;
    credits::set(&mut plan, spec.credits);
    check::deadlock(&plan).map_err(|deadlock| vec![deadlock.into()])?;
    Ok(plan)
}

/// Notes which segments and visits need something restored before their backward pass.
fn find_restored(graph: &ModelGraph, plan: &mut Plan) {
    for side in [Side::Stage, Side::Experts] {
        for stage in 0..plan.mesh.pp {
            for ((chunk, visit), keeping) in keepings(plan, graph, stage, side) {
                let segments = match side {
                    Side::Stage => 0..plan.chunks[chunk].segments.len(),
                    Side::Experts => visit..visit + 1,
                };
                let tasks = |it| flight::tasks(plan, graph, side, chunk, it);
                let tasks: Vec<Vec<Task>> = segments.map(tasks).collect();
                let restored = keeping.restorings(graph, &tasks);
                let restored = restored.iter().map(|it| !it.is_empty());
                plan.chunks[chunk].restored[side as usize].extend(restored);
            }
        }
    }
}

/// The programs of all stages.
fn programs_of(spec: &PlanSpec, plan: &Plan) -> Vec<[Program; 2]> {
    let routes = Routes::new(&plan.channels);
    let rows = plan.orders.iter().map(|order| overlap::steps(order, spec.pairs())).collect();
    let rows = if spec.pairs() { overlap::independent(rows, plan.chunks.len()) } else { rows };
    let program = |steps: &Vec<Step>| {
        let prefetch = plan.policies.offloads().map(|how| how.prefetch);
        let moves = prefetch.map(|ahead| copies::moves(steps, ahead)).unwrap_or_default();
        messages::programs(steps, &moves, &plan.chunks, &routes)
    };
    let programs = rows.iter().map(program);
    if !plan.reduces_early {
        return programs.collect();
    }
    let microbatches = plan.batch.microbatches(plan.mesh.data_ranks());
    programs.map(|sides| sides.map(|side| reduce::early(side, microbatches))).collect()
}

fn wrapped<E: Into<PlanError>>(errors: Vec<E>) -> Vec<PlanError> {
    errors.into_iter().map(Into::into).collect()
}

/// The shape of pipeline that a schedule is asked to order.
fn pipeline(spec: &PlanSpec, batch: Batch) -> Pipeline {
    Pipeline {
        stages: spec.mesh.pp,
        virtual_stages: spec.mesh.vpp,
        microbatches: batch.microbatches(spec.mesh.data_ranks()),
    }
}

/// The checked orders of all stages, after the passes on orders.
fn orders(spec: &PlanSpec, batch: Batch) -> Result<Vec<Vec<Action>>, Vec<PlanError>> {
    let (schedule, pipeline) = (spec.schedule(), pipeline(spec, batch));
    let (places, when) = (schedule.places(pipeline), spec.weight_grad());
    let check = |orders: &[Vec<_>]| check::orders(&places, pipeline.microbatches, orders);
    let orders = match (schedule.clone(), spec.weight_grad) {
        // What the plan says of weight gradients beats what the schedule says.
        (Schedule::Interleaved1F1B(rule), Some(_)) => {
            let rule = Interleaved { split_backward: false, ..rule };
            Schedule::Interleaved1F1B(rule).orders(pipeline)
        }
        (schedule, _) => schedule.orders(pipeline),
    };
    check(&orders).map_err(wrapped)?;
    let passes = |order: &Vec<_>| rising::rising(&split::split(order, when));
    let orders: Vec<_> = orders.iter().map(passes).collect();
    check(&orders).map_err(wrapped)?;
    Ok(orders)
}

/// Counts that are zero or beyond any machine.
fn degrees(spec: &PlanSpec, batch: Batch) -> Vec<PlanError> {
    // Neither a slack of 0 nor buffers of 0 are beyond a machine; the latter is told apart.
    let buffers = match spec.credits {
        Credits::Least { slack: count } | Credits::Fixed(count) => count.max(1),
    };
    let degrees = [
        ("plan.mesh.pp", spec.mesh.pp),
        ("plan.mesh.vpp", spec.mesh.vpp),
        ("plan.mesh.ep", spec.mesh.ep),
        ("plan.mesh.dp", spec.mesh.dp),
        ("plan.microbatch", spec.microbatch),
        ("plan.credits", buffers),
        ("lanes", batch.lanes.unwrap_or(1)),
        ("batch", batch.sequences),
        ("context", batch.context),
    ];
    let limit = |field| match field {
        "batch" => usize::MAX >> 16,
        "plan.microbatch" => MICROBATCH_LIMIT,
        _ => DEGREE_LIMIT,
    };
    let wrong = degrees.into_iter().filter(|&(field, got)| !(1..=limit(field)).contains(&got));
    wrong.map(|(field, got)| PlanError::Degree { field, got, limit: limit(field) }).collect()
}

/// Numbers that do not fit each other.
fn numbers(graph: &ModelGraph, spec: &PlanSpec, batch: Batch) -> Vec<PlanError> {
    let mut errors: Vec<PlanError> = experts(graph, spec.mesh.ep).into_iter().collect();
    errors.extend((spec.credits == Credits::Fixed(0)).then_some(PlanError::NoCredits));
    errors.extend(spread(spec, batch));
    errors.extend(spec.policies().mistakes());
    let part = spec.offload_states;
    errors.extend((!(0.0..=1.0).contains(&part)).then_some(PlanError::Part { got: part }));
    if errors.is_empty() {
        errors.extend(schedule(spec, batch));
    }
    errors
}

/// Whether some layer's experts do not divide over the expert ranks.
fn experts(graph: &ModelGraph, ep: usize) -> Option<PlanError> {
    let layers = graph.nodes().filter_map(|node| match &node.op {
        Op::Dispatch(op) => Some(op.experts),
        _ => None,
    });
    let mut uneven = layers.filter(|experts| !experts.is_multiple_of(ep));
    uneven.next().map(|experts| PlanError::Experts { experts, ep })
}

/// Whether the batch does not spread evenly over ranks and lanes.
fn spread(spec: &PlanSpec, batch: Batch) -> Vec<PlanError> {
    let Batch { sequences, microbatch, lanes, .. } = batch;
    let (dp, ep, ranks) = (spec.mesh.dp, spec.mesh.ep, spec.mesh.data_ranks());
    let mut errors = Vec::new();
    if !sequences.is_multiple_of(microbatch.saturating_mul(ranks)) {
        errors.push(PlanError::Sequences { sequences, microbatch, dp, ep });
    }
    let Some(lanes) = lanes else { return errors };
    if !lanes.is_multiple_of(ranks) {
        errors.push(PlanError::Lanes { lanes, ranks });
    }
    if errors.is_empty() && !sequences.is_multiple_of(microbatch.saturating_mul(lanes)) {
        errors.push(PlanError::Units { sequences, microbatch, lanes });
    }
    errors
}

/// Whether the schedule does not know such a pipeline.
fn schedule(spec: &PlanSpec, batch: Batch) -> Option<PlanError> {
    let (schedule, pipeline) = (spec.schedule(), pipeline(spec, batch));
    let microbatches = pipeline.microbatches;
    let chunks = spec.mesh.pp.saturating_mul(spec.mesh.vpp);
    if microbatches.saturating_mul(chunks) > STEP_LIMIT {
        return Some(PlanError::TooLong { microbatches, chunks });
    }
    schedule.fits(pipeline).err().map(|unfit| PlanError::unfit(&schedule, pipeline, unfit))
}

#[cfg(test)]
mod tests;
