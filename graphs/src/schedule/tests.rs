//! Orders against inline references, and against PyTorch's and Megatron-LM's where they are.
//!
//! The outside references are read from `$TROUPE_GOLDEN`, or `../shared/golden` beside the
//! repository; tests that do not find them say so and pass.

use std::path::PathBuf;

use serde::Deserialize;

use super::*;
use crate::{action::Work, bare::Bare, check, csv, text};

fn pipeline(stages: usize, virtual_stages: usize, microbatches: usize) -> Pipeline {
    Pipeline { stages, virtual_stages, microbatches }
}

/// The folder of outside references, if it is there.
pub(crate) fn golden(part: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let root = std::env::var_os("TROUPE_GOLDEN").map_or_else(beside, PathBuf::from);
    let path = root.join(part);
    if !path.exists() {
        eprintln!("skipped: no outside reference at {}", path.display());
        return None;
    }
    Some(path)
}

fn interleaved(extra_warmup: usize, group: Option<usize>) -> Schedule {
    Schedule::Interleaved1F1B(Interleaved { extra_warmup, group, ..Interleaved::PLAIN })
}

fn check(schedule: Schedule, pipeline: Pipeline, expected: &[&str]) {
    assert_eq!(schedule.fits(pipeline), Ok(()));
    let orders = schedule.orders(pipeline);
    assert_eq!(text::orders(&orders).lines().collect::<Vec<_>>(), expected);
    let places = schedule.places(pipeline);
    assert_eq!(check::orders(&places, pipeline.microbatches, &orders), Ok(()));
}

#[test]
fn gpipe_fills_and_then_drains() {
    check(Schedule::GPipe, pipeline(2, 1, 2), &["0F0,0F1,0B0,0B1", "1F0,1F1,1B0,1B1"]);
}

#[test]
fn one_f_one_b_warms_up_less_the_later_the_stage() {
    check(
        Schedule::OneFOneB,
        pipeline(3, 1, 4),
        &[
            "0F0,0F1,0F2,0B0,0F3,0B1,0B2,0B3",
            "1F0,1F1,1B0,1F2,1B1,1F3,1B2,1B3",
            "2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3",
        ],
    );
}

#[test]
fn interleaving_takes_its_chunks_in_turn_and_backward_in_reverse() {
    check(
        interleaved(0, None),
        pipeline(2, 2, 2),
        &["0F0,0F1,2F0,2F1,2B0,2B1,0B0,0B1", "1F0,1F1,3F0,3B0,3F1,3B1,1B0,1B1"],
    );
    check(
        interleaved(1, None),
        pipeline(2, 2, 2),
        &["0F0,0F1,2F0,2F1,2B0,2B1,0B0,0B1", "1F0,1F1,3F0,3F1,3B0,3B1,1B0,1B1"],
    );
}

#[test]
fn looped_breadth_first_comes_back_the_way_it_went() {
    check(
        Schedule::LoopedBfs,
        pipeline(2, 2, 2),
        &["0F0,0F1,2F0,2F1,2B1,2B0,0B1,0B0", "1F0,1F1,3F0,3F1,3B1,3B0,1B1,1B0"],
    );
}

#[test]
fn zero_bubble_schedules_put_weight_gradients_into_the_bubbles() {
    check(
        Schedule::ZbH1,
        pipeline(2, 1, 3),
        &["0F0,0F1,0I0,0W0,0F2,0I1,0W1,0I2,0W2", "1F0,1I0,1F1,1I1,1W0,1F2,1I2,1W1,1W2"],
    );
    check(
        Schedule::ZbH2,
        pipeline(2, 1, 3),
        &["0F0,0F1,0F2,0I0,0W0,0I1,0W1,0I2,0W2", "1F0,1I0,1F1,1I1,1F2,1I2,1W0,1W1,1W2"],
    );
    check(
        Schedule::InterleavedZeroBubble,
        pipeline(2, 2, 2),
        &[
            "0F0,0F1,2F0,2F1,2I0,2W0,2I1,2W1,0I0,0W0,0I1,0W1",
            "1F0,1F1,3F0,3I0,3F1,3I1,3W0,1I0,3W1,1I1,1W0,1W1",
        ],
    );
    check(
        Schedule::ZbV,
        pipeline(2, 2, 2),
        &[
            "0F0,0F1,3F0,3I0,3W0,3F1,3I1,3W1,0I0,0W0,0I1,0W1",
            "1F0,2F0,1F1,2F1,2I0,2W0,1I0,1W0,2I1,2W1,1I1,1W1",
        ],
    );
}

