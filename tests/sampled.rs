//! Schedules on shapes that nobody chose, and orders that nobody wrote: the bits stay the same.
//!
//! `TROUPE_SEED` repeats a run; each prints its seed.

use std::hash::{BuildHasher, Hasher, RandomState};

use graphs::{
    PlanSpec,
    mesh::Mesh,
    schedule::{Hybrid, Interleaved, Pipeline, Schedule, Written},
    spec::Overlap,
};
use jobs::verify::{Trace, first_difference, trace};

use crate::small;

const STEPS: usize = 2;

/// A row of random numbers, by the recipe of splitmix64.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let fresh = || RandomState::new().build_hasher().finish();
        let asked = std::env::var("TROUPE_SEED").ok().and_then(|text| text.parse().ok());
        let seed = asked.unwrap_or_else(fresh);
        println!("TROUPE_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn traces(plans: &[(String, PlanSpec)]) -> Vec<Trace> {
    let decoder = small::decoder();
    let one = |(name, spec): &(String, PlanSpec)| {
        let graph = small::graph(&decoder);
        let plan = small::plan(&graph, spec);
        let feed = small::Numbers::new(decoder.vocab);
        trace(name, small::setup(graph, plan), feed, STEPS)
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    plans.iter().map(one).collect()
}

fn check(sample: Vec<PlanSpec>) {
    let one = ("one stage".to_string(), PlanSpec::default());
    let named = sample.into_iter().map(|spec| {
        let schedule = spec.schedule.as_ref().map_or("none", Schedule::name);
        (format!("{schedule} {:?} {:?}", spec.mesh, spec.overlap), spec)
    });
    let plans: Vec<(String, PlanSpec)> = std::iter::once(one).chain(named).collect();
    plans.iter().for_each(|(name, _)| println!("{name}"));
    let graph = small::graph(&small::decoder());
    assert_eq!(first_difference(&graph, &traces(&plans)), None);
}

fn schedules() -> Vec<Schedule> {
    let mut all = Schedule::ALL.to_vec();
    for paired in [false, true] {
        let rule = Interleaved { extra_warmup: 1, paired, ..Interleaved::PLAIN };
        let split = Interleaved { split_backward: true, ..rule };
        all.extend([rule, split].map(Schedule::Interleaved1F1B));
    }
    all.push(Schedule::Hybrid(Hybrid { split_pairs: true, group: None }));
    all
}

/// The pipeline that a mesh makes of the batch of [`small`].
fn pipeline(mesh: Mesh) -> Pipeline {
    let microbatches = small::BATCH.sequences / (mesh.ep * mesh.dp);
    Pipeline { stages: mesh.pp, virtual_stages: mesh.vpp, microbatches }
}

#[test]
fn schedules_on_sampled_shapes_give_the_bits_of_one_stage() {
    let (mut random, schedules, mut sample) = (Random::new(), schedules(), Vec::new());
    while sample.len() < 8 {
        let schedule = schedules[random.below(schedules.len())].clone();
        let (pp, vpp) = (1 + random.below(4), 1 + random.below(3));
        let data = [(1, 1), (2, 1), (1, 2), (2, 2)][random.below(4)];
        let mesh = Mesh { pp, vpp, ep: data.0, dp: data.1 };
        if pp * vpp <= 6 && schedule.fits(pipeline(mesh)).is_ok() {
            let overlap = [Overlap::ExpertAllToAll, Overlap::GradReduce];
            let overlap = overlap.into_iter().filter(|_| random.below(2) == 0).collect();
            sample.push(PlanSpec {
                mesh,
                schedule: Some(schedule),
                overlap,
                ..PlanSpec::default()
            });
        }
    }
    check(sample);
}

/// Chunks dealt to stages and work in an order that just happens to be lawful.
fn shuffled(random: &mut Random, pipeline: Pipeline) -> String {
    let Pipeline { stages, virtual_stages, microbatches } = pipeline;
    let chunks = stages * virtual_stages;
    let mut places: Vec<usize> = (0..chunks).map(|chunk| chunk % stages).collect();
    for last in (1..chunks).rev() {
        places.swap(last, random.below(last + 1));
    }
    // Passes done of each unit: F through all chunks, I back through all, and its W, in any order.
    let mut passes = vec![0; microbatches];
    let mut weights: Vec<(usize, usize)> = Vec::new();
    let mut rows = vec![Vec::new(); stages];
    while !weights.is_empty() || passes.iter().any(|&done| done < 2 * chunks) {
        let unit = random.below(microbatches + 2);
        match passes.get(unit).copied() {
            Some(done) if done < chunks => {
                rows[places[done]].push(format!("{done}F{unit}"));
                passes[unit] += 1;
            }
            Some(done) if done < 2 * chunks => {
                let chunk = 2 * chunks - 1 - done;
                rows[places[chunk]].push(format!("{chunk}I{unit}"));
                weights.push((chunk, unit));
                passes[unit] += 1;
            }
            None if !weights.is_empty() => {
                let (chunk, unit) = weights.swap_remove(random.below(weights.len()));
                rows[places[chunk]].push(format!("{chunk}W{unit}"));
            }
            _ => {}
        }
    }
    rows.iter().map(|row| row.join(",") + "\n").collect()
}

#[test]
fn shuffled_orders_and_placements_give_the_bits_of_one_stage() {
    let mut random = Random::new();
    let spec = |(pp, vpp, dp)| {
        let mesh = Mesh { pp, vpp, ep: 1, dp };
        let orders = shuffled(&mut random, pipeline(mesh));
        println!("{orders}");
        let schedule = Some(Schedule::Orders(Written::read(&orders).unwrap()));
        PlanSpec { mesh, schedule, ..PlanSpec::default() }
    };
    check([(2, 2, 1), (2, 2, 2), (3, 2, 2), (4, 1, 2)].map(spec).into());
}