#[test]
fn dual_pipe_v_needs_twice_as_many_microbatches_as_stages() {
    let fits = |v, m| Schedule::DualPipeV.fits(pipeline(2, v, m));
    assert_eq!(fits(2, 3), Err(Unfit::Microbatches { least: 4 }));
    assert_eq!(fits(1, 4), Err(Unfit::VirtualStages { expected: 2 }));
    assert_eq!(fits(2, 4), Ok(()));
}

#[test]
fn pairs_need_an_extra_forward_pass_in_the_warm_up() {
    let paired = |extra_warmup| {
        let rule = Interleaved { extra_warmup, paired: true, ..Interleaved::PLAIN };
        Schedule::Interleaved1F1B(rule)
    };
    assert_eq!(paired(0).fits(pipeline(4, 2, 16)), Err(Unfit::Pairs { chunk: 7 }));
    assert_eq!(paired(1).fits(pipeline(4, 2, 16)), Ok(()));
    // What is refused would hang.
    let bare = Bare::of(&paired(0), pipeline(4, 2, 16)).unwrap();
    let story = check::hang(&bare, 16).unwrap_err().to_string();
    assert!(story.contains("rank 3, cell 4, (7F0;7B0)OVERLAP_F_B: a pair starts when"), "{story}");
}

#[test]
fn warm_up_counts_are_those_of_megatron() {
    for (extra, expected) in [(0, [10, 8, 6, 4]), (1, [11, 9, 7, 5])] {
        let orders = interleaved(extra, None).orders(pipeline(4, 2, 16));
        let forward = |order: &Vec<Action>| order.iter().position(|a| a.work != Work::Forward);
        // The first backward pass follows the first forward pass after the warm-up.
        let warm_ups: Vec<usize> = orders.iter().map(|order| forward(order).unwrap() - 1).collect();
        assert_eq!(warm_ups, expected);
    }
}

#[test]
fn microbatches_that_make_no_groups_are_refused_with_what_would() {
    let unfit = |rule: Schedule, m| rule.fits(pipeline(4, 2, m)).unwrap_err();
    assert_eq!(
        unfit(interleaved(0, None), 6),
        Unfit::Groups { group: 4, microbatches: vec![4, 8], groups: vec![6] }
    );
    assert_eq!(
        unfit(interleaved(0, Some(5)), 8),
        Unfit::Groups { group: 5, microbatches: vec![5, 9], groups: vec![4, 8] }
    );
    assert_eq!(interleaved(0, None).fits(pipeline(4, 2, 3)), Ok(()));
    assert_eq!(Schedule::GPipe.fits(pipeline(4, 2, 8)), Err(Unfit::VirtualStages { expected: 1 }));
}

/// The part of a file name of PyTorch's references that follows a letter pair, as a number.
fn field(name: &str, key: &str) -> usize {
    let part = name.split(['_', '.']).find_map(|part| part.strip_prefix(key));
    part.unwrap_or_else(|| panic!("{name} has no {key}")).parse().unwrap()
}

/// The steps of a file.
fn read(path: &std::path::Path) -> Vec<Vec<Step>> {
    let rows = csv::read(&std::fs::read_to_string(path).unwrap()).unwrap();
    rows.iter().map(|row| row.iter().map(|cell| cell.step).collect()).collect()
}

#[test]
fn dual_pipe_v_equals_the_one_that_deepseek_runs() {
    let Some(path) = golden("pytorch-test-artifacts/dualpipev_4rank_10mb.csv") else { return };
    assert_eq!(Schedule::DualPipeV.steps(pipeline(4, 2, 10)), read(&path));
}

#[test]
fn orders_equal_those_of_pytorch() {
    let Some(folder) = golden("pytorch-2.15-generated") else { return };
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".compute.csv") {
            continue;
        }
        let (p, v, m) = (field(name, "pp"), field(name, "v"), field(name, "mb"));
        let schedule = match name.split('_').next().unwrap() {
            "GPipe" => Schedule::GPipe,
            "1F1B" => Schedule::OneFOneB,
            // PyTorch makes its groups as even as it can: so many rounds of m / rounds.
            "Interleaved1F1B" => interleaved(0, Some(m / (m / p).max(1))),
            "LoopedBFS" => Schedule::LoopedBfs,
            "InterleavedZeroBubble" => Schedule::InterleavedZeroBubble,
            "ZBVZeroBubble" => Schedule::ZbV,
            "DualPipeV" => Schedule::DualPipeV,
            other => panic!("{other} is new here"),
        };
        let expected = read(&path);
        assert_eq!(schedule.fits(pipeline(p, v, m)), Ok(()), "{name}");
        assert_eq!(schedule.steps(pipeline(p, v, m)), expected, "{name}");
        compared += 1;
    }
    assert!(compared >= 64, "compared only {compared}");
}

#[test]
fn pytorch_2_15_has_one_microbatch_too_many_in_its_1f1b_and_that_is_found() {
    let Some(folder) = golden("pytorch-2.15-generated/invalid") else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (p, v, m) = (field(name, "pp"), field(name, "v"), field(name, "mb"));
        let orders = text::read_orders(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let errors =
            check::orders(&Schedule::OneFOneB.places(pipeline(p, v, m)), m, &orders).unwrap_err();
        let last = format!("stage {}: {}F0 is missing", p - 1, p - 1);
        assert!(errors.iter().any(|error| error.to_string() == last), "{name}: {errors:?}");
    }
}

#[derive(Deserialize)]
struct Megatron {
    entries: Vec<MegatronCase>,
}

#[derive(Deserialize)]
struct MegatronCase {
    pp: usize,
    vpp: Option<usize>,
    microbatch_group_size_per_vp_stage: usize,
    microbatches: usize,
    overlap_moe_expert_parallel_comm: bool,
    megatron_runtime_rejects: bool,
    ranks: Vec<MegatronRank>,
}

#[derive(Deserialize)]
struct MegatronRank {
    rank: usize,
    order: Vec<i64>,
}

/// Megatron writes `+k` and `-k` for forward and backward of chunk `k`, counted from 1.
fn read_megatron(pipeline: Pipeline, rank: &MegatronRank) -> Vec<Action> {
    let mut counts = [[0; 2]; 16];
    let action = |&cell: &i64| {
        let (turn, backward) = (cell.unsigned_abs() as usize - 1, usize::from(cell < 0));
        let microbatch = counts[turn][backward];
        counts[turn][backward] += 1;
        let work = [Work::Forward, Work::Backward][backward];
        Action { chunk: turn * pipeline.stages + rank.rank, work, microbatch }
    };
    rank.order.iter().map(action).collect()
}

#[test]
fn orders_and_refusals_equal_those_of_megatron() {
    let Some(path) = golden("megatron/interleaved_orders.json") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let mut compared = 0;
    for case in serde_json::from_str::<Megatron>(&text).unwrap().entries {
        let pipeline = pipeline(case.pp, case.vpp.unwrap_or(1), case.microbatches);
        let extra = usize::from(case.overlap_moe_expert_parallel_comm);
        let schedule = match case.vpp {
            None => Schedule::OneFOneB,
            Some(_) => interleaved(extra, Some(case.microbatch_group_size_per_vp_stage)),
        };
        let fits = schedule.fits(pipeline);
        assert_eq!(fits.is_err(), case.megatron_runtime_rejects, "{schedule:?} {pipeline:?}");
        let orders = if fits.is_ok() { schedule.orders(pipeline) } else { Vec::new() };
        for rank in case.ranks.iter().filter(|_| fits.is_ok()) {
            let expected = read_megatron(pipeline, rank);
            assert_eq!(orders[rank.rank], expected, "{schedule:?} {pipeline:?}");
            compared += 1;
        }
    }
    assert!(compared > 900, "compared only {compared}");
}
